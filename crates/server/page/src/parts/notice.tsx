/** Shown in place of results: an error, an empty result, a pending request. */

import type { ComponentChildren } from "preact";
import type { ApiError } from "../api.ts";

export function Problem({ error }: { error: ApiError }) {
  return (
    <div class="notice problem" role="alert">
      <p class="notice-title" dir="auto">{error.message}</p>
      {error.hint && <p dir="auto">{error.hint}</p>}
    </div>
  );
}

export function Notice({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="notice">
      <p class="notice-title">{title}</p>
      {children}
    </div>
  );
}

/** Grey lines where passages will be. */
export function Waiting({ lines = 3 }: { lines?: number }) {
  return (
    <div class="waiting" aria-hidden="true">
      {Array.from({ length: lines }, (_, index) => (
        <div key={index} class="waiting-item">
          <i /><i /><i />
        </div>
      ))}
    </div>
  );
}
