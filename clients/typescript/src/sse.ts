// Parses server-sent events from chunks of text. The page reads streams by `fetch`, which unlike
// EventSource carries a key and shows why a stream was refused.

export interface ServerEvent {
  event: string;
  data: string;
  id: string;
  retryMs: number | null;
}

export class EventParser {
  #rest = "";
  #data: string[] = [];
  #event = "";
  #id = "";
  #retryMs: number | null = null;

  /** Takes a chunk and returns the events that it completes. */
  push(chunk: string): ServerEvent[] {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => this.#line(line) ?? []);
  }

  #line(line: string): ServerEvent | null {
    if (line === "") return this.#dispatched();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id") this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.#retryMs = Number(value);
    return null;
  }

  #dispatched(): ServerEvent | null {
    const data = this.#data;
    const event = this.#event || "message";
    this.#data = [];
    this.#event = "";
    if (data.length === 0) return null;
    return { event, data: data.join("\n"), id: this.#id, retryMs: this.#retryMs };
  }
}
