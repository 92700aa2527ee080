/** The values that colour a map. */

import type { MapPoints } from "../api.ts";

export interface Categories {
  /** The most frequent values, each with a tone of its own. */
  named: { value: string; count: number }[];
  /** How many other values there are, and how many points they have. */
  others: { values: number; count: number };
  /** Each point's index in `named`; -1 for all others. */
  of: Int32Array;
}

export function categories(points: MapPoints, most: number): Categories {
  const of = new Int32Array(points.x.length).fill(-1);
  if (!points.color) return { named: [], others: { values: 0, count: 0 }, of };
  const counts = new Map<string, number>();
  const values = points.color.map((value) => (value === null ? "no value" : String(value)));
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const sorted = [...counts].map(([value, count]) => ({ value, count })).sort((a, b) => b.count - a.count);
  const named = sorted.slice(0, most);
  const rest = sorted.slice(most);
  const place = new Map(named.map(({ value }, index) => [value, index]));
  values.forEach((value, index) => (of[index] = place.get(value) ?? -1));
  return { named, others: { values: rest.length, count: rest.reduce((sum, { count }) => sum + count, 0) }, of };
}
