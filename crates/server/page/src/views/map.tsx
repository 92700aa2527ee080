/** The map: every passage is a point, close to those with a similar meaning. */

import { useMemo, useState } from "preact/hooks";
import { api, type Hit, type MapPoints, type Table } from "../api.ts";
import { type Go, useAnswer } from "../hooks.ts";
import { formatRoute, type Route } from "../logic/route.ts";
import { MapCanvas } from "../map/canvas.tsx";
import { type Categories, categories } from "../map/categories.ts";
import { Notice, Problem, Waiting } from "../parts/notice.tsx";
import { SearchBar } from "../parts/searchbar.tsx";
import { TONES } from "../parts/tones.ts";
import { useSearch } from "../search.ts";

/** Points that a browser can draw within one frame. */
const LIMIT = 100_000;
const NO_COLOUR = "-";

interface Props {
  table: Table;
  route: Route;
  go: Go;
}

export function MapView({ table, route, go }: Props) {
  const color = route.color === NO_COLOUR ? undefined : route.color || table.facets[0];
  const key = table.map ? `map ${table.name}@${table.version} ${color ?? ""}` : null;
  const answer = useAnswer(key, (signal) => api.map(table.name, color, LIMIT, signal));
  const found = useSearch(table, route);
  return (
    <div class="map">
      <h1 class="visually-hidden" tabIndex={-1}>Map of {table.name}</h1>
      <SearchBar table={table} route={route} go={go} />
      {!table.map && <NoMap table={table} />}
      {answer.error && <Problem error={answer.error} />}
      {found.error && <Problem error={found.error} />}
      {!answer.value && answer.busy && <Waiting />}
      {answer.value && !answer.error && (
        <Points
          table={table}
          route={route}
          go={go}
          points={answer.value}
          color={color}
          hits={found.value?.hits ?? NO_HITS}
          busy={found.busy}
        />
      )}
    </div>
  );
}

const NO_HITS: Hit[] = [];

function NoMap({ table }: { table: Table }) {
  return (
    <Notice title={`${table.name} has no map yet`}>
      <p>
        A map needs two numbers a row that put passages of like meaning side by side: the columns <code>map_x</code> and{" "}
        <code>map_y</code> (Float32). Search and SQL need neither.
      </p>
    </Notice>
  );
}

interface PointsProps extends Props {
  points: MapPoints;
  color: string | undefined;
  hits: Hit[];
  busy: boolean;
}

function Points({ table, route, go, points, color, hits, busy }: PointsProps) {
  const [only, setOnly] = useState<number | null>(null);
  const groups = useMemo(() => categories(points, TONES), [points]);
  const places = useMemo(() => {
    const index = new Map(points.doc_id.map((id, at) => [`${id} ${points.chunk[at]}`, at]));
    return hits.map(({ row }) => index.get(`${row["doc_id"]} ${row["chunk"]}`)).filter((at) => at !== undefined);
  }, [points, hits]);
  const count = points.x.length.toLocaleString("en");
  return (
    <>
      <div class="map-bar">
        <label class="field-inline">
          Colour
          <select
            value={color ?? NO_COLOUR}
            onChange={(event) => {
              setOnly(null);
              go({ color: event.currentTarget.value });
            }}
          >
            {table.facets.map((facet) => <option key={facet} value={facet}>{facet}</option>)}
            <option value={NO_COLOUR}>none</option>
          </select>
        </label>
        <p class="summary" role="status">
          {busy ? "Searching …" : `${count} points${places.length ? `, ${places.length} of ${hits.length} hits lit` : ""}`}
          {points.x.length < table.rows && `, of ${table.rows.toLocaleString("en")} rows`}
        </p>
      </div>
      <MapLegend groups={groups} only={only} setOnly={setOnly} />
      <MapCanvas table={table} route={route} points={points} categories={groups} only={only} hits={places} />
      <PointTable points={points} route={route} color={color} first={places} />
    </>
  );
}

interface LegendProps {
  groups: Categories;
  only: number | null;
  setOnly: (only: number | null) => void;
}

/** A pressed value is the only one highlighted. */
function MapLegend({ groups, only, setOnly }: LegendProps) {
  if (!groups.named.length) return null;
  const button = (index: number, tone: string, name: string, count: number) => (
    <li key={tone}>
      <button class="legend-button" aria-pressed={only === index} onClick={() => setOnly(only === index ? null : index)}>
        <span class={`swatch tone-${tone}`} aria-hidden="true" />
        <bdi>{name}</bdi> <span class="muted">{count.toLocaleString("en")}</span>
      </button>
    </li>
  );
  return (
    <ul class="legend" aria-label="Colours">
      {groups.named.map(({ value, count }, index) => button(index, String(index), value, count))}
      {groups.others.values > 0 && button(-1, "other", `${groups.others.values} others`, groups.others.count)}
    </ul>
  );
}

const PAGE = 50;

/** The same points as a list for screen readers: hits first. */
function PointTable({ points, route, color, first }: { points: MapPoints; route: Route; color: string | undefined; first: number[] }) {
  const [open, setOpen] = useState(false);
  const [page, setPage] = useState(0);
  const order = useMemo(() => {
    if (!open) return [];
    const lit = new Set(first);
    return [...first, ...Array.from(points.x.keys()).filter((index) => !lit.has(index))];
  }, [open, points, first]);
  const pages = Math.max(Math.ceil(order.length / PAGE), 1);
  const at = Math.min(page, pages - 1);
  return (
    <details class="map-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>The points as a table</summary>
      {open && (
        <>
          <div class="result" role="region" aria-label="Points" tabIndex={0}>
            <table>
              <thead>
                <tr>
                  <th scope="col">document</th><th scope="col" class="number">part</th>
                  {points.color && <th scope="col" dir="auto">{color}</th>}
                  <th scope="col" class="number">x</th><th scope="col" class="number">y</th><th scope="col" class="number">hit</th>
                </tr>
              </thead>
              <tbody>
                {order.slice(at * PAGE, (at + 1) * PAGE).map((index) => (
                  <tr key={index}>
                    <td dir="auto"><a href={formatRoute({ ...route, view: "document", document: points.doc_id[index] ?? "", chunk: points.chunk[index] ?? 0 })}>{points.doc_id[index]}</a></td>
                    <td class="number">{(points.chunk[index] ?? 0) + 1}</td>
                    {points.color && <td dir="auto">{String(points.color[index] ?? "")}</td>}
                    <td class="number">{points.x[index]?.toFixed(3)}</td>
                    <td class="number">{points.y[index]?.toFixed(3)}</td>
                    <td class="number">{first.indexOf(index) >= 0 ? first.indexOf(index) + 1 : ""}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="pages">
            <button disabled={at === 0} onClick={() => setPage(at - 1)}>Previous</button>
            <span class="muted">page {at + 1} of {pages}</span>
            <button disabled={at + 1 >= pages} onClick={() => setPage(at + 1)}>Next</button>
          </p>
        </>
      )}
    </details>
  );
}
