// The market: candles and trades of one symbol, live or as of a snapshot.

import { Candles } from "../chart.ts";
import { byId, fill, h, say, table } from "../dom.ts";
import { Problem, problemOf, type Edge, type Parameters } from "../edge.ts";
import * as format from "../format.ts";
import {
  Freshness, merged, mergedBars, onSlider, positionOf, rowsOf, unseen,
} from "../state.ts";
import type { Answer, Bar, ProblemBody, Snapshot, Trade } from "../wire.ts";
import { showNotice } from "./notice.ts";

export const SYMBOL_FIRST = "BTCUSDT";
const TRADES_SHOWN = 60;
const BARS_SHOWN = 500;
const DRAW_MS = 250;
const POLL_MS = 2000;
const STREAM_AGAIN_MS = 15_000;
const SLIDE_MS = 120;

type Kind = "trades" | "bars";
const NOTICES: Record<Kind, string> = { trades: "trades-notice", bars: "chart-notice" };

type FeedState = "loading" | "live" | "polling" | "as-of" | "failed";

export class Market {
  readonly #chart: Candles;
  #trades: Trade[] = [];
  #bars: Bar[] = [];
  #snapshots: Snapshot[] = [];
  #chosen: string | null = null;
  #watch = new AbortController();
  #drawing: ReturnType<typeof setTimeout> | undefined;
  #sliding: ReturnType<typeof setTimeout> | undefined;
  #fit = true;
  #pointed: Bar | null = null;
  readonly #freshness = new Freshness();

  constructor(readonly edge: Edge) {
    this.#chart = new Candles(byId("chart"), (bar) => {
      this.#pointed = bar;
      this.#legend();
    });
    const restart = (): void => this.#restart();
    byId("symbol").addEventListener("change", restart);
    byId("every").addEventListener("change", restart);
    byId("slider").addEventListener("input", () => this.#slide(this.#slider.valueAsNumber));
    byId("earlier").addEventListener("click", () => this.#slide(this.#position - 1));
    byId("later").addEventListener("click", () => this.#slide(this.#position + 1));
    byId("go-live").addEventListener("click", () => this.#slide(this.#snapshots.length));
    byId("bars-details").addEventListener("toggle", () => this.#barsTable());
    // A browser has six connections to a server: hidden pages follow nothing.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#watch.abort();
      else if (this.#watch.signal.aborted) this.#restart();
    });
  }

  get #slider(): HTMLInputElement {
    return byId<HTMLInputElement>("slider");
  }

  get #position(): number {
    return positionOf(this.#snapshots, this.#chosen);
  }

  get symbol(): string {
    return byId<HTMLSelectElement>("symbol").value;
  }

  get #every(): string {
    return byId<HTMLSelectElement>("every").value;
  }

  /** The median time from the feed to this page; null while no trades come live. */
  get freshnessMs(): number | null {
    return this.#freshness.medianMs;
  }

  recolour(): void {
    this.#chart.recolour();
  }

  /** Takes the known symbols, keeps the choice, and starts at the first one. */
  symbols(names: readonly string[]): void {
    const select = byId<HTMLSelectElement>("symbol");
    const before = [...select.options].map((option) => option.value);
    if (before.join() === names.join()) return;
    const chosen = select.value;
    fill(select, ...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) {
      select.value = chosen;
    } else if (names.length) {
      if (names.includes(SYMBOL_FIRST)) select.value = SYMBOL_FIRST;
      this.#restart();
    }
  }

  /** Takes the newest snapshots; the chosen one stays, although newer ones push it off the list. */
  snapshots(listed: readonly Snapshot[]): void {
    const chosen = this.#snapshots[this.#position];
    this.#snapshots = onSlider(chosen ? [chosen, ...listed] : listed);
    this.#showMoment();
  }

  #slide(position: number): void {
    const bounded = Math.min(Math.max(position, 0), this.#snapshots.length);
    this.#choose(this.#snapshots[bounded]?.snapshot_id ?? null);
  }

  #choose(snapshotId: string | null): void {
    if (snapshotId === this.#chosen) return;
    this.#chosen = snapshotId;
    this.#showMoment();
    clearTimeout(this.#sliding);
    this.#sliding = setTimeout(() => this.#restart(), SLIDE_MS);
  }

  #showMoment(): void {
    const snapshot = this.#snapshots[this.#position];
    const slider = this.#slider;
    slider.disabled = this.#snapshots.length === 0;
    slider.max = String(this.#snapshots.length);
    slider.value = String(this.#position);
    const moment = snapshot
      ? `${format.dateTime(snapshot.commit_time)} · ${format.count(snapshot.rows_total)} rows`
      : "Live";
    say(byId("moment"), moment);
    slider.setAttribute("aria-valuetext", moment);
    byId("time-travel").toggleAttribute("data-past", Boolean(snapshot));
    byId<HTMLButtonElement>("go-live").disabled = !snapshot;
    byId<HTMLButtonElement>("earlier").disabled = this.#position === 0;
    byId<HTMLButtonElement>("later").disabled = !snapshot;
  }

  #restart(): void {
    this.#watch.abort();
    this.#watch = new AbortController();
    this.#trades = [];
    this.#bars = [];
    this.#fit = true;
    this.#pointed = null;
    this.#freshness.forget();
    this.#state("loading", "Loading");
    if (!this.symbol) return;
    const snapshot = this.#snapshots[this.#position];
    const signal = this.#watch.signal;
    if (snapshot) void this.#asOf(snapshot, signal);
    else {
      void this.#keep("trades", signal, (data) => {
        const trades = rowsOf<Trade>(data);
        this.#freshness.take(unseen(this.#trades, trades), Date.now());
        this.#come(trades);
      });
      void this.#keep("bars", signal, (data) => this.#comeBars(rowsOf<Bar>(data)));
    }
  }

  /** Shows what a snapshot held: trades and bars up to its commit. */
  async #asOf(snapshot: Snapshot, signal: AbortSignal): Promise<void> {
    const as_of = snapshot.snapshot_id;
    const said = `As of snapshot ${as_of}`;
    const trades = async (): Promise<void> => {
      this.#come((await this.#ask<Trade>("trades", { as_of, limit: TRADES_SHOWN }, signal)).data);
      this.#went("trades", "as-of", said);
    };
    const bars = async (): Promise<void> => {
      const range = this.#window(snapshot.commit_time);
      this.#comeBars((await this.#ask<Bar>("bars", { as_of, ...range }, signal)).data);
      this.#went("bars", "as-of", said);
    };
    const kept = (kind: Kind) => (error: unknown) => {
      if (!signal.aborted) this.#failed(error, kind);
    };
    await Promise.all([trades().catch(kept("trades")), bars().catch(kept("bars"))]);
  }

  /** The range of the newest bars before a time: nothing else bounds a bar's price. */
  #window(end: string | null): Parameters {
    const endMs = (format.milliseconds(end) ?? Date.now()) + 1000;
    return {
      start: new Date(endMs - BARS_SHOWN * secondsOf(this.#every) * 1000).toISOString(),
      end: new Date(endMs).toISOString(),
    };
  }

  #ask<R>(kind: Kind, more: Parameters, signal: AbortSignal): Promise<Answer<R>> {
    const every = kind === "bars" ? { every: this.#every, limit: BARS_SHOWN } : {};
    const asked = { symbol: this.symbol, order: "desc", ...every, ...more };
    return this.edge.get<Answer<R>>(`v1/${kind}`, asked, signal);
  }

  /** Follows a stream as long as it is wanted, and asks instead while there is none. */
  async #keep(
    kind: Kind,
    signal: AbortSignal,
    heard: (data: string) => void,
  ): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#catchUp(kind, signal);
        const asked = { symbol: this.symbol, ...(kind === "bars" ? { every: this.#every } : {}) };
        const opened = (): void => this.#went(kind, "live", "Live");
        await this.edge.follow(`v1/${kind}/stream`, asked, signal, opened, (event) => {
          if (event.event === "problem") {
            const said = JSON.parse(event.data) as ProblemBody;
            return this.#failed(problemOf(0, said, null), kind);
          }
          opened();
          heard(event.data);
        });
        await pause(1000);
      } catch (error) {
        if (signal.aborted) return;
        await this.#poll(kind, signal, error);
      }
    }
  }

  async #catchUp(kind: Kind, signal: AbortSignal): Promise<void> {
    if (kind === "trades") {
      this.#come((await this.#ask<Trade>(kind, { limit: TRADES_SHOWN }, signal)).data);
    } else {
      const now = this.#window(new Date().toISOString());
      this.#comeBars((await this.#ask<Bar>(kind, { start: now.start }, signal)).data);
    }
  }

  async #poll(kind: Kind, signal: AbortSignal, why: unknown): Promise<void> {
    const again = Date.now() + STREAM_AGAIN_MS;
    let waitMs = why instanceof Problem && why.retryAfterS ? why.retryAfterS * 1000 : 0;
    while (!signal.aborted && Date.now() < again) {
      await pause(waitMs);
      waitMs = POLL_MS;
      if (signal.aborted || document.hidden) continue;
      try {
        await this.#catchUp(kind, signal);
        this.#went(kind, "polling", "Live, by polling");
      } catch (error) {
        if (signal.aborted) return;
        this.#failed(error, kind);
        if (error instanceof Problem && error.retryAfterS) waitMs = error.retryAfterS * 1000;
      }
    }
  }

  #went(kind: Kind, state: FeedState, text: string): void {
    if (kind === "trades") this.#state(state, text);
    showNotice(byId(NOTICES[kind]), null);
  }

  #failed(error: unknown, kind: Kind): void {
    const problem =
      error instanceof Problem ? error : new Problem(0, "INTERNAL", String(error), null);
    if (kind === "trades") this.#state("failed", "No answer");
    showNotice(byId(NOTICES[kind]), problem);
  }

  #state(state: FeedState, text: string): void {
    const shown = byId("feed-state");
    shown.dataset.state = state;
    say(shown, text);
  }

  #come(trades: readonly Trade[]): void {
    this.#trades = merged(this.#trades, trades, TRADES_SHOWN);
    this.#soon();
  }

  #comeBars(bars: readonly Bar[]): void {
    this.#bars = mergedBars(this.#bars, bars, BARS_SHOWN);
    this.#soon();
  }

  #soon(): void {
    this.#drawing ??= setTimeout(() => {
      this.#drawing = undefined;
      this.#draw();
    }, DRAW_MS);
  }

  #draw(): void {
    this.#chart.show(this.#bars, this.#fit);
    if (this.#bars.length) this.#fit = false;
    this.#legend();
    this.#barsTable();
    const rows = this.#trades.map((trade) => [
      format.timeOfDay(trade.event_time),
      h("span", { class: trade.side === "BUY" ? "buy" : "sell" }, format.price(trade.price)),
      format.quantity(trade.quantity),
      trade.side === "BUY" ? "buy" : "sell",
      trade.trade_id,
    ]);
    const columns = [
      { title: "Time" },
      { title: "Price", numeric: true },
      { title: "Quantity", numeric: true },
      { title: "Side" },
      { title: "Id", numeric: true },
    ];
    const shown = table(`Trades of ${this.symbol}, newest first`, columns, rows);
    fill(byId("trades"), rows.length ? shown : h("p", { class: "empty" }, "No trades yet."));
    const past = this.#snapshots[this.#position];
    const when = past ? `as of ${format.timeOfDay(past.commit_time, 0)}` : "newest first";
    say(byId("trades-sub"), rows.length ? `${this.symbol}, ${when}` : "");
  }

  #legend(): void {
    const bar = this.#pointed ?? this.#bars.at(-1);
    say(byId("chart-title"), `${this.symbol} · ${this.#every}`);
    if (!bar) return fill(byId("legend"));
    const parts: [string, string][] = [
      ["O", format.price(bar.open)],
      ["H", format.price(bar.high)],
      ["L", format.price(bar.low)],
      ["C", format.price(bar.close)],
      ["V", format.quantity(bar.volume)],
      ["n", format.count(bar.count)],
    ];
    fill(
      byId("legend"),
      h("span", {}, format.timeOfDay(bar.bar_start, 0)),
      ...parts.map(([name, value]) => h("span", {}, h("i", {}, name), value)),
      h("span", { class: "soft" }, bar.final ? "final" : "not final"),
    );
    const spoken = `${this.symbol}, bars of ${this.#every}: the newest closes at ${bar.close ?? "no price"}`;
    byId("chart").setAttribute("aria-label", `${spoken}. A table of the bars follows.`);
  }

  #barsTable(): void {
    if (!byId<HTMLDetailsElement>("bars-details").open) return;
    const rows = this.#bars.slice(-50).reverse().map((bar) => [
      format.dateTime(bar.bar_start),
      format.price(bar.open),
      format.price(bar.high),
      format.price(bar.low),
      format.price(bar.close),
      format.quantity(bar.volume),
      format.count(bar.count),
      bar.final ? "yes" : "no",
    ]);
    const numeric = ["Open", "High", "Low", "Close", "Volume", "Trades"];
    const columns = [
      { title: "Start" },
      ...numeric.map((title) => ({ title, numeric: true })),
      { title: "Final" },
    ];
    fill(byId("bars-table"), table(`Bars of ${this.symbol}, newest first`, columns, rows));
  }
}

/** The length of a bar in seconds. */
export function secondsOf(every: string): number {
  const match = /^(\d+)(ms|s|m|h|d)$/.exec(every);
  const unit = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 }[match?.[2] ?? "m"] ?? 60;
  return Number(match?.[1] ?? 1) * unit;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
