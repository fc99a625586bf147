// Joins the parts of the page: what is asked how often, and who shows it.

import { byId, say } from "./dom.ts";
import { Edge, type Parameters } from "./edge.ts";
import { Poll } from "./poll.ts";
import { healing } from "./state.ts";
import { Tabs } from "./tabs.ts";
import { wireTheme } from "./theme.ts";
import { Health } from "./view/health.ts";
import { Market } from "./view/market.ts";
import { noticeOf } from "./view/notice.ts";
import { Query } from "./view/query.ts";
import * as platform from "./view/platform.ts";
import { showFigures, showSource, tradesPerSecond } from "./view/figures.ts";
import type { Degradation, GapRecord, Snapshot, Stats, Status } from "./wire.ts";

/** What wraps every answer about the platform. */
interface Told<T> {
  data: T;
}

function main(): void {
  const edge = new Edge();
  const market = new Market(edge);
  const query = new Query(edge);
  const health = new Health(edge);
  const tabs = new Tabs((tab) => void health.tick(tab === "health"));

  const degradation = new Poll(
    () => ask<Degradation>("v1/degradation"), 2000, (state) => {
      platform.showDegradation(state);
      everything();
    },
  );
  const status = new Poll(() => ask<Status>("v1/status"), 3000, (state) => {
    platform.showStatus(state);
    if (state.value) showSource(state.value.source);
    everything();
  });
  const stats = new Poll(() => ask<Stats>("v1/stats"), 3000, (state) => {
    platform.showFeeds(state);
    named((state.value?.feeds ?? []).flatMap((feed) => feed.symbols.map((one) => one.symbol)));
    everything();
  });
  const snapshots = new Poll(() => ask<Snapshot[]>("v1/snapshots", { limit: 200 }), 4000, (state) => {
    platform.showCommits(state);
    if (state.value) market.snapshots(state.value);
    everything();
  });
  const gaps = new Poll(() => ask<GapRecord[]>("v1/gaps", { limit: 200 }), 5000, (state) => {
    platform.showGaps(state);
    everything();
  });
  let known = "";
  function named(symbols: readonly string[]): void {
    const names = [...new Set(symbols)].sort();
    if (names.length === 0 || names.join() === known) return;
    known = names.join();
    market.symbols(names);
    query.symbols(names);
  }

  async function ask<T>(path: string, parameters: Parameters = {}): Promise<T> {
    return (await edge.get<Told<T>>(path, parameters)).data;
  }

  function everything(): void {
    const polls = [degradation, status, snapshots];
    const problem = polls.every((poll) => poll.state.problem) ? degradation.state.problem : null;
    const outage = byId("outage");
    say(outage, problem?.status === 0 ? noticeOf(problem) : "");
    outage.hidden = outage.textContent === "";
    byId("key-form").hidden = !polls.some((poll) => poll.state.problem?.status === 401);
    showFigures({
      degradation: degradation.state.value,
      feeds: stats.state.value?.feeds ?? [],
      newest: snapshots.state.value?.[0] ?? null,
      openIds: gaps.state.value ? healing(gaps.state.value).open : null,
      freshnessMs: market.freshnessMs,
      stale: degradation.state.stale || status.state.stale,
    });
  }

  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    edge.key = byId<HTMLInputElement>("key").value;
    for (const poll of [degradation, status, stats, snapshots, gaps]) void poll.now();
  });
  wireTheme(byId<HTMLButtonElement>("theme"), () => market.recolour());
  addEventListener("hashchange", () => {
    tabs.open(location.hash);
    query.open(location.hash);
  });
  tabs.open(location.hash);
  query.open(location.hash);
  for (const poll of [degradation, status, stats, snapshots, gaps]) poll.start();
  setInterval(() => {
    health.seen({
      degradation: degradation.state.value,
      status: status.state.value,
      stats: stats.state.value,
      freshnessMs: market.freshnessMs,
      perSecond: tradesPerSecond(),
      atS: Date.now() / 1000,
    });
    void health.tick(tabs.current === "health");
    everything();
  }, 2000);
}

main();
