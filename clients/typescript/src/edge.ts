// Speaks to the HTTP edge: JSON, problems with their reasons, and streams of events.

import { EventParser, type ServerEvent } from "./sse.ts";
import type { ProblemBody } from "./wire.ts";

export type Parameters = Record<string, string | number | boolean | null | undefined>;

const KEY = "k2-api-key";
// The edge says something every 15 s. A stream that says nothing for longer is dead.
const SILENT_MS = 45_000;

/** A refusal or failure, with what the edge says of it. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    detail: string,
    readonly retryAfterS: number | null,
  ) {
    super(detail);
  }
}

/** Writes a path of the edge with its query; absent parameters are left out. */
export function pathOf(path: string, parameters: Parameters = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value != null && value !== "" && value !== false) query.append(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** Makes the problem that an answer describes. */
export function problemOf(status: number, body: ProblemBody, retryAfter: string | null): Problem {
  const reason = body.reason ?? body.title ?? `HTTP ${status}`;
  const seconds = retryAfter == null ? Number.NaN : Number(retryAfter);
  return new Problem(
    status,
    reason,
    body.detail ?? body.title ?? `The edge answered ${status}.`,
    Number.isFinite(seconds) ? seconds : null,
  );
}

export class Edge {
  /** A key is optional on loopback; one that was entered is kept until the tab is closed. */
  get key(): string | null {
    return sessionStorage.getItem(KEY);
  }

  set key(key: string | null) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  async get<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
    const answer = await this.#fetch(pathOf(path, parameters), "application/json", signal);
    return (await answer.json()) as T;
  }

  /** Fetches an answer as a file of a type. */
  async file(path: string, parameters: Parameters, type: string): Promise<Blob> {
    return (await this.#fetch(pathOf(path, parameters), type)).blob();
  }

  /** Reads a stream of events until the signal or the edge ends it. */
  async follow(
    path: string,
    parameters: Parameters,
    signal: AbortSignal,
    opened: () => void,
    heard: (event: ServerEvent) => void,
  ): Promise<void> {
    const answer = await this.#fetch(pathOf(path, parameters), "text/event-stream", signal);
    opened();
    const parser = new EventParser();
    const decoder = new TextDecoder();
    const reader = answer.body?.getReader();
    let silence: ReturnType<typeof setTimeout> | undefined;
    const read = (): Promise<ReadableStreamReadResult<Uint8Array>> | undefined => {
      clearTimeout(silence);
      silence = setTimeout(() => void reader?.cancel(), SILENT_MS);
      return reader?.read();
    };
    try {
      for (let part = await read(); part && !part.done; part = await read()) {
        for (const event of parser.push(decoder.decode(part.value, { stream: true }))) heard(event);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  async #fetch(path: string, accept: string, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { Accept: accept };
    if (this.key) headers["X-API-Key"] = this.key;
    let answer: Response;
    try {
      answer = await fetch(path, { headers, cache: "no-cache", ...(signal ? { signal } : {}) });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem(0, "UNREACHABLE", "The edge does not answer.", null);
    }
    if (answer.ok) return answer;
    const body = (await answer.json().catch(() => ({}))) as ProblemBody;
    throw problemOf(answer.status, body, answer.headers.get("Retry-After"));
  }
}
