// Tabs by the pattern of WAI-ARIA: arrow keys move, the address remembers.

const NAMES = ["market", "platform", "query", "health"] as const;
export type Tab = (typeof NAMES)[number];

export class Tabs {
  #current: Tab = "market";

  constructor(readonly changed: (tab: Tab) => void) {
    for (const name of NAMES) {
      const button = this.#button(name);
      button.addEventListener("click", () => this.select(name, true));
      button.addEventListener("keydown", (event) => this.#key(event));
    }
  }

  get current(): Tab {
    return this.#current;
  }

  /** Selects the tab that an address names; the first one otherwise. */
  open(hash: string): void {
    const name = hash.slice(1).split("?")[0] as Tab;
    this.select(NAMES.includes(name) ? name : "market", false);
  }

  select(tab: Tab, remember: boolean): void {
    this.#current = tab;
    for (const name of NAMES) {
      const selected = name === tab;
      const button = this.#button(name);
      button.setAttribute("aria-selected", String(selected));
      button.tabIndex = selected ? 0 : -1;
      (document.getElementById(name) as HTMLElement).hidden = !selected;
    }
    if (remember) history.replaceState(null, "", `#${tab}`);
    this.changed(tab);
  }

  #button(name: Tab): HTMLButtonElement {
    return document.getElementById(`tab-${name}`) as HTMLButtonElement;
  }

  #key(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = NAMES.indexOf(this.#current);
    const next =
      event.key === "Home" ? 0 : event.key === "End" ? NAMES.length - 1 : step && at + step;
    if (next === undefined) return;
    event.preventDefault();
    const name = NAMES[(next + NAMES.length) % NAMES.length] as Tab;
    this.select(name, true);
    this.#button(name).focus();
  }
}
