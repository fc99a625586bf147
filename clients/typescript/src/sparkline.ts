// Draws lines over time, small.

import { svg } from "./dom.ts";

export interface Line {
  name: string;
  /** Time in seconds and value, oldest first. */
  points: [number, number][];
}

/** Returns the lines that go on to the newest time of all: others are of what is gone. */
export function current(lines: readonly Line[], graceS: number): Line[] {
  const last = (line: Line): number => line.points.at(-1)?.[0] ?? 0;
  const newest = Math.max(...lines.map(last));
  return lines.filter((line) => last(line) >= newest - graceS);
}

const [WIDTH, HEIGHT, PAD] = [320, 84, 3];
export const INKS = 6;

/** Draws several lines on one scale that begins at zero. */
export function sparkline(lines: readonly Line[], label: string): SVGElement {
  const points = lines.flatMap((line) => line.points);
  const times = points.map(([time]) => time);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const top = Math.max(...points.map(([, value]) => value), 0) || 1;
  const low = Math.min(...points.map(([, value]) => value), 0);
  const x = (time: number): number => PAD + ((time - first) / (last - first || 1)) * (WIDTH - 2 * PAD);
  const y = (value: number): number =>
    HEIGHT - PAD - ((value - low) / (top - low || 1)) * (HEIGHT - 2 * PAD);
  const drawn = lines.map((line, at) =>
    svg("polyline", {
      class: `ink-${at % INKS}`,
      points: line.points.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`).join(" "),
    }),
  );
  const floor = svg("line", { class: "floor", x1: 0, x2: WIDTH, y1: y(0), y2: y(0) });
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    floor,
    ...drawn,
  );
}
