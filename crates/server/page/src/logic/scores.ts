/** Scores as lengths and words. */

import type { Hit, Mode } from "../api.ts";

/** The bar of the last hit: it is a hit, too. */
const SHORTEST = 0.15;

/**
 * How long each hit's bar is, from 0 without a score to 1.
 *
 * Scores of one search lie close together and on a scale of their own (cosines near 0.9, fused ranks near 0.03), so
 * bars compare the hits of one list with each other; the number next to a bar is the score itself.
 */
export function bars(scores: (number | null)[]): number[] {
  const known = scores.filter((score) => score !== null);
  const best = Math.max(...known);
  const worst = Math.min(...known);
  const share = (score: number): number => (best > worst ? (score - worst) / (best - worst) : 1);
  return scores.map((score) => (score === null ? 0 : SHORTEST + (1 - SHORTEST) * share(score)));
}

/** A score with the digits that matter. */
export function scoreText(score: number | null): string {
  if (score === null) return "–";
  return Math.abs(score) >= 10 ? score.toFixed(1) : Math.abs(score) < 0.1 ? score.toFixed(4) : score.toFixed(3);
}

export const MODE_NAMES: Record<Mode | "auto", string> = {
  auto: "Auto",
  vector: "Meaning",
  text: "Words",
  hybrid: "Both",
};

export const MODE_SAYS: Record<Mode, string> = {
  vector: "by meaning",
  text: "by words",
  hybrid: "by meaning and words",
};

export interface Reason {
  by: string;
  rank: number;
  measure: string;
  /** From 0 to 1, where the measure has such a scale. */
  share: number | null;
}

const within = (share: number): number => Math.min(Math.max(share, 0), 1);

/** The rankings that contribute to a hit's position. */
export function reasons(hit: Hit): Reason[] {
  const all: Reason[] = [];
  if (hit.vector) {
    const { rank, distance } = hit.vector;
    // Vectors have length one, so a cosine distance of 1 means nothing in common.
    all.push({ by: "meaning", rank, measure: `distance ${scoreText(distance)}`, share: within(1 - distance) });
  }
  if (hit.text) all.push({ by: "words", rank: hit.text.rank, measure: `BM25 ${scoreText(hit.text.bm25)}`, share: null });
  if (hit.rerank) {
    const { rank, score } = hit.rerank;
    const share = score !== null && score >= 0 && score <= 1 ? score : null;
    all.push({ by: "reranker", rank, measure: `score ${scoreText(score)}`, share });
  }
  return all;
}
