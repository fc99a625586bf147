// The board System Health, which the build takes out of compose/observe/grafana/dashboards.

export interface Target {
  expr: string;
  legend: string;
}

export interface Panel {
  title: string;
  kind: string;
  unit: string;
  targets: Target[];
}

export interface BoardRow {
  title: string;
  panels: Panel[];
}

/** One query's answer: a label and its points. */
export interface Series {
  labels: Record<string, string>;
  points: [number, number][];
}

/** Writes a legend such as `p50 {{method}}` with the labels of a series. */
export function legendOf(template: string, labels: Record<string, string>): string {
  return template.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name: string) => labels[name] ?? "").trim();
}

/** One series of Prometheus, as the edge passes it on. */
export interface Ranged {
  metric: Record<string, string>;
  values: [number, string][];
}

/** Reads series of Prometheus; values that are no numbers are left out. */
export function seriesOf(ranged: readonly Ranged[]): Series[] {
  return ranged.map((one) => ({
    labels: one.metric,
    points: one.values
      .map(([time, value]): [number, number] => [time, Number(value)])
      .filter(([, value]) => Number.isFinite(value)),
  }));
}
