// The figures of System Health as the edge itself knows them, for stacks without Prometheus. Their
// history is what this page has seen since it was opened.

import { rankOf, type Degradation, type Stats, type Status } from "./wire.ts";
import type { Line } from "./sparkline.ts";

export interface Seen {
  degradation: Degradation | null;
  status: Status | null;
  stats: Stats | null;
}

type Values = Record<string, number | null>;
const KEPT = 300;

const byProcess = (seen: Seen, signal: string): Values =>
  Object.fromEntries(
    (seen.degradation?.processes ?? []).flatMap((process) =>
      process.pressures
        .filter((one) => one.signal === signal)
        .map((one) => [process.process, one.reading]),
    ),
  );

/** What a panel of the board shows, by its title. A panel that is not here needs Prometheus. */
export const OWN: Record<string, (seen: Seen) => Values> = {
  "Platform level": ({ degradation }) => ({
    level: degradation && rankOf(degradation.level),
  }),
  "Override set": ({ degradation }) => ({ set: degradation && (degradation.override ? 1 : 0) }),
  "Signals injected": ({ degradation }) => ({
    injected:
      degradation &&
      degradation.processes.flatMap((each) => each.pressures).filter((each) => each.injected)
        .length,
  }),
  Level: ({ degradation }) => ({
    platform: degradation && rankOf(degradation.level),
    ...Object.fromEntries(
      (degradation?.processes ?? []).map((one) => [one.process, rankOf(one.level)]),
    ),
  }),
  "Pressure by signal": ({ degradation }) =>
    Object.fromEntries(
      (degradation?.processes ?? []).flatMap((process) =>
        process.pressures
          .filter((one) => one.pressure > 0)
          .slice(0, 2)
          .map((one) => [`${process.process} ${one.signal}`, one.pressure]),
      ),
    ),
  "Consumer lag": (seen) => byProcess(seen, "writer_lag_s"),
  "Resident memory": (seen) => byProcess(seen, "rss_bytes"),
  Up: ({ status }) =>
    Object.fromEntries(
      (status?.components ?? []).map((one) => [one.name, one.state === "SERVING" ? 1 : 0]),
    ),
  Running: (seen) => byProcess(seen, "queries_running"),
  "Intake open": ({ stats }) =>
    Object.fromEntries((stats?.feeds ?? []).map((feed) => [feed.name, feed.connected ? 1 : 0])),
};

/** Keeps the figures of the last minutes, by panel and line. */
export class History {
  readonly #lines = new Map<string, Map<string, [number, number][]>>();

  take(seen: Seen, atS: number): void {
    for (const [panel, read] of Object.entries(OWN)) {
      const lines = this.#lines.get(panel) ?? new Map<string, [number, number][]>();
      this.#lines.set(panel, lines);
      for (const [name, value] of Object.entries(read(seen))) {
        if (value == null) continue;
        const points = lines.get(name) ?? [];
        points.push([atS, value]);
        lines.set(name, points.slice(-KEPT));
      }
    }
  }

  lines(panel: string): Line[] {
    return [...(this.#lines.get(panel) ?? [])].map(([name, points]) => ({ name, points }));
  }
}

