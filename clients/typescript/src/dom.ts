// Builds elements. Text is always text: no markup is ever parsed, so no value from the wire can
// become a script.

export type Child = Node | string | number | null | undefined | false;
export type Attributes = Record<string, string | number | boolean | null | undefined>;

/** Makes an element with attributes and children; `false` and null attributes are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...kept(children));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element of a drawing. */
export function svg(tag: string, attributes: Attributes, ...children: Node[]): SVGElement {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null && value !== false) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** Replaces what an element holds. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...kept(children));
}

/** Sets a text, and touches the document only where it differs. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Returns the element of the page with that id, which is in index.html. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found as T;
}

export interface Column {
  title: string;
  numeric?: boolean;
}

/** Makes a table with a caption for those who do not see the heading above it. */
export function table(
  caption: string,
  columns: readonly Column[],
  rows: readonly (readonly Child[])[],
): HTMLTableElement {
  const head = columns.map((column) =>
    h("th", { scope: "col", class: column.numeric ? "num" : null }, column.title),
  );
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      ...row.map((cell, at) => h("td", { class: columns[at]?.numeric ? "num" : null }, cell)),
    ),
  );
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, ...head)),
    h("tbody", {}, ...body),
  );
}

function kept(children: Child[]): (Node | string)[] {
  return children.flatMap((child) => {
    if (child == null || child === false) return [];
    return typeof child === "number" ? [String(child)] : [child];
  });
}
