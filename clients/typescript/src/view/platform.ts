// The platform: its level and what presses it, feeds, processes, commits and gaps.

import { byId, fill, h, say, table, type Child } from "../dom.ts";
import * as format from "../format.ts";
import type { Polled } from "../poll.ts";
import { healing, missedIds, secondsBetween } from "../state.ts";
import {
  LEVELS,
  type Degradation,
  type GapRecord,
  type Level,
  type Pressure,
  type ProcessLevel,
  type Snapshot,
  type Stats,
  type Status,
  type Transition,
} from "../wire.ts";
import { markStale, showNotice } from "./notice.ts";

const MEANING: Record<Level, string> = {
  NORMAL: "Everything runs",
  SOFT: "Enrichment and maintenance wait",
  GRACEFUL: "Low tiers paused, heavy scans refused",
  AGGRESSIVE: "Critical symbols and point queries only",
  CIRCUIT_BREAK: "Nothing is taken, health still answers",
};
const PRESSURES_SHOWN = 4;
// Signals that every process has.
const SHARED = /^(cpu_|io_|memory_|disk_|loop_)/;

/** Shows the level in the header, for every view. */
export function showLevelChip(level: string | null): void {
  const chip = byId("level-chip");
  chip.dataset.level = level ?? "";
  say(chip, level ?? "Level not known");
}

export function showDegradation(state: Polled<Degradation>): void {
  showNotice(byId("level-notice"), state.problem);
  markStale(byId("ladder").closest(".card"), state.stale);
  const now = state.value;
  showLevelChip(state.stale || !now ? null : now.level);
  if (!now) return;
  say(byId("level-summary"), summaryOf(now));
  const rungs = LEVELS.map((level, at) =>
    h(
      "li",
      { "data-level": level, "aria-current": level === now.level ? "true" : null },
      h("b", {}, format.plain(level)),
      h("small", {}, MEANING[level]),
      h("span", { class: "unseen" }, `level ${at} of 4`),
    ),
  );
  fill(byId("ladder"), ...rungs);
  fill(byId("pressures"), ...now.processes.map(processOf));
  if (now.transitions) showTransitions(now.transitions);
}

function summaryOf(now: Degradation): string {
  const marks = [now.summary];
  if (now.override) {
    const until = format.timeOfDay(now.override.expire_time, 0);
    marks.push(`Override to ${now.override.level} until ${until}: ${now.override.reason}`);
  }
  if (now.injected) marks.push("Pressure is injected");
  if (now.shadow) marks.push("Levels are published and not obeyed");
  return marks.join(" · ");
}

function processOf(process: ProcessLevel): HTMLElement {
  const shown = [...process.pressures].sort(pressing).slice(0, PRESSURES_SHOWN);
  return h(
    "section",
    { class: "process" },
    h(
      "h3",
      {},
      process.process,
      " ",
      h("span", { class: "level small", "data-level": process.level }, process.level),
      process.state === "SERVING" ? null : h("span", { class: "state" }, process.state),
    ),
    ...shown.map(barOf),
  );
}

/** The highest pressure first; among equals what is the process's own. */
function pressing(left: Pressure, right: Pressure): number {
  const shared = (one: Pressure): number => (SHARED.test(one.signal) ? 1 : 0);
  return right.pressure - left.pressure || shared(left) - shared(right);
}

function barOf(one: Pressure): HTMLElement {
  const reading = format.inUnit(one.reading, format.unitOfSignal(one.signal));
  const meter = h("span", {
    class: "meter",
    role: "meter",
    "aria-label": `Pressure of ${one.signal}`,
    "aria-valuemin": 0,
    "aria-valuemax": 1,
    "aria-valuenow": one.pressure.toFixed(2),
    "aria-valuetext": `${one.pressure.toFixed(2)}, reading ${reading}`,
  });
  meter.style.setProperty("--share", String(Math.min(1, one.pressure)));
  return h(
    "div",
    { class: "pressure" },
    h("span", {}, one.signal.replace(/_(s|bytes)$/, "").replace(/_/g, " ")),
    meter,
    h("span", { class: "num" }, one.pressure.toFixed(2)),
    h("span", { class: "num soft" }, one.injected ? "injected" : reading),
  );
}

function showTransitions(transitions: readonly Transition[]): void {
  const rows = transitions.slice(0, 30).map((one): Child[] => [
    format.dateTime(one.time),
    h("span", { class: "level small", "data-level": one.from_level }, one.from_level),
    h("span", { class: "level small", "data-level": one.to_level }, one.to_level),
    format.plain(one.cause),
    [one.process, one.signal].filter(Boolean).join(" ") || one.reason,
    one.signal ? one.pressure.toFixed(2) : "",
    one.injected ? "injected" : "",
  ]);
  const columns = ["Time", "From", "To", "Cause", "By"].map((title) => ({ title }));
  const more = [...columns, { title: "Pressure", numeric: true }, { title: "" }];
  const none = h("p", { class: "empty" }, "The level has not changed.");
  fill(byId("transitions"), rows.length ? table("Changes of the level", more, rows) : none);
}

export function showStatus(state: Polled<Status>): void {
  showNotice(byId("status-notice"), state.problem);
  markStale(byId("processes").closest(".card"), state.stale);
  const now = state.value;
  if (!now) return;
  say(byId("version"), `K2 ${now.version}`);
  say(byId("processes-sub"), format.plain(now.state));
  const rows = now.components.map((one): Child[] => [
    one.name,
    h("span", { class: "state", "data-state": one.state }, one.state),
    one.level ?? "",
    Object.entries(one.addresses).map(([name, address]) => `${name} ${address}`).join("  "),
  ]);
  const columns = ["Process", "State", "Level", "Addresses"].map((title) => ({ title }));
  fill(byId("processes"), table("Processes", columns, rows));
}

export function showFeeds(state: Polled<Stats>): void {
  showNotice(byId("feeds-notice"), state.problem);
  markStale(byId("feeds").closest(".card"), state.stale);
  if (!state.value) return;
  const feeds = state.value.feeds;
  const connected = feeds.filter((feed) => feed.connected).length;
  say(byId("feeds-sub"), `${connected} of ${feeds.length} connected`);
  const rows = feeds.flatMap((feed) =>
    feed.symbols.map((one): Child[] => [
      feed.name,
      h(
        "span",
        { class: "state", "data-state": feed.connected ? "SERVING" : "LOST" },
        feed.connected ? format.plain(feed.source) : "Not connected",
      ),
      `${feed.exchange} ${one.symbol}`,
      one.acknowledged_trade_id ?? "–",
      format.count(one.gaps),
      format.count(one.ids_missing),
      format.count(one.duplicates),
    ]),
  );
  const columns = [
    ...["Feed", "Source", "Symbol"].map((title) => ({ title })),
    ...["Last id", "Gaps", "Missing", "Duplicates"].map((title) => ({ title, numeric: true })),
  ];
  fill(byId("feeds"), table("Feeds and their symbols", columns, rows));
}

export function showCommits(state: Polled<Snapshot[]>): void {
  showNotice(byId("commits-notice"), state.problem);
  markStale(byId("commits").closest(".card"), state.stale);
  if (!state.value) return;
  const newest = state.value[0];
  say(
    byId("commits-sub"),
    newest
      ? `${format.count(newest.rows_total)} rows in ${format.count(newest.files_total)} files, ${format.bytes(newest.bytes_total)}`
      : "No commit yet",
  );
  const rows = state.value.slice(0, 50).map((one): Child[] => [
    format.dateTime(one.commit_time),
    one.operation,
    `+${format.count(one.rows_added)}`,
    format.count(one.rows_total),
    one.snapshot_id,
  ]);
  const columns = [
    { title: "Committed" },
    { title: "What" },
    ...["Added", "Rows", "Snapshot"].map((title) => ({ title, numeric: true })),
  ];
  fill(byId("commits"), table("Commits, newest first", columns, rows));
}

export function showGaps(state: Polled<GapRecord[]>): void {
  showNotice(byId("gaps-notice"), state.problem);
  markStale(byId("gaps").closest(".card"), state.stale);
  if (!state.value) return;
  const sums = healing(state.value);
  const parts = [`${format.count(sums.open)} ids open`, `${format.count(sums.filled)} healed`];
  if (sums.unfillable) parts.push(`${format.count(sums.unfillable)} cannot be healed`);
  if (sums.slowestS != null) parts.push(`slowest in ${format.duration(sums.slowestS)}`);
  say(byId("gaps-sub"), state.value.length ? parts.join(" · ") : "None");
  const rows = [...state.value].sort(openFirst).slice(0, 100).map((gap): Child[] => [
    h("span", { class: "state", "data-state": gap.state }, format.plain(gap.state)),
    gap.symbol,
    `${gap.first_trade_id} … ${gap.last_trade_id}`,
    format.count(missedIds(gap)),
    format.plain(gap.cause),
    format.dateTime(gap.detect_time),
    gap.fill_time
      ? `after ${format.duration(secondsBetween(gap.detect_time, gap.fill_time))}`
      : gap.reason,
  ]);
  const columns = [
    { title: "State" },
    { title: "Symbol" },
    { title: "Trade ids" },
    { title: "Count", numeric: true },
    ...["Cause", "Found", "Healed"].map((title) => ({ title })),
  ];
  const none = h("p", { class: "empty" }, "No trade id is missing.");
  fill(byId("gaps"), rows.length ? table("Gaps, open ones first", columns, rows) : none);
}

function openFirst(left: GapRecord, right: GapRecord): number {
  const [one, other] = [left.state === "OPEN", right.state === "OPEN"];
  if (one !== other) return one ? -1 : 1;
  return (left.detect_time ?? "") < (right.detect_time ?? "") ? 1 : -1;
}
