/** The map's picture: zoom, pan, and the passage below the pointer. */

import type { RefObject } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { MapPoints, Table } from "../api.ts";
import type { Route } from "../logic/route.ts";
import { toneColours } from "../parts/tones.ts";
import { onTheme } from "../theme.ts";
import { type Camera, fit, Grid, pan, type Place, type Size, toData, toScreen, zoom } from "./camera.ts";
import { PointCard } from "./card.tsx";
import type { Categories } from "./categories.ts";
import { drawMarks, drawPoints, type Target } from "./draw.ts";
import { listen } from "./gestures.ts";

interface Props {
  table: Table;
  route: Route;
  points: MapPoints;
  categories: Categories;
  only: number | null;
  hits: number[];
}

/** Pixels around a point within which the pointer selects it. */
const REACH = 14;
/** Pixels that an arrow key moves the map by. */
const STEP = 60;
const ZOOM = 1.5;

export function MapCanvas({ table, route, points, categories, only, hits }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const below = useRef<HTMLCanvasElement>(null);
  const above = useRef<HTMLCanvasElement>(null);
  const size = useSize(host);
  const themed = useThemeCount();
  const [camera, setCamera] = useState<Camera | null>(null);
  const [hovered, setHovered] = useState(-1);
  const [tapped, setTapped] = useState(-1);
  const grid = useMemo(() => new Grid(points.x, points.y), [points]);
  const whole = useMemo(() => fit(points.x, points.y, size), [points, size]);
  const limits: [number, number] = [whole.scale / 2, whole.scale * 400];
  const shown = camera ?? whole;
  const chosen = tapped >= 0 ? tapped : hovered;

  useEffect(() => {
    setCamera(null);
    setHovered(-1);
    setTapped(-1);
  }, [points]);

  // Listeners live as long as the canvas, and read the current values from here.
  const now = useRef({ camera: shown, limits, grid });
  now.current = { camera: shown, limits, grid };
  useEffect(() => {
    if (!above.current) return;
    const find = (at: Place): number =>
      now.current.grid.nearest(toData(now.current.camera, at), REACH / now.current.camera.scale);
    return listen(above.current, {
      pan: (dx, dy) => setCamera(pan(now.current.camera, dx, dy)),
      zoom: (factor, at) => setCamera(zoom(now.current.camera, factor, at, now.current.limits)),
      hover: (at) => setHovered(at ? find(at) : -1),
      tap: (at) => setTapped(find(at)),
    });
  }, []);

  const { scale, x, y } = shown;
  const lit = hits.length > 0;
  useEffect(() => {
    const target = sized(below.current, size);
    if (target) drawPoints(target, { points, categories, camera: shown, only, lit, colours: toneColours(document.body) });
  }, [points, categories, only, lit, scale, x, y, size, themed]);
  useEffect(() => {
    const target = sized(above.current, size);
    if (!target || !below.current) return;
    const { color: ink, backgroundColor: paper, accentColor: accent } = getComputedStyle(below.current);
    drawMarks(target, { points, camera: shown, hits, chosen, ink, paper, accent });
  }, [points, hits, chosen, scale, x, y, size, themed]);

  const zoomBy = (factor: number): void => setCamera(zoom(shown, factor, { x: size.width / 2, y: size.height / 2 }, limits));
  const keys: Record<string, () => void> = {
    ArrowLeft: () => setCamera(pan(shown, STEP, 0)),
    ArrowRight: () => setCamera(pan(shown, -STEP, 0)),
    ArrowUp: () => setCamera(pan(shown, 0, STEP)),
    ArrowDown: () => setCamera(pan(shown, 0, -STEP)),
    "+": () => zoomBy(ZOOM),
    "-": () => zoomBy(1 / ZOOM),
    "0": () => setCamera(null),
    ...(tapped >= 0 && { Escape: () => setTapped(-1) }),
  };
  return (
    <div
      class="map-canvas"
      ref={host}
      role="group"
      aria-label={`Map of ${points.x.length.toLocaleString("en")} points; arrow keys move it, plus and minus zoom, 0 shows all`}
      tabIndex={0}
      onKeyDown={(event) => {
        const move = keys[event.key];
        if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        move();
      }}
    >
      <canvas class="map-points" ref={below} aria-hidden="true" />
      <canvas class="map-marks" ref={above} aria-hidden="true" />
      <div class="map-zoom">
        <button aria-label="Zoom in" onClick={() => zoomBy(ZOOM)}>+</button>
        <button aria-label="Zoom out" onClick={() => zoomBy(1 / ZOOM)}>−</button>
        <button aria-label="Show all points" onClick={() => setCamera(null)}>⤢</button>
      </div>
      {chosen >= 0 && (
        <PointCard
          key={chosen}
          table={table}
          route={route}
          id={points.doc_id[chosen] ?? ""}
          chunk={points.chunk[chosen] ?? 0}
          color={points.color ? String(points.color[chosen] ?? "no value") : null}
          at={toScreen(shown, points.x[chosen] ?? 0, points.y[chosen] ?? 0)}
          size={size}
          onClose={tapped >= 0 ? () => setTapped(-1) : null}
        />
      )}
    </div>
  );
}

/** The canvas at the resolution of the screen; `null` as long as there is none. */
function sized(canvas: HTMLCanvasElement | null, size: Size): Target | null {
  const context = canvas?.getContext("2d");
  if (!canvas || !context || !size.width || !size.height) return null;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return { context, size, ratio };
}

function useSize(element: RefObject<HTMLElement | null>): Size {
  const [size, setSize] = useState<Size>({ width: 0, height: 0 });
  useEffect(() => {
    const watched = element.current;
    if (!watched) return;
    const watch = new ResizeObserver(() => setSize({ width: watched.clientWidth, height: watched.clientHeight }));
    watch.observe(watched);
    return () => watch.disconnect();
  }, []);
  return size;
}

/** A number that changes whenever the colours do. */
function useThemeCount(): number {
  const [count, setCount] = useState(0);
  useEffect(() => onTheme(() => setCount((count) => count + 1)), []);
  return count;
}
