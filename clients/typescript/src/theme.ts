// Light, dark, or as the system says. The choice is kept.

export type Theme = "system" | "light" | "dark";
const KEPT = "k2-theme";
const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

export function chosenTheme(): Theme {
  const kept = localStorage.getItem(KEPT);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function applyTheme(theme: Theme): void {
  localStorage.setItem(KEPT, theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** Wires the button that steps through the themes, and calls back when colours change. */
export function wireTheme(button: HTMLButtonElement, changed: () => void): void {
  const show = (theme: Theme): void => {
    applyTheme(theme);
    button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[theme];
    button.setAttribute("aria-label", `Theme: ${theme}. Press to change.`);
    changed();
  };
  show(chosenTheme());
  button.addEventListener("click", () => show(NEXT[chosenTheme()]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

/** Resolves a colour of the style sheet, as drawings on a canvas need it. */
export function colour(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}
