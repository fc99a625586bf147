// The query box: a shape, symbols and a range in, rows out; a link that gives the same rows again.

import { byId, fill, h, say, table, type Child } from "../dom.ts";
import { pathOf, Problem, type Edge, type Parameters } from "../edge.ts";
import * as format from "../format.ts";
import { columnsOf, linkOf, pinned, questionOf, type Question } from "../state.ts";
import type { Answer, Row } from "../wire.ts";
import { SYMBOL_FIRST } from "./market.ts";
import { showNotice } from "./notice.ts";

interface Shape {
  title: string;
  path: (question: Question) => string;
  takes: readonly (keyof Question)[];
}

const RANGED = ["last", "start", "end", "as_of"] as const;
const OPTIONS = [...RANGED, "limit", "order", "every", "fill", "tz", "date"] as const;

/** The shapes that the edge answers, and what each can be asked with. */
const SHAPES: Record<string, Shape> = {
  trades: { title: "Trades", path: () => "v1/trades", takes: [...RANGED, "limit", "order"] },
  bars: {
    title: "Bars",
    path: () => "v1/bars",
    takes: [...RANGED, "limit", "order", "every", "fill", "tz"],
  },
  latest: { title: "Latest of each symbol", path: () => "v1/latest", takes: ["as_of"] },
  summary: {
    title: "Summary of a day",
    path: (asked) => `v1/summary/${encodeURIComponent(asked.symbols)}/${asked.date}`,
    takes: ["date", "tz", "as_of"],
  },
  symbols: { title: "Symbols", path: () => "v1/symbols", takes: ["as_of"] },
};
const NUMERIC = new Set([
  "price", "quantity", "trade_id", "open", "high", "low", "close", "volume", "quote_volume",
  "count", "vwap", "twap", "buy_volume", "first_trade_id", "last_trade_id", "largest_quantity",
]);
const TIMES = /(_time|_start)$/;

export class Query {
  #rows: Row[] = [];
  #asked: Question | null = null;
  #again: Question | null = null;
  #cursor: string | null = null;
  #asking = new AbortController();

  constructor(readonly edge: Edge) {
    fill(
      byId("ask-shape"),
      ...Object.entries(SHAPES).map(([name, shape]) => h("option", { value: name }, shape.title)),
    );
    const form = byId<HTMLFormElement>("ask");
    form.addEventListener("input", () => this.#fields());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.run(this.#read());
    });
    this.#input("date").value = new Date().toISOString().slice(0, 10);
    byId("more").addEventListener("click", () => void this.#more());
    byId("estimate").addEventListener("click", () => void this.#estimate());
    byId("copy").addEventListener("click", () => void this.#copy());
    for (const [id, type, suffix] of DOWNLOADS) {
      byId(id).addEventListener("click", (event) => void this.#download(event, type, suffix));
    }
    this.#fields();
  }

  symbols(names: readonly string[]): void {
    fill(byId("known-symbols"), ...names.map((name) => h("option", { value: name })));
    const symbols = this.#input("symbols");
    if (symbols.value) return;
    symbols.value = names.includes(SYMBOL_FIRST) ? SYMBOL_FIRST : (names[0] ?? "");
  }

  /** Runs the question that the page's address carries, if it does. */
  open(hash: string): boolean {
    const question = questionOf(hash);
    if (!question || !SHAPES[question.shape]) return false;
    for (const [name, value] of Object.entries(question)) {
      const input = this.#input(name as keyof Question);
      input.value = value;
    }
    this.#fields();
    void this.run(question);
    return true;
  }

  async run(question: Question): Promise<void> {
    this.#asking.abort();
    this.#asking = new AbortController();
    this.#asked = question;
    this.#rows = [];
    fill(byId("grid"));
    say(byId("answer-state"), "Asking");
    byId("answer-actions").hidden = true;
    await this.#page(null, this.#asking.signal);
  }

  #input(name: keyof Question): HTMLInputElement {
    return byId<HTMLFormElement>("ask").elements.namedItem(name) as HTMLInputElement;
  }

  #read(): Question {
    const read = Object.fromEntries(new FormData(byId<HTMLFormElement>("ask"))) as unknown;
    const question = read as Question;
    const takes = shapeOf(question).takes;
    for (const name of OPTIONS) {
      if (!takes.includes(name)) question[name] = "";
    }
    if (question.last) question.start = question.end = "";
    question.symbols = question.symbols.replace(/\s+/g, "").toUpperCase();
    return question;
  }

  /** Shows the fields that the shape takes. */
  #fields(): void {
    const shape = SHAPES[this.#input("shape").value];
    const ranged = shape?.takes.includes("last") ?? false;
    for (const label of document.querySelectorAll<HTMLElement>("#ask [data-for]")) {
      const name = label.dataset.for as string;
      if (name === "range") label.hidden = !ranged;
      else if (name === "times") label.hidden = !ranged || this.#input("last").value !== "";
      else label.hidden = !shape?.takes.includes(name as keyof Question);
    }
  }

  /** Shows what a question would cost, without asking for its rows. */
  async #estimate(): Promise<void> {
    const question = this.#read();
    const { signal } = this.#asking;
    try {
      const asked = { ...parametersOf(question), plan_only: true };
      const path = shapeOf(question).path(question);
      const answer = await this.edge.get<Answer<Row>>(path, asked, signal);
      showNotice(byId("ask-notice"), null);
      say(byId("answer-state"), `At most ${estimateOf(answer)}`);
    } catch (error) {
      this.#failed(error, signal);
    }
  }

  async #more(): Promise<void> {
    await this.#page(this.#cursor, this.#asking.signal);
  }

  async #page(cursor: string | null, signal: AbortSignal): Promise<void> {
    const asked = this.#asked;
    if (!asked) return;
    try {
      const answer = await this.edge.get<Answer<Row>>(
        shapeOf(asked).path(asked),
        { ...parametersOf(asked), cursor },
        signal,
      );
      showNotice(byId("ask-notice"), null);
      this.#rows.push(...answer.data);
      this.#cursor = answer.next_cursor;
      this.#show(answer, asked);
    } catch (error) {
      this.#failed(error, signal);
    }
  }

  #failed(error: unknown, signal: AbortSignal): void {
    if (signal.aborted) return;
    const problem =
      error instanceof Problem ? error : new Problem(0, "INTERNAL", String(error), null);
    showNotice(byId("ask-notice"), problem, "Try again in");
    say(byId("answer-state"), "");
  }

  #show(answer: Answer<Row>, asked: Question): void {
    const token = answer.provenance.token;
    const again = token ? pinned(asked, token, answer.provenance.range) : { ...asked };
    if (again.limit) again.limit = String(Math.max(Number(again.limit), this.#rows.length));
    this.#again = again;
    say(byId("answer-state"), `${format.count(this.#rows.length)} rows`);
    this.#facts(answer);
    fill(byId("grid"), gridOf(this.#rows));
    byId("answer-actions").hidden = false;
    byId("more").hidden = !this.#cursor;
    byId<HTMLAnchorElement>("share").href = linkOf(again);
    for (const [id, , suffix] of DOWNLOADS) {
      const link = byId<HTMLAnchorElement>(id);
      link.href = pathOf(shapeOf(again).path(again), { ...parametersOf(again), format: suffix });
      link.download = `${again.symbols || "k2"}-${again.shape}.${suffix}`;
    }
  }

  #facts(answer: Answer<Row>): void {
    const origin = answer.provenance;
    const facts: [string, string][] = [
      ["Estimate", `at most ${estimateOf(answer)}`],
      ["Completeness", format.plain(origin.completeness)],
      ["From the lake", format.count(origin.rows_lake)],
      ["From the tail", format.count(origin.rows_tail)],
      ["Source", format.plain(origin.source)],
      ["Level", format.plain(origin.level)],
      ["Snapshot", origin.snapshot_id ?? "none yet"],
      ["Took", format.duration(answer.timing_ms.total / 1000)],
    ];
    if (Number(origin.gaps_total)) facts.push(["Gaps", format.count(origin.gaps_total)]);
    const token = origin.token;
    fill(
      byId("answer-facts"),
      ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      token ? h("div", { class: "token" }, h("dt", {}, "Read token"), h("dd", {}, token)) : null,
    );
  }

  async #copy(): Promise<void> {
    const address = byId<HTMLAnchorElement>("share").href;
    try {
      await navigator.clipboard.writeText(address);
      say(byId("answer-state"), "Link copied: it gives the same rows.");
    } catch {
      say(byId("answer-state"), "The browser did not copy. Open “Link to these rows” instead.");
    }
  }

  /** Downloads with the key, which a plain link cannot carry. Without a key the link does it. */
  async #download(event: Event, type: string, suffix: string): Promise<void> {
    if (!this.edge.key || !this.#again) return;
    event.preventDefault();
    const asked = this.#again;
    const file = await this.edge.file(shapeOf(asked).path(asked), parametersOf(asked), type);
    const link = h("a", { download: `${asked.symbols || "k2"}-${asked.shape}.${suffix}` });
    link.href = URL.createObjectURL(file);
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

const DOWNLOADS = [
  ["as-csv", "text/csv", "csv"],
  ["as-parquet", "application/vnd.apache.parquet", "parquet"],
] as const;

function shapeOf(question: Question): Shape {
  return SHAPES[question.shape] ?? (SHAPES.trades as Shape);
}

/** The parameters of the edge for a question. */
function parametersOf(question: Question): Parameters {
  const takes = shapeOf(question).takes.filter((name) => name !== "date");
  const asked: Parameters = Object.fromEntries(takes.map((name) => [name, question[name]]));
  return question.shape === "summary" ? asked : { symbol: question.symbols, ...asked };
}

function estimateOf(answer: Answer<Row>): string {
  const { rows, files, chunks, bytes } = answer.estimate;
  return (
    `${format.count(rows)} rows to be read, from ${format.count(files)} files` +
    ` (${format.bytes(bytes)}) and ${format.count(chunks)} chunks of the tail`
  );
}

function gridOf(rows: readonly Row[]): HTMLElement {
  if (rows.length === 0) return h("p", { class: "empty" }, "No rows.");
  const names = columnsOf(rows);
  const columns = names.map((title) => ({ title, numeric: NUMERIC.has(title) }));
  const cells = rows.slice(0, 2000).map((row) => names.map((name) => cellOf(name, row[name])));
  return table("Rows of the answer", columns, cells);
}

function cellOf(name: string, value: unknown): Child {
  if (value == null) return h("span", { class: "soft" }, "null");
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return JSON.stringify(value);
  const text = String(value);
  if (TIMES.test(name)) return text.replace("T", " ").replace("Z", "");
  return text;
}
