/** Draws a map: the points on one canvas, hits and the chosen point on another above it. */

import type { MapPoints } from "../api.ts";
import { type Camera, type Size, toScreen } from "./camera.ts";
import type { Categories } from "./categories.ts";

/** A canvas in CSS pixels, and how many pixels of the screen each is. */
export interface Target {
  context: CanvasRenderingContext2D;
  size: Size;
  ratio: number;
}

export interface Scene {
  points: MapPoints;
  categories: Categories;
  camera: Camera;
  /** Only this category is coloured; -1 for the others, `null` for all. */
  only: number | null;
  /** Whether hits are highlighted; the other points are then faded. */
  lit: boolean;
  /** A colour per category, and the last for everything else. */
  colours: string[];
}

export interface Marks {
  points: MapPoints;
  camera: Camera;
  /** Points of the search's hits, the best first. */
  hits: number[];
  /** The point below the pointer, or -1. */
  chosen: number;
  ink: string;
  paper: string;
  accent: string;
}

/** Above this number, points are small squares, written as pixels: circles take a browser too long. */
const MANY = 20_000;
/** Hits that carry their rank. */
const NUMBERED = 10;

/** How strong each category is drawn, those of `named` first and the others last. */
function strengths({ categories, only, lit }: Scene): number[] {
  const groups = [...categories.named.keys(), -1];
  return groups.map((group) => {
    if (only !== null) return group === only ? 0.95 : 0.15;
    const all = lit ? 0.35 : 0.8;
    return group < 0 && categories.named.length ? all * 0.6 : all;
  });
}

export function drawPoints(target: Target, scene: Scene): void {
  const { context, size, ratio } = target;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  if (scene.points.x.length > MANY) drawPixels(target, scene);
  else drawCircles(target, scene);
}

function drawCircles({ context, size }: Target, scene: Scene): void {
  const { points, categories, camera, colours } = scene;
  const radius = points.x.length > MANY / 10 ? 2 : 3.4;
  const strength = strengths(scene);
  const last = strength.length - 1;
  // The others are drawn first, below those that have names.
  for (const group of [-1, ...categories.named.keys()]) {
    const slot = group < 0 ? last : group;
    context.fillStyle = (group < 0 ? colours.at(-1) : colours[group]) ?? "gray";
    context.globalAlpha = strength[slot] ?? 1;
    for (let index = 0; index < points.x.length; index += 1) {
      if (categories.of[index] !== group) continue;
      const { x, y } = toScreen(camera, points.x[index] ?? 0, points.y[index] ?? 0);
      if (x < -radius || y < -radius || x > size.width + radius || y > size.height + radius) continue;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
  }
  context.globalAlpha = 1;
}

/** Writes each point as a few pixels, mixed with those that are there: where points are dense the colour is full. */
function drawPixels({ context, size, ratio }: Target, scene: Scene): void {
  const { points, categories, camera } = scene;
  const width = Math.round(size.width * ratio);
  const height = Math.round(size.height * ratio);
  const image = context.createImageData(width, height);
  const pixels = image.data;
  const colours = scene.colours.map((colour) => channels(colour));
  const strength = strengths(scene);
  const side = Math.max(2, Math.round(2 * ratio));
  for (let index = 0; index < points.x.length; index += 1) {
    const group = categories.of[index] ?? -1;
    const [red, green, blue] = (group < 0 ? colours.at(-1) : colours[group]) ?? [128, 128, 128];
    const alpha = strength[group < 0 ? strength.length - 1 : group] ?? 1;
    const at = toScreen(camera, points.x[index] ?? 0, points.y[index] ?? 0);
    const [left, top] = [Math.round(at.x * ratio), Math.round(at.y * ratio)];
    for (let y = Math.max(top, 0); y < Math.min(top + side, height); y += 1) {
      for (let x = Math.max(left, 0); x < Math.min(left + side, width); x += 1) {
        const pixel = 4 * (y * width + x);
        const below = (pixels[pixel + 3] ?? 0) / 255;
        const above = alpha + below * (1 - alpha);
        const mix = (old: number, own: number): number => (own * alpha + old * below * (1 - alpha)) / above;
        pixels[pixel] = mix(pixels[pixel] ?? 0, red);
        pixels[pixel + 1] = mix(pixels[pixel + 1] ?? 0, green);
        pixels[pixel + 2] = mix(pixels[pixel + 2] ?? 0, blue);
        pixels[pixel + 3] = 255 * above;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/** Red, green and blue of `rgb(…)`, the form in which a browser returns a computed colour. */
function channels(colour: string): [number, number, number] {
  const [red, green, blue] = (colour.match(/[\d.]+/g) ?? []).map(Number);
  return [red ?? 128, green ?? 128, blue ?? 128];
}

export function drawMarks({ context, size, ratio }: Target, marks: Marks): void {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  context.font = "600 11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  // The best hit is drawn last, on top.
  for (let rank = marks.hits.length - 1; rank >= 0; rank -= 1) {
    const { x, y } = place(marks, marks.hits[rank] ?? 0);
    const numbered = rank < NUMBERED;
    circle(context, x, y, numbered ? 9 : 5);
    context.fillStyle = marks.accent;
    context.fill();
    context.strokeStyle = marks.paper;
    context.lineWidth = 1.5;
    context.stroke();
    if (!numbered) continue;
    context.fillStyle = marks.paper;
    context.fillText(String(rank + 1), x, y + 0.5);
  }
  if (marks.chosen < 0) return;
  const { x, y } = place(marks, marks.chosen);
  circle(context, x, y, marks.hits.slice(0, NUMBERED).includes(marks.chosen) ? 12 : 8);
  context.strokeStyle = marks.ink;
  context.lineWidth = 2;
  context.stroke();
}

function circle(context: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
}

function place({ points, camera }: Marks, index: number): { x: number; y: number } {
  return toScreen(camera, points.x[index] ?? 0, points.y[index] ?? 0);
}
