import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../src/format.ts";

const plain = (text: string): string => text.replaceAll("\u2009", " ");

test("an exact decimal keeps its digits and is never a float", () => {
  assert.equal(format.price("12345678901234567890.12000000"), "12,345,678,901,234,567,890.12");
  assert.equal(format.price("0.00000001"), "0.00000001");
  assert.equal(format.price("65000.00000000"), "65,000.00");
  assert.equal(format.quantity("1.50000000"), "1.5");
  assert.equal(format.quantity("1000"), "1,000");
  assert.equal(format.price(null), "–");
});

test("a 64-bit count keeps its digits", () => {
  assert.equal(format.count("9007199254740993"), "9,007,199,254,740,993");
  assert.equal(format.count(1234.4), "1,234");
  assert.equal(format.count(undefined), "–");
});

test("a length of time has the unit that fits", () => {
  assert.equal(plain(format.duration(0)), "0 s");
  assert.equal(plain(format.duration(0.0000042)), "4.20 µs");
  assert.equal(plain(format.duration(0.0421)), "42.1 ms");
  assert.equal(plain(format.duration(4.26)), "4.3 s");
  assert.equal(plain(format.duration(119.7)), "2 min 0 s");
  assert.equal(plain(format.duration(7260)), "2 h 1 min");
  assert.equal(plain(format.duration(3 * 86_400 + 3600)), "3 d 1 h");
});

test("bytes and shares", () => {
  assert.equal(plain(format.bytes(1536)), "1.50 KiB");
  assert.equal(plain(format.bytes("12")), "12 B");
  assert.equal(plain(format.percent(0.125)), "12.5 %");
  assert.equal(plain(format.percent(0.55)), "55 %");
  assert.equal(plain(format.percent(0.002)), "0.2 %");
});

test("times are UTC, and one that is missing is a dash", () => {
  assert.equal(format.timeOfDay("2026-01-31T12:34:56.789012Z"), "12:34:56.789");
  assert.equal(format.timeOfDay("2026-01-31T12:34:56Z", 0), "12:34:56");
  assert.equal(format.dateTime("2026-01-31T12:34:56.789Z"), "2026-01-31 12:34:56");
  assert.equal(format.dateTime(null), "–");
  assert.equal(format.ago("2026-01-31T12:00:00Z", Date.parse("2026-01-31T12:00:00.400Z")), "now");
});

test("the name of a signal ends with its unit", () => {
  assert.equal(format.unitOfSignal("writer_lag_s"), "s");
  assert.equal(format.unitOfSignal("rss_bytes"), "bytes");
  assert.equal(format.unitOfSignal("io_pressure"), "percentunit");
  assert.equal(format.unitOfSignal("feed_queue"), "none");
});
