// The edge's answers, as far as the page reads them. Exact decimals and 64-bit ids are text.

export type Level = "NORMAL" | "SOFT" | "GRACEFUL" | "AGGRESSIVE" | "CIRCUIT_BREAK";
export type Source = "LIVE" | "RECORDED" | "SIMULATED";
export type Row = Record<string, unknown>;

export const LEVELS: readonly Level[] = [
  "NORMAL",
  "SOFT",
  "GRACEFUL",
  "AGGRESSIVE",
  "CIRCUIT_BREAK",
];

export interface Trade {
  exchange: string;
  symbol: string;
  trade_id: string;
  event_time: string;
  receive_time?: string;
  price: string;
  quantity: string;
  side: "BUY" | "SELL";
}

export interface Bar {
  bar_start: string;
  exchange: string;
  symbol: string;
  open: string | null;
  high: string | null;
  low: string | null;
  close: string | null;
  volume: string;
  count: string | number;
  vwap: string | null;
  final: boolean;
}

export interface Provenance {
  snapshot_id: string | null;
  snapshot_commit_time: string | null;
  planned_time: string | null;
  level: Level;
  source: Source;
  completeness: "COMPLETE" | "GAPS" | "PARTIAL" | "UNKNOWN";
  gaps_total: number | string;
  rows_lake: number | string | null;
  rows_tail: number | string | null;
  freshness_ms: number | null;
  token: string | null;
  range: { start_time: string | null; end_time: string | null };
}

export interface Estimate {
  files: number | string;
  chunks: number | string;
  bytes: number | string;
  rows: number | string;
}

export interface Answer<R> {
  data: R[];
  next_cursor: string | null;
  provenance: Provenance;
  timing_ms: { plan: number; first_batch: number | null; total: number };
  estimate: Estimate;
}

export interface Snapshot {
  snapshot_id: string;
  commit_time: string;
  rows_total: number | string;
  rows_added: number | string;
  files_total: number | string;
  bytes_total: number | string;
  operation: string;
}

export interface GapRecord {
  exchange: string;
  symbol: string;
  first_trade_id: string;
  last_trade_id: string;
  state: "OPEN" | "FILLED" | "UNFILLABLE" | "VOID";
  cause: string;
  detect_time: string | null;
  fill_time: string | null;
  reason: string;
}

export interface Pressure {
  signal: string;
  reading: number | null;
  pressure: number;
  injected: boolean;
}

export interface ProcessLevel {
  process: string;
  state: string;
  level: Level;
  pressures: Pressure[];
}

export interface Transition {
  time: string;
  from_level: Level;
  to_level: Level;
  cause: string;
  process: string;
  signal: string;
  pressure: number;
  injected: boolean;
  reason: string;
}

export interface Degradation {
  level: Level;
  summary: string;
  override: { level: Level; reason: string; expire_time: string } | null;
  injected: boolean;
  shadow: boolean;
  processes: ProcessLevel[];
  transitions?: Transition[];
}

export interface SymbolFeed {
  symbol: string;
  acknowledged_trade_id: string | null;
  gaps: number | string;
  ids_missing: number | string;
  duplicates: number | string;
  reordered: number | string;
}

export interface Feed {
  name: string;
  state: string;
  exchange: string;
  source: Source;
  venue_url: string;
  connected: boolean;
  symbols: SymbolFeed[];
  trades_acknowledged: number | string;
  reconnects: number | string;
}

export interface Component {
  name: string;
  state: string;
  level: Level | null;
  addresses: Record<string, string>;
  counters: Record<string, string>;
}

export interface Status {
  state: string;
  level: Level;
  source: Source;
  version: string;
  components: Component[];
}

export interface Topic {
  name: string;
  messages: number | string;
  messages_written: number | string;
}

export interface Stats {
  snapshot: Snapshot | null;
  topics: Topic[];
  feeds: Feed[];
  gaps: Record<string, number>;
}

/** RFC 9457, with K2's reason. */
export interface ProblemBody {
  title?: string;
  detail?: string;
  reason?: string;
}
