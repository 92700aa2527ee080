/** Drag, wheel, pinch and tap on an element. */

import type { Place } from "./camera.ts";

export interface Gestures {
  pan: (dx: number, dy: number) => void;
  zoom: (factor: number, at: Place) => void;
  hover: (at: Place | null) => void;
  tap: (at: Place) => void;
}

/** A pointer that moved less than this was a tap. */
const STILL = 5;

/** Listens until the returned function is called. */
export function listen(element: HTMLElement, gestures: Gestures): () => void {
  const down = new Map<number, Place>();
  let moved = 0;
  const at = (event: PointerEvent | WheelEvent): Place => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  const onDown = (event: PointerEvent): void => {
    if (down.size === 0) moved = 0;
    down.set(event.pointerId, at(event));
    element.setPointerCapture(event.pointerId);
  };
  const onMove = (event: PointerEvent): void => {
    const now = at(event);
    const before = down.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") gestures.hover(now);
      return;
    }
    down.set(event.pointerId, now);
    moved += Math.hypot(now.x - before.x, now.y - before.y);
    if (down.size === 1) {
      if (moved >= STILL) gestures.pan(now.x - before.x, now.y - before.y);
      return;
    }
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1] ?? now;
    const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(Math.hypot(before.x - other.x, before.y - other.y), 1);
    gestures.zoom(factor, { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
  };
  const onUp = (event: PointerEvent): void => {
    const alone = down.size === 1 && down.has(event.pointerId);
    down.delete(event.pointerId);
    if (alone && moved < STILL && event.type === "pointerup") gestures.tap(at(event));
  };
  const onLeave = (): void => gestures.hover(null);
  const onWheel = (event: WheelEvent): void => {
    event.preventDefault();
    // Converts lines and pages, which some browsers report, to pixels.
    const pixels = event.deltaY * (event.deltaMode === 0 ? 1 : event.deltaMode === 1 ? 16 : 400);
    gestures.zoom(Math.exp(-pixels / 400), at(event));
  };

  element.addEventListener("pointerdown", onDown);
  element.addEventListener("pointermove", onMove);
  element.addEventListener("pointerup", onUp);
  element.addEventListener("pointercancel", onUp);
  element.addEventListener("pointerleave", onLeave);
  element.addEventListener("wheel", onWheel, { passive: false });
  return () => {
    element.removeEventListener("pointerdown", onDown);
    element.removeEventListener("pointermove", onMove);
    element.removeEventListener("pointerup", onUp);
    element.removeEventListener("pointercancel", onUp);
    element.removeEventListener("pointerleave", onLeave);
    element.removeEventListener("wheel", onWheel);
  };
}
