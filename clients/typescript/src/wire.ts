// The edge's answers under the names that the page uses. The types are generated from the edge's
// OpenAPI document by `npm run types`. Exact decimals and 64-bit ids are text.

import type { components } from "./generated/edge.ts";

type Schemas = components["schemas"];

export type Level = "NORMAL" | "SOFT" | "GRACEFUL" | "AGGRESSIVE" | "CIRCUIT_BREAK";
export type Row = Record<string, unknown>;

export const LEVELS: readonly Level[] = [
  "NORMAL",
  "SOFT",
  "GRACEFUL",
  "AGGRESSIVE",
  "CIRCUIT_BREAK",
];

/** A row whose columns are all there, because the page chooses none. */
type Whole<T> = { [Name in keyof T]-?: NonNullable<T[Name]> };

export type Trade = Whole<Schemas["TradeRow"]>;
export type Provenance = Schemas["Provenance"];
export type Snapshot = Schemas["Snapshot"];
export type GapRecord = Schemas["GapRecord"];
export type Degradation = Schemas["LevelDocument"];
export type ProcessLevel = Schemas["ProcessDegradation"];
export type Pressure = Schemas["Pressure"];
export type Transition = Schemas["Transition"];
export type Status = Schemas["Status"];
export type Stats = Schemas["Stats"];
export type Feed = Schemas["Feed"];
export type ProblemBody = Partial<Schemas["ProblemDocument"]>;

/** What wraps rows. */
export type Answer<R> = Omit<Schemas["TradesDocument"], "data"> & { data: R[] };

type Prices = "open" | "high" | "low" | "close" | "vwap";
type BarRow = Schemas["BarRow"];

/** A bar; one that was filled may have no prices. */
export type Bar = Whole<Omit<BarRow, Prices>> & { [Name in Prices]: string | null };

/** Returns the number of a level, NORMAL 0; null for one that this page does not know. */
export function rankOf(level: string): number | null {
  const rank = LEVELS.findIndex((known) => known === level);
  return rank < 0 ? null : rank;
}
