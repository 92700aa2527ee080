/** The passage of one point of a map. */

import { useEffect, useState } from "preact/hooks";
import { api, type Row, type Table } from "../api.ts";
import { languageOf } from "../logic/language.ts";
import { formatRoute, type Route } from "../logic/route.ts";
import type { Place, Size } from "./camera.ts";

/** Characters of a passage that a card shows. */
const SHOWN = 280;
/** The delay before a request, so that a pointer that only passes sends none. */
const PASSING = 120;

/** Rows by table, version, document and chunk, so that a pointer that returns sends no second request. */
const rows = new Map<string, Row | null>();

interface Props {
  table: Table;
  route: Route;
  id: string;
  chunk: number;
  color: string | null;
  at: Place;
  size: Size;
  /** Closes the card of a tapped point; that of a hovered point disappears with the pointer. */
  onClose: (() => void) | null;
}

export function PointCard({ table, route, id, chunk, color, at, size, onClose }: Props) {
  const key = JSON.stringify([table.name, table.version, id, chunk]);
  const [row, setRow] = useState<Row | null | undefined>(rows.get(key));
  useEffect(() => {
    if (row !== undefined) return;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      api.document(table.name, id, abort.signal).then(
        ({ chunks }) => {
          const found = chunks.find((other) => other["chunk"] === chunk) ?? chunks[0] ?? null;
          rows.set(key, found);
          setRow(found);
        },
        () => !abort.signal.aborted && setRow(null),
      );
    }, onClose ? 0 : PASSING);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key]);
  return (
    <div class={onClose ? "map-card fixed" : "map-card"} style={beside(at, size)}>
      <p class="map-card-head">
        <bdi><b>{id}</b></bdi>
        {color !== null && <bdi class="muted">{color}</bdi>}
      </p>
      <p class="passage" dir="auto" lang={row ? languageOf(table, row) : undefined}>{shown(row)}</p>
      {onClose && (
        <p class="map-card-foot">
          <a href={formatRoute({ ...route, view: "document", document: id, chunk })}>Open document</a>
          <button class="link" onClick={onClose}>Close</button>
        </p>
      )}
    </div>
  );
}

function shown(row: Row | null | undefined): string {
  if (row === undefined) return "…";
  const text = typeof row?.["text"] === "string" ? row["text"] : "";
  return text.length > SHOWN ? `${[...text].slice(0, SHOWN).join("")}…` : text || "no text";
}

/** Next to the point, on the side with more room. */
function beside(at: Place, size: Size): Record<string, string> {
  const [left, up] = [at.x > size.width / 2, at.y > size.height / 2];
  return {
    left: left ? "auto" : `${at.x + 16}px`,
    right: left ? `${size.width - at.x + 16}px` : "auto",
    top: up ? "auto" : `${at.y}px`,
    bottom: up ? `${size.height - at.y}px` : "auto",
  };
}
