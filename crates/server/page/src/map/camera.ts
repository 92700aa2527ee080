/** Where points are on the screen. */

export interface Size {
  width: number;
  height: number;
}

/** Screen = point × scale + offset; y grows downwards on the screen and upwards in the data. */
export interface Camera {
  scale: number;
  x: number;
  y: number;
}

export interface Place {
  x: number;
  y: number;
}

/** The camera that shows all points, with a margin. */
export function fit(x: ArrayLike<number>, y: ArrayLike<number>, size: Size, margin = 28): Camera {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let index = 0; index < x.length; index += 1) {
    const [px, py] = [x[index] ?? 0, y[index] ?? 0];
    left = Math.min(left, px);
    right = Math.max(right, px);
    low = Math.min(low, py);
    high = Math.max(high, py);
  }
  if (!(left <= right && low <= high)) return { scale: 1, x: size.width / 2, y: size.height / 2 };
  const inner = { width: Math.max(size.width - 2 * margin, 1), height: Math.max(size.height - 2 * margin, 1) };
  // One point, or points on a line, have no extent in some direction.
  const scale = Math.min(inner.width / (right - left || 1e-9), inner.height / (high - low || 1e-9), 1e6);
  return {
    scale,
    x: size.width / 2 - (scale * (left + right)) / 2,
    y: size.height / 2 + (scale * (low + high)) / 2,
  };
}

export function toScreen(camera: Camera, x: number, y: number): Place {
  return { x: x * camera.scale + camera.x, y: -y * camera.scale + camera.y };
}

export function toData(camera: Camera, at: Place): Place {
  return { x: (at.x - camera.x) / camera.scale, y: -(at.y - camera.y) / camera.scale };
}

/** Zooms by `factor` around the point at `at`, within the `limits` of the scale. */
export function zoom(camera: Camera, factor: number, at: Place, limits: [number, number]): Camera {
  const scale = Math.min(Math.max(camera.scale * factor, limits[0]), limits[1]);
  const real = scale / camera.scale;
  return { scale, x: at.x + (camera.x - at.x) * real, y: at.y + (camera.y - at.y) * real };
}

export function pan(camera: Camera, dx: number, dy: number): Camera {
  return { ...camera, x: camera.x + dx, y: camera.y + dy };
}

/** Points by square cells, to find the one below the pointer among many. */
export class Grid {
  readonly #cells = new Map<string, number[]>();
  readonly #cell: number;

  constructor(
    private readonly x: ArrayLike<number>,
    private readonly y: ArrayLike<number>,
  ) {
    let [low, high] = [Infinity, -Infinity];
    for (let index = 0; index < x.length; index += 1) {
      low = Math.min(low, x[index] ?? 0, y[index] ?? 0);
      high = Math.max(high, x[index] ?? 0, y[index] ?? 0);
    }
    this.#cell = (high - low) / Math.max(Math.sqrt(x.length), 1) || 1;
    for (let index = 0; index < x.length; index += 1) {
      const key = this.#key(this.#of(x[index] ?? 0), this.#of(y[index] ?? 0));
      const cell = this.#cells.get(key);
      if (cell) cell.push(index);
      else this.#cells.set(key, [index]);
    }
  }

  /** The point nearest to a position for which `counts` is true, not farther than `radius`; -1 when there is none. */
  nearest(at: Place, radius: number, counts: (index: number) => boolean = () => true): number {
    let best = -1;
    let distance = radius * radius;
    for (const index of this.#around(at, radius)) {
      if (!counts(index)) continue;
      const square = ((this.x[index] ?? 0) - at.x) ** 2 + ((this.y[index] ?? 0) - at.y) ** 2;
      if (square <= distance) [best, distance] = [index, square];
    }
    return best;
  }

  /** The points of the cells within `radius`; of all cells, when those are fewer. */
  *#around(at: Place, radius: number): Iterable<number> {
    const [left, right] = [this.#of(at.x - radius), this.#of(at.x + radius)];
    const [low, high] = [this.#of(at.y - radius), this.#of(at.y + radius)];
    if ((right - left + 1) * (high - low + 1) > this.#cells.size) {
      for (const cell of this.#cells.values()) yield* cell;
      return;
    }
    for (let column = left; column <= right; column += 1) {
      for (let row = low; row <= high; row += 1) yield* this.#cells.get(this.#key(column, row)) ?? [];
    }
  }

  #of(value: number): number {
    return Math.floor(value / this.#cell);
  }

  #key(column: number, row: number): string {
    return `${column} ${row}`;
  }
}
