import assert from "node:assert/strict";
import { test } from "node:test";

import board from "k2:board";

import { COST, costOf } from "../src/cost.ts";
import { current, type Line } from "../src/sparkline.ts";
import { History, OWN, type Seen } from "../src/own.ts";

function seen(atS: number, answered: string): Seen {
  return {
    degradation: {
      level: "SOFT", time: "1970-01-01T00:00:09Z", override: null,
      processes: [
        { process: "lake", level: "SOFT", pressures: [
          { signal: "writer_lag_s", reading: 4, pressure: 0.6, injected: true },
        ] },
      ],
      transitions: [{ to_level: "SOFT" }, { to_level: "SOFT" }],
    },
    status: { components: [{ name: "control", state: "SERVING", counters: { answered } }] },
    stats: null,
    freshnessMs: 40,
    atS,
  } as unknown as Seen;
}

test("each panel that has figures of its own is one of the board", () => {
  const titles = board.flatMap((row) => row.panels.map((panel) => panel.title));
  assert.deepEqual(Object.keys(OWN).filter((title) => !titles.includes(title)), []);
});

test("figures are kept as lines, and counters become rates", () => {
  const history = new History();
  history.take(seen(10, "100"));
  history.take(seen(12, "300"));
  const newest = (panel: string): unknown =>
    history.lines(panel).map((line) => [line.name, line.points.at(-1)]);
  assert.deepEqual(newest("Platform level"), [["level", [12, 1]]]);
  assert.deepEqual(newest("Calls"), [["control", [12, 100]]]);
  assert.deepEqual(newest("Consumer lag"), [["lake", [12, 4]]]);
  assert.deepEqual(newest("Evaluated"), [["age", [12, 3]]]);
  assert.deepEqual(newest("Transitions"), [["to SOFT, of the last 20", [12, 2]]]);
  assert.equal(history.lines("Restarts").length, 0);
});

test("a line that ended is not shown", () => {
  const lines: Line[] = [{ name: "a", points: [[1, 1], [60, 2]] }, { name: "b", points: [[1, 9]] }];
  assert.deepEqual(current(lines, 30).map((line) => line.name), ["a"]);
  assert.deepEqual(current([], 30), []);
});

test("a process that started again has no rate", () => {
  const history = new History();
  history.take(seen(10, "300"));
  history.take(seen(12, "5"));
  assert.deepEqual(history.lines("Calls"), []);
});

test("a million messages cost what the cost model says", () => {
  const panel = board.flatMap((row) => row.panels).find((one) => one.title === COST);
  const expr = panel?.targets[0]?.expr ?? "";
  assert.equal(costOf(expr, 138, 7.7)?.toFixed(4), "0.1867");
  assert.equal(costOf(expr, null, 7.7), null);
  assert.equal(costOf(expr, 138, null), null);
  assert.equal(costOf("sum(up)", 138, 7.7), null);
});
