import assert from "node:assert/strict";
import { test } from "node:test";

import { legendOf, seriesOf } from "../src/board.ts";
import { pathOf, problemOf } from "../src/edge.ts";
import { EventParser } from "../src/sse.ts";
import {
  ASKED_FIRST, columnsOf, Freshness, healing, linkOf, merged, mergedBars, onSlider, pinned, positionOf,
  questionOf, Rate, rowsOf, unseen,
} from "../src/state.ts";
import type { Bar, GapRecord, Snapshot, Trade } from "../src/wire.ts";

function trade(id: string, time: string): Trade {
  const rest = { exchange: "BINANCE", symbol: "BTCUSDT", price: "1", quantity: "1" };
  return { ...rest, trade_id: id, event_time: time, side: "BUY" } as Trade;
}

test("trades are shown once, newest first, ties by id as numbers", () => {
  const shown = merged([trade("9", "T1"), trade("10", "T1")], [trade("10", "T1"), trade("8", "T2")], 3);
  assert.deepEqual(shown.map((one) => one.trade_id), ["8", "10", "9"]);
  assert.equal(merged(shown, [trade("11", "T3")], 2).length, 2);
});

test("what begins a stream has been seen", () => {
  const shown = [trade("2", "T2"), trade("1", "T1")];
  assert.deepEqual(unseen(shown, [...shown, trade("3", "T3")]).map((one) => one.trade_id), ["3"]);
  assert.deepEqual(unseen([], shown), []);
});

test("a later state of a bar replaces it", () => {
  const bar = (start: string, close: string): Bar => ({ bar_start: start, close }) as Bar;
  const bars = mergedBars([bar("T1", "1"), bar("T2", "2")], [bar("T2", "3"), bar("T3", "4")], 2);
  assert.deepEqual(bars.map((one) => one.close), ["3", "4"]);
});

test("an event holds a row, rows, or an answer", () => {
  assert.deepEqual(rowsOf('{"a":1}'), [{ a: 1 }]);
  assert.deepEqual(rowsOf('[{"a":1}]'), [{ a: 1 }]);
  assert.deepEqual(rowsOf('{"data":[{"a":1}]}'), [{ a: 1 }]);
  assert.deepEqual(rowsOf("3"), []);
});

test("events are parsed whatever the chunks", () => {
  const text = ': ping\n\nevent: trade\nid: 7\ndata: {"a":\ndata: 1}\n\r\ndata:x\r\n\r\nretry: 500\n\ndata: y\n\n';
  for (const size of [1, 2, 3, 7, text.length]) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(events.map((one) => [one.event, one.data, one.id]), [
      ["trade", '{"a":\n1}', "7"], ["message", "x", "7"], ["message", "y", "7"],
    ]);
    assert.equal(events.at(-1)?.retryMs, 500);
  }
});

test("a counter has a rate from its second reading, and starts again when it falls", () => {
  const rate = new Rate(10_000);
  rate.read(100, 0);
  assert.equal(rate.perSecond, null);
  rate.read(300, 2000);
  assert.equal(rate.perSecond, 100);
  rate.read(5, 3000);
  assert.equal(rate.perSecond, null);
  rate.read(15, 4000);
  assert.equal(rate.perSecond, 10);
});

test("the slider runs from the oldest snapshot to live", () => {
  const of = (id: string, time: string): Snapshot =>
    ({ snapshot_id: id, commit_time: `2026-01-01T00:00:0${time}Z` }) as Snapshot;
  const shown = onSlider([of("2", "2"), of("3", "3"), of("1", "1"), of("2", "2")]);
  assert.deepEqual(shown.map((one) => one.snapshot_id), ["1", "2", "3"]);
  assert.equal(positionOf(shown, "2"), 1);
  assert.equal(positionOf(shown, null), 3);
  assert.equal(positionOf(shown, "gone"), 3);
});

test("gaps are summed by trade id", () => {
  const gap = (state: string, first: string, last: string): GapRecord =>
    ({
      state, first_trade_id: first, last_trade_id: last,
      detect_time: "2026-01-01T00:00:00Z", fill_time: "2026-01-01T00:00:05Z",
    }) as GapRecord;
  const sums = healing([gap("OPEN", "1", "1"), gap("FILLED", "9007199254740993", "9007199254740995")]);
  assert.deepEqual(sums, { open: 1n, filled: 3n, unfillable: 0n, slowestS: 5 });
});

test("a link carries the question with the read token", () => {
  const asked = { ...ASKED_FIRST, symbols: "BTCUSDT" };
  const exact = pinned(asked, "k2t1.abc-_", { start_time: "T0", end_time: "T1" });
  assert.equal(exact.last, "");
  assert.deepEqual(questionOf(linkOf(exact)), exact);
  assert.equal(questionOf("#market"), null);
});

test("columns that are read first lead", () => {
  assert.deepEqual(columnsOf([{ a: 1, price: 2 }, { b: 3, event_time: 4 }]), [
    "event_time", "price", "a", "b",
  ]);
});

test("a problem has its reason and when to try again", () => {
  const problem = problemOf(429, { reason: "SHED", detail: "Later." }, "3");
  assert.deepEqual([problem.reason, problem.message, problem.retryAfterS], ["SHED", "Later.", 3]);
  assert.equal(problemOf(502, {}, null).reason, "HTTP 502");
});

test("absent parameters are left out of a path", () => {
  assert.equal(pathOf("v1/trades", { symbol: "A B", as_of: "", limit: 5 }), "v1/trades?symbol=A+B&limit=5");
  assert.equal(pathOf("v1/stats"), "v1/stats");
});

test("series of Prometheus have names and numbers", () => {
  assert.equal(legendOf("p50 {{method}} {{ none }}", { method: "Get" }), "p50 Get");
  const series = seriesOf([{ metric: { a: "b" }, values: [[1, "2"], [2, "NaN"]] }]);
  assert.deepEqual(series, [{ labels: { a: "b" }, points: [[1, 2]] }]);
});

test("freshness is the median of what came live", () => {
  const freshness = new Freshness();
  assert.equal(freshness.medianMs, null);
  const of = (ms: number): Trade => ({ ...trade("1", "T"), receive_time: new Date(ms).toISOString() });
  freshness.take([of(900), of(990), of(950), of(2000)], 1000);
  assert.equal(freshness.medianMs, 50);
});
