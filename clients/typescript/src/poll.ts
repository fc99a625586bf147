// Asks again and again, with care: never two questions of a kind at once, none while the page is
// hidden, and as late as a Retry-After says.

import { Problem } from "./edge.ts";

export interface Polled<T> {
  value: T | null;
  /** When the value came, by the browser's clock. */
  atMs: number | null;
  problem: Problem | null;
  /** Whether the value is older than three intervals. */
  stale: boolean;
}

export class Poll<T> {
  #value: T | null = null;
  #atMs: number | null = null;
  #problem: Problem | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking = false;

  constructor(
    readonly ask: () => Promise<T>,
    readonly everyMs: number,
    readonly show: (state: Polled<T>) => void,
  ) {}

  start(): void {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.now();
    });
    void this.now();
  }

  get state(): Polled<T> {
    const stale = this.#atMs != null && Date.now() - this.#atMs > 3 * this.everyMs + 1000;
    return { value: this.#value, atMs: this.#atMs, problem: this.#problem, stale };
  }

  /** Asks at once, unless a question is under way. */
  async now(): Promise<void> {
    if (this.#asking) return;
    clearTimeout(this.#timer);
    let waitMs = this.everyMs;
    if (!document.hidden) {
      this.#asking = true;
      try {
        this.#value = await this.ask();
        this.#atMs = Date.now();
        this.#problem = null;
      } catch (error) {
        if (!(error instanceof Problem)) console.error(error);
        this.#problem =
          error instanceof Problem ? error : new Problem(0, "INTERNAL", String(error), null);
        waitMs = Math.max(waitMs, (this.#problem.retryAfterS ?? 0) * 1000);
      }
      this.#asking = false;
      this.show(this.state);
    }
    this.#timer = setTimeout(() => void this.now(), waitMs);
  }
}
