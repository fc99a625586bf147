// The key figures that stand above every view, and the source of the data.

import { byId, fill, h, say } from "../dom.ts";
import * as format from "../format.ts";
import { Rate } from "../state.ts";
import type { Degradation, Feed, Snapshot } from "../wire.ts";

export interface Figures {
  degradation: Degradation | null;
  feeds: readonly Feed[];
  newest: Snapshot | null;
  openIds: bigint | null;
  freshnessMs: number | null;
  stale: boolean;
}

const trades = new Rate();

const SOURCES: Record<string, string> = {
  SIMULATED: "Simulated data — a seeded synthetic market. No venue printed these trades.",
  RECORDED: "Recorded data — a recording of a venue, played back.",
  LIVE: "",
};

const MEANING: Record<string, string> = {
  Trades: "Acknowledged on the tape by all feeds, over the last 10 seconds",
  Freshness: "From the feed's receipt of a trade to this page: the median of the last 200",
  "Writer lag": "Age of the oldest record that is not in the lake yet",
  "Open gaps": "Trade ids that are known to be missing and are still to be fetched",
};

/** Returns how many trades a second all feeds take; null before it is known. */
export function tradesPerSecond(): number | null {
  return trades.perSecond;
}

/** Says what the rows are. Live data needs no banner; the feeds name their venue. */
export function showSource(source: string | null): void {
  const place = byId("source");
  const text = SOURCES[source ?? ""] ?? "";
  place.hidden = !text;
  place.dataset.source = source ?? "";
  say(place, text);
}

export function showFigures(now: Figures): void {
  const taken = now.feeds.map((feed) => Number(feed.trades_acknowledged));
  if (taken.length) trades.read(taken.reduce((sum, each) => sum + each, 0), Date.now());
  const connected = now.feeds.filter((feed) => feed.connected).length;
  const shown: [string, string][] = [
    ["Trades", trades.perSecond == null ? "–" : `${format.measured(trades.perSecond)}/s`],
    ["Freshness", format.duration(now.freshnessMs == null ? null : now.freshnessMs / 1000)],
    ["Writer lag", format.duration(readingOf(now.degradation, "writer_lag_s"))],
    ["Last commit", format.ago(now.newest?.commit_time, Date.now())],
    ["Rows in the lake", format.count(now.newest?.rows_total)],
    ["Open gaps", now.openIds == null ? "–" : `${format.count(now.openIds)} ${now.openIds === 1n ? "id" : "ids"}`],
    ["Feeds", now.feeds.length ? `${connected}/${now.feeds.length} connected` : "–"],
  ];
  const place = byId("figures");
  place.toggleAttribute("data-stale", now.stale);
  if (place.children.length !== shown.length) {
    fill(
      place,
      ...shown.map(([name]) =>
        h("div", { title: MEANING[name] }, h("dt", {}, name), h("dd", { class: "num" }, "")),
      ),
    );
  }
  shown.forEach(([, value], at) => say(place.children[at]?.lastElementChild as Element, value));
}

/** The highest reading of a signal over the processes. */
function readingOf(now: Degradation | null, signal: string): number | null {
  const readings = (now?.processes ?? [])
    .flatMap((process) => process.pressures)
    .filter((one) => one.signal === signal && one.reading != null)
    .map((one) => one.reading as number);
  return readings.length ? Math.max(...readings) : null;
}
