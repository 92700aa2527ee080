/** One of ten tones for each label, the same everywhere on the page. */

export const TONES = 10;

const known = new Map<string, number>();

/** The label's tone, from 0: decided by its letters, or the next one that is free. */
export function tone(label: string): number {
  const before = known.get(label);
  if (before !== undefined) return before;
  const taken = new Set(known.values());
  let next = [...label].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 9973, 7) % TONES;
  while (taken.has(next) && taken.size < TONES) next = (next + 1) % TONES;
  known.set(label, next);
  return next;
}

/** The tones as the stylesheet has them now, for drawing on a canvas; the last is for everything else. */
export function toneColours(host: HTMLElement): string[] {
  const probe = document.createElement("span");
  host.append(probe);
  const colours = [...Array(TONES).keys(), "other"].map((tone) => {
    probe.className = `tone-${tone} swatch`;
    return getComputedStyle(probe).backgroundColor;
  });
  probe.remove();
  return colours;
}
