// Holds what the page shows as plain values, and how they change. Nothing here touches a document.

import { milliseconds } from "./format.ts";
import type { Bar, GapRecord, Row, Snapshot, Trade } from "./wire.ts";

/** Merges trades into those that are shown: each once, newest first, at most `most`. */
export function merged(shown: readonly Trade[], come: readonly Trade[], most: number): Trade[] {
  const byKey = new Map<string, Trade>();
  for (const trade of [...shown, ...come]) byKey.set(keyOf(trade), trade);
  return [...byKey.values()].sort(newestFirst).slice(0, most);
}

/** Returns those that are newer than all that are shown; none while none is. */
export function unseen(shown: readonly Trade[], come: readonly Trade[]): Trade[] {
  const newest = shown[0];
  return newest ? come.filter((trade) => newestFirst(trade, newest) < 0) : [];
}

function keyOf(trade: Trade): string {
  return `${trade.exchange}/${trade.symbol}/${trade.trade_id}`;
}

function newestFirst(left: Trade, right: Trade): number {
  if (left.event_time !== right.event_time) return left.event_time < right.event_time ? 1 : -1;
  const [one, other] = [BigInt(left.trade_id), BigInt(right.trade_id)];
  return one === other ? 0 : one < other ? 1 : -1;
}

/** Merges bars: a later state of a bar replaces it; oldest first, at most the newest `most`. */
export function mergedBars(shown: readonly Bar[], come: readonly Bar[], most: number): Bar[] {
  const byStart = new Map(shown.map((bar) => [bar.bar_start, bar]));
  for (const bar of come) byStart.set(bar.bar_start, bar);
  const ordered = [...byStart.values()].sort((left, right) =>
    left.bar_start < right.bar_start ? -1 : left.bar_start > right.bar_start ? 1 : 0,
  );
  return ordered.slice(-most);
}

/** Reads rows out of an event of a stream: one row, several, or a whole answer. */
export function rowsOf<R>(data: string): R[] {
  const value = JSON.parse(data) as unknown;
  if (Array.isArray(value)) return value as R[];
  if (value && typeof value === "object") {
    const inside = (value as { data?: unknown }).data;
    if (Array.isArray(inside)) return inside as R[];
    return [value as R];
  }
  return [];
}

/** Measures the rate of a counter by its readings of the last seconds. */
export class Rate {
  readonly #readings: { atMs: number; value: number }[] = [];

  constructor(readonly windowMs: number = 10_000) {}

  /** Takes a reading; a counter that fell starts again. */
  read(value: number | null, atMs: number): void {
    if (value == null) return;
    const last = this.#readings.at(-1);
    if (last && value < last.value) this.#readings.length = 0;
    this.#readings.push({ atMs, value });
    while (this.#readings.length > 2 && atMs - (this.#readings[0]?.atMs ?? 0) > this.windowMs) {
      this.#readings.shift();
    }
  }

  /** Returns the rate per second; null before the second reading. */
  get perSecond(): number | null {
    const [first, last] = [this.#readings[0], this.#readings.at(-1)];
    if (!first || !last || last.atMs <= first.atMs) return null;
    return ((last.value - first.value) * 1000) / (last.atMs - first.atMs);
  }
}

/** Remembers how long trades took from the feed to this page, and gives the median. */
export class Freshness {
  readonly #ages: number[] = [];

  /** Takes trades that came live. An age below zero says that clocks differ: it is not kept. */
  take(trades: readonly Trade[], nowMs: number): void {
    for (const trade of trades) {
      const received = milliseconds(trade.receive_time);
      if (received != null && nowMs >= received) this.#ages.push(nowMs - received);
    }
    this.#ages.splice(0, this.#ages.length - 200);
  }

  get medianMs(): number | null {
    const ordered = [...this.#ages].sort((left, right) => left - right);
    return ordered[ordered.length >> 1] ?? null;
  }

  forget(): void {
    this.#ages.length = 0;
  }
}

/** The position of the slider: that of a snapshot, oldest first, or the end, which is live. */
export function positionOf(snapshots: readonly Snapshot[], chosen: string | null): number {
  const at = snapshots.findIndex((snapshot) => snapshot.snapshot_id === chosen);
  return at < 0 ? snapshots.length : at;
}

/** The snapshots of the slider, oldest first, each once. */
export function onSlider(listed: readonly Snapshot[]): Snapshot[] {
  const order = (snapshot: Snapshot): number => milliseconds(snapshot.commit_time) ?? 0;
  const once = new Map(listed.map((snapshot) => [snapshot.snapshot_id, snapshot]));
  return [...once.values()].filter(order).sort((left, right) => order(left) - order(right));
}

export interface Healing {
  open: bigint;
  filled: bigint;
  unfillable: bigint;
  /** How long the slowest of the filled ones took, in seconds. */
  slowestS: number | null;
}

/** Sums the ledger of gaps: how many trade ids are missing, and how many came after all. */
export function healing(gaps: readonly GapRecord[]): Healing {
  const sums = { open: 0n, filled: 0n, unfillable: 0n, slowestS: null as number | null };
  for (const gap of gaps) {
    const ids = missedIds(gap);
    if (gap.state === "OPEN") sums.open += ids;
    if (gap.state === "UNFILLABLE") sums.unfillable += ids;
    if (gap.state !== "FILLED") continue;
    sums.filled += ids;
    const took = secondsBetween(gap.detect_time, gap.fill_time);
    if (took != null) sums.slowestS = Math.max(sums.slowestS ?? 0, took);
  }
  return sums;
}

/** Counts the trade ids of a gap, both ends inclusive. */
export function missedIds(gap: GapRecord): bigint {
  return BigInt(gap.last_trade_id) - BigInt(gap.first_trade_id) + 1n;
}

/** Returns the seconds between two times; null where one is not known. */
export function secondsBetween(from: string | null, to: string | null): number | null {
  const [start, end] = [milliseconds(from), milliseconds(to)];
  return start == null || end == null ? null : (end - start) / 1000;
}

export interface Question {
  shape: string;
  symbols: string;
  last: string;
  start: string;
  end: string;
  every: string;
  fill: string;
  tz: string;
  date: string;
  limit: string;
  order: string;
  as_of: string;
}

const FIELDS: readonly (keyof Question)[] = [
  "shape", "symbols", "last", "start", "end", "every", "fill", "tz", "date", "limit", "order", "as_of",
];

export const ASKED_FIRST: Question = {
  shape: "trades",
  symbols: "",
  last: "5m",
  start: "",
  end: "",
  every: "1m",
  fill: "none",
  tz: "UTC",
  date: "",
  limit: "100",
  order: "desc",
  as_of: "",
};

/** Writes a question as the part of an address behind `#`. */
export function linkOf(question: Question): string {
  const query = new URLSearchParams();
  for (const field of FIELDS) if (question[field]) query.append(field, question[field]);
  return `#query?${query.toString()}`;
}

/** Reads a question out of an address; null where it carries none. */
export function questionOf(hash: string): Question | null {
  if (!hash.startsWith("#query?")) return null;
  const query = new URLSearchParams(hash.slice("#query?".length));
  const read = { ...ASKED_FIRST, last: "" };
  for (const field of FIELDS) read[field] = query.get(field) ?? (field === "last" ? "" : read[field]);
  return read;
}

/** The same question with its range resolved and its rows pinned by the read token. */
export function pinned(
  question: Question,
  token: string,
  range: { start_time: string | null; end_time: string | null },
): Question {
  return {
    ...question,
    last: "",
    start: range.start_time ?? "",
    end: range.end_time ?? "",
    as_of: token,
  };
}

const FIRST = [
  "bar_start", "event_time", "exchange", "symbol", "side", "price", "quantity", "trade_id",
];

/** The columns of rows: those that are read first lead, the others come in their order. */
export function columnsOf(rows: readonly Row[]): string[] {
  const seen = new Set<string>();
  for (const row of rows.slice(0, 50)) for (const name of Object.keys(row)) seen.add(name);
  const leading = FIRST.filter((name) => seen.has(name));
  return [...leading, ...[...seen].filter((name) => !leading.includes(name))];
}
