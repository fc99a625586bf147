// The figures of System Health as the edge itself knows them, for stacks without Prometheus. Their
// history is what this page has seen since it was opened.

import board from "k2:board";

import { COST, costOf } from "./cost.ts";
import { milliseconds, number } from "./format.ts";
import { rankOf, type Degradation, type Stats, type Status } from "./wire.ts";
import type { Line } from "./sparkline.ts";

export interface Seen {
  degradation: Degradation | null;
  status: Status | null;
  stats: Stats | null;
  /** From a feed to this page, in milliseconds. */
  freshnessMs: number | null;
  /** Trades a second, of all feeds. */
  perSecond: number | null;
  /** When this was seen, in seconds. */
  atS: number;
}

type Values = Record<string, number | null>;

const COST_QUERY =
  board.flatMap((row) => row.panels).find((panel) => panel.title === COST)?.targets[0]?.expr ?? "";
const KEPT = 300;

const byProcess = (seen: Seen, signal: string): Values =>
  Object.fromEntries(
    (seen.degradation?.processes ?? []).flatMap((process) =>
      process.pressures
        .filter((one) => one.signal === signal)
        .map((one) => [process.process, one.reading]),
    ),
  );

/** A counter of each process that has it. */
function counters(seen: Seen, name: string): Values {
  return Object.fromEntries(
    (seen.status?.components ?? []).flatMap((one) => {
      const value = number(one.counters[name]);
      return value == null ? [] : [[one.name, value]];
    }),
  );
}

/** How fast a counter of each process rises. A process that started again has no rate yet. */
function rates(seen: Seen, before: Seen | null, name: string): Values {
  if (!before || seen.atS <= before.atS) return {};
  const was = counters(before, name);
  return Object.fromEntries(
    Object.entries(counters(seen, name)).flatMap(([process, value]) => {
      const rose = (value ?? 0) - (was[process] ?? Number.POSITIVE_INFINITY);
      return rose < 0 ? [] : [[process, rose / (seen.atS - before.atS)]];
    }),
  );
}

function transitionsByLevel({ degradation }: Seen): Values {
  const byLevel: Values = {};
  for (const one of degradation?.transitions ?? []) {
    const name = `to ${one.to_level}, of the last 20`;
    byLevel[name] = (byLevel[name] ?? 0) + 1;
  }
  return byLevel;
}

/** What a panel of the board shows, by its title. A panel that is not here needs Prometheus. */
export const OWN: Record<string, (seen: Seen, before: Seen | null) => Values> = {
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
        [...process.pressures]
          .sort((left, right) => right.pressure - left.pressure)
          .slice(0, 1)
          .map((one) => [`${process.process} ${one.signal}`, one.pressure]),
      ),
    ),
  "Consumer lag": (seen) => byProcess(seen, "writer_lag_s"),
  "Resident memory": (seen) => byProcess(seen, "rss_bytes"),
  Up: ({ status }) =>
    Object.fromEntries(
      (status?.components ?? []).map((one) => [one.name, one.state === "SERVING" ? 1 : 0]),
    ),
  Running: (seen) => ({
    "queries of query": counters(seen, "queries_running").query ?? null,
    "queries that wait": counters(seen, "queries_waiting").query ?? null,
  }),
  Evaluated: ({ degradation, atS }) => {
    const ms = milliseconds(degradation?.time);
    return { age: ms == null ? null : Math.max(0, atS - ms / 1000) };
  },
  Transitions: transitionsByLevel,
  Calls: (seen, before) => rates(seen, before, "answered"),
  "Queries shed": (seen, before) => rates(seen, before, "queries_refused"),
  "Consumer lag in messages": (seen) => counters(seen, "pending_rows"),
  "Freshness: frame received to queryable": ({ freshnessMs }) => ({
    "median, to this page": freshnessMs == null ? null : freshnessMs / 1000,
  }),
  "Intake open": ({ stats }) =>
    Object.fromEntries((stats?.feeds ?? []).map((feed) => [feed.name, feed.connected ? 1 : 0])),
  [COST]: ({ stats, perSecond }) => {
    const [rows, bytes] = [number(stats?.snapshot?.rows_total), number(stats?.snapshot?.bytes_total)];
    return { cost: costOf(COST_QUERY, perSecond, rows && bytes ? bytes / rows : null) };
  },
};

/** Keeps the figures of the last minutes, by panel and line. */
export class History {
  readonly #lines = new Map<string, Map<string, [number, number][]>>();

  #before: Seen | null = null;

  take(seen: Seen): void {
    for (const [panel, read] of Object.entries(OWN)) {
      const lines = this.#lines.get(panel) ?? new Map<string, [number, number][]>();
      this.#lines.set(panel, lines);
      for (const [name, value] of Object.entries(read(seen, this.#before))) {
        if (value == null) continue;
        const points = lines.get(name) ?? [];
        points.push([seen.atS, value]);
        lines.set(name, points.slice(-KEPT));
      }
    }
    this.#before = seen;
  }

  lines(panel: string): Line[] {
    return [...(this.#lines.get(panel) ?? [])].map(([name, points]) => ({ name, points }));
  }
}

