// What a million messages cost at this rate, by the prices in the query of the board's panel.

export const COST = "Cost of a million messages";

const NUMBER = "(\\d+(?:\\.\\d+)?)";
const FORM = new RegExp(
  `^\\(${NUMBER} \\+ .+ \\* \\(${NUMBER} \\+ ${NUMBER} \\* .+\\)\\) / \\(.+ \\* ${NUMBER}\\)$`,
);

/** Computes what the query would, in dollars; null while there is no rate, or for another query. */
export function costOf(
  expr: string, perSecond: number | null, bytesPerTrade: number | null,
): number | null {
  const found = FORM.exec(expr);
  if (!found || !perSecond || bytesPerTrade == null) return null;
  const [fixed, tape, lake, millions] = found.slice(1).map(Number) as [number, number, number, number];
  return (fixed + perSecond * (tape + lake * bytesPerTrade)) / (perSecond * millions);
}
