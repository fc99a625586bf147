// Shows why a part of the page has no news: loading, stale, or failed with reason and Retry-After.

import { say } from "../dom.ts";
import type { Problem } from "../edge.ts";
import { duration } from "../format.ts";

export function noticeOf(problem: Problem | null, retry = "Asked again in"): string {
  if (!problem) return "";
  const again = problem.retryAfterS == null ? "" : ` ${retry} ${duration(problem.retryAfterS)}.`;
  return `${problem.reason}: ${problem.message}${again}`;
}

/** Shows a problem in its place, or hides the place. */
export function showNotice(place: HTMLElement, problem: Problem | null, retry?: string): void {
  const text = noticeOf(problem, retry);
  say(place, text);
  place.hidden = text === "";
}

/** Marks a part whose values are old. */
export function markStale(part: Element | null, stale: boolean): void {
  part?.toggleAttribute("data-stale", stale);
}
