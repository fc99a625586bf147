// Draws candles and volume. Floating point serves the drawing alone; figures beside it are exact.

import {
  CandlestickSeries,
  ColorType,
  createChart,
  CrosshairMode,
  HistogramSeries,
  type CandlestickData,
  type HistogramData,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
  type WhitespaceData,
} from "lightweight-charts";

import { milliseconds } from "./format.ts";
import { colour } from "./theme.ts";
import type { Bar } from "./wire.ts";

type Candle = CandlestickData<UTCTimestamp> | WhitespaceData<UTCTimestamp>;
type Volume = HistogramData<UTCTimestamp> | WhitespaceData<UTCTimestamp>;

export class Candles {
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #volume: ISeriesApi<"Histogram">;
  #bars: readonly Bar[] = [];
  #byTime = new Map<number, Bar>();

  constructor(place: HTMLElement, pointed: (bar: Bar | null) => void) {
    this.#chart = createChart(place, {
      autoSize: true,
      // The page credits the library below the chart; its logo needs a style inside the page.
      layout: { attributionLogo: false },
      crosshair: { mode: CrosshairMode.Magnet },
      timeScale: { timeVisible: true, secondsVisible: true, borderVisible: false },
      rightPriceScale: { borderVisible: false },
    });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#candles.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.24 } });
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.#chart.subscribeCrosshairMove((moved) => {
      pointed(typeof moved.time === "number" ? (this.#byTime.get(moved.time) ?? null) : null);
    });
    this.recolour();
  }

  /** Takes the colours of the theme. */
  recolour(): void {
    const [up, down, ink, line] = [
      colour("--up"), colour("--down"), colour("--ink-2"), colour("--line"),
    ];
    this.#chart.applyOptions({
      layout: {
        background: { type: ColorType.Solid, color: "transparent" },
        textColor: ink,
        fontFamily: getComputedStyle(document.body).fontFamily,
        fontSize: 11,
      },
      grid: { vertLines: { visible: false }, horzLines: { color: line } },
    });
    this.#candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#draw();
  }

  /** Shows these bars; with `fit` the whole of them. */
  show(bars: readonly Bar[], fit: boolean): void {
    const before = this.#bars;
    this.#bars = bars;
    const same = before.findIndex((bar, at) => bar !== bars[at]);
    const changed = same < 0 ? before.length : same;
    if (before.length > 0 && changed >= before.length - 1 && !fit) this.#update(changed);
    else this.#draw();
    if (fit && bars.length) {
      const wide = Math.min(90, Math.max(40, bars.length));
      const [from, to] = [bars.length - wide - 0.5, bars.length + 2];
      this.#chart.timeScale().setVisibleLogicalRange({ from, to });
    }
  }

  /** Draws the bars from one on, where those before have not changed. */
  #update(from: number): void {
    const color = colour("--volume");
    for (const bar of this.#bars.slice(from)) {
      const time = timeOf(bar);
      this.#byTime.set(time, bar);
      this.#candles.update(candleOf(bar, time));
      this.#volume.update({ time, value: Number(bar.volume), color });
    }
  }

  #draw(): void {
    const tint = colour("--volume");
    const candles: Candle[] = [];
    const volumes: Volume[] = [];
    this.#byTime = new Map();
    for (const bar of this.#bars) {
      const time = timeOf(bar);
      if (this.#byTime.has(time)) continue;
      this.#byTime.set(time, bar);
      candles.push(candleOf(bar, time));
      volumes.push({ time, value: Number(bar.volume), color: tint });
    }
    const digits = digitsOf(this.#bars.at(-1)?.close);
    this.#candles.applyOptions({
      priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits },
    });
    this.#candles.setData(candles);
    this.#volume.setData(volumes);
  }
}

function timeOf(bar: Bar): UTCTimestamp {
  return Math.floor((milliseconds(bar.bar_start) ?? 0) / 1000) as UTCTimestamp;
}

function candleOf(bar: Bar, time: UTCTimestamp): Candle {
  if (bar.open == null || bar.close == null) return { time };
  return {
    time,
    open: Number(bar.open),
    high: Number(bar.high),
    low: Number(bar.low),
    close: Number(bar.close),
  };
}

/** The digits after the point that a price needs, from 2 to 8. */
function digitsOf(close: string | null | undefined): number {
  const fraction = (close ?? "").split(".")[1]?.replace(/0+$/, "") ?? "";
  return Math.min(8, Math.max(2, fraction.length));
}
