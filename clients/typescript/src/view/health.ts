// The panels of the board System Health: from Prometheus where this stack has one, else from the
// figures that the edge itself gives.

import rows from "k2:board";

import { legendOf, seriesOf, type Panel, type Ranged } from "../board.ts";
import { byId, fill, h, say } from "../dom.ts";
import { Problem, type Edge } from "../edge.ts";
import * as format from "../format.ts";
import { History, OWN, type Seen } from "../own.ts";
import { current, INKS, sparkline, type Line } from "../sparkline.ts";
import { LEVELS } from "../wire.ts";

const SPAN_S = 900;
const STEP_S = 15;
const EVERY_MS = 10_000;
const LINES_SHOWN = 8;
const PANELS = rows.flatMap((row) => row.panels);

export class Health {
  readonly #history = new History();
  readonly #places = new Map<string, HTMLElement>();
  #prometheus: boolean | null = null;
  #shown = false;
  #atMs = 0;

  constructor(readonly edge: Edge) {
    fill(byId("health-rows"), ...rows.map((row) => this.#row(row.title, row.panels)));
  }

  #row(title: string, panels: readonly Panel[]): HTMLElement {
    const cards = panels.map((panel) => {
      const body = h("div", { class: "panel-body" }, h("p", { class: "empty" }, "Loading"));
      this.#places.set(panel.title, body);
      return h("article", { class: "card panel" }, h("h3", {}, panel.title), body);
    });
    return h("section", {}, h("h2", {}, title), h("div", { class: "panels" }, ...cards));
  }

  /** Takes the edge's own figures, which are drawn where there is no Prometheus. */
  seen(seen: Seen): void {
    this.#history.take(seen);
    if (this.#shown && this.#prometheus === false) this.#drawOwn();
  }

  /** Draws while the tab is shown. */
  async tick(shown: boolean): Promise<void> {
    const entered = shown && !this.#shown;
    this.#shown = shown;
    if (!shown || (!entered && Date.now() - this.#atMs < EVERY_MS)) return;
    this.#atMs = Date.now();
    this.#prometheus = await this.#drawPrometheus();
    if (!this.#prometheus) this.#drawOwn();
  }

  async #drawPrometheus(): Promise<boolean> {
    try {
      const found = await this.edge.get<{ data: { prometheus: boolean } }>("v1/panels");
      if (!found.data.prometheus) return false;
      for (const [number, panel] of PANELS.entries()) {
        this.#draw(panel, await this.#asked(number, panel));
      }
    } catch (error) {
      if (error instanceof Problem) return false;
      throw error;
    }
    say(byId("health-origin"), "From this stack's Prometheus, the last 15 minutes.");
    return true;
  }

  async #asked(number: number, panel: Panel): Promise<Line[]> {
    const answers = await Promise.all(
      panel.targets.map(async (target, at) => {
        const path = `v1/panels/${number}/${at}`;
        const answer = await this.edge.get<{ data: Ranged[] }>(path, { last_s: SPAN_S, step_s: STEP_S });
        return seriesOf(answer.data).map((one) => ({
          name: legendOf(target.legend, one.labels),
          points: one.points,
        }));
      }),
    );
    return answers.flat().filter((line) => line.points.length > 0);
  }

  #drawOwn(): void {
    say(
      byId("health-origin"),
      "This stack runs no Prometheus that the edge can reach: these are the edge's own figures," +
        " seen since this page was opened. The command “k2 up --observe” adds the others.",
    );
    for (const panel of PANELS) {
      if (OWN[panel.title]) this.#draw(panel, this.#history.lines(panel.title));
      else fill(this.#place(panel), h("p", { class: "empty" }, "Needs Prometheus"));
    }
  }

  #place(panel: Panel): HTMLElement {
    return this.#places.get(panel.title) as HTMLElement;
  }

  #draw(panel: Panel, all: readonly Line[]): void {
    const place = this.#place(panel);
    const lines = current(all, 2 * STEP_S);
    if (lines.length === 0) return fill(place, h("p", { class: "empty" }, "No data"));
    if (panel.kind === "stat") return fill(place, h("p", { class: "stat" }, statOf(panel, lines)));
    const ordered = [...lines].sort((left, right) => newest(right) - newest(left));
    const shown = ordered.slice(0, LINES_SHOWN);
    const spoken = shown.map((line) => `${line.name} ${format.inUnit(newest(line), panel.unit)}`);
    fill(
      place,
      sparkline(shown, `${panel.title}: ${spoken.join(", ")}`) as unknown as Node,
      h(
        "ul",
        { class: "keys" },
        ...shown.map((line, at) =>
          h(
            "li",
            { class: `key-${at % INKS}` },
            h("span", {}, line.name || panel.title),
            h("b", { class: "num" }, format.inUnit(newest(line), panel.unit)),
          ),
        ),
        ordered.length > shown.length
          ? h("li", { class: "soft" }, `and ${ordered.length - shown.length} more`)
          : null,
      ),
    );
  }
}

function statOf(panel: Panel, lines: readonly Line[]): string {
  const value = Math.max(...lines.map(newest));
  if (panel.title === "Platform level") return LEVELS[value] ?? format.measured(value);
  return format.inUnit(value, panel.unit);
}

function newest(line: Line): number {
  return line.points.at(-1)?.[1] ?? 0;
}
