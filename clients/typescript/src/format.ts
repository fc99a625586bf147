// Formats figures for people. Exact decimals arrive as text and stay text: nothing here turns a
// price into a floating-point number.

const THIN = "\u2009";
const NONE = "–";

/** Groups the whole part of an exact decimal in threes. */
export function grouped(decimal: string): string {
  const match = /^(-?)(\d+)(\.\d+)?$/.exec(decimal);
  if (!match) return decimal;
  const [, sign, whole, fraction] = match;
  return `${sign}${(whole as string).replace(/\B(?=(\d{3})+$)/g, ",")}${fraction ?? ""}`;
}

/** Drops zeros at the end of an exact decimal, and keeps `least` digits after the point. */
export function trimmed(decimal: string, least = 0): string {
  const point = decimal.indexOf(".");
  if (point < 0) return least ? `${decimal}.${"0".repeat(least)}` : decimal;
  const fraction = decimal.slice(point + 1).replace(/0+$/, "").padEnd(least, "0");
  return fraction ? `${decimal.slice(0, point)}.${fraction}` : decimal.slice(0, point);
}

/** Formats a price: all its digits, at least two after the point. */
export function price(decimal: string | null | undefined): string {
  return decimal == null ? NONE : grouped(trimmed(decimal, 2));
}

/** Formats a quantity: all its digits. */
export function quantity(decimal: string | null | undefined): string {
  return decimal == null ? NONE : grouped(trimmed(decimal));
}

/** Formats a count: whole, grouped in threes. Takes 64-bit counts as text. */
export function count(value: number | string | bigint | null | undefined): string {
  if (value == null || value === "") return NONE;
  if (typeof value === "number") {
    return Number.isFinite(value) ? grouped(Math.round(value).toString()) : NONE;
  }
  return grouped(value.toString());
}

/** Formats a rate or another measured number with about three significant digits. */
export function measured(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return count(value);
  if (size === 0) return "0";
  if (size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** Formats a number of bytes in binary units. */
export function bytes(value: number | string | null | undefined): string {
  const size = number(value);
  if (size == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let scaled = size;
  while (Math.abs(scaled) >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count(scaled) : measured(scaled)}${THIN}${units[unit]}`;
}

/** Formats a length of time in the unit that fits. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  const size = Math.abs(seconds);
  if (size === 0) return `0${THIN}s`;
  if (size < 0.001) return `${measured(seconds * 1e6)}${THIN}µs`;
  if (size < 1) return `${measured(seconds * 1000)}${THIN}ms`;
  if (size < 60) return `${seconds.toFixed(size < 10 ? 1 : 0)}${THIN}s`;
  if (size < 3600) {
    const whole = Math.round(size);
    return `${Math.floor(whole / 60)}${THIN}min ${whole % 60}${THIN}s`;
  }
  const minutes = Math.round(size / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}${THIN}h ${minutes % 60}${THIN}min`;
  return `${Math.floor(minutes / 1440)}${THIN}d ${Math.floor((minutes % 1440) / 60)}${THIN}h`;
}

/** Formats how long ago a time was. */
export function ago(time: string | null | undefined, nowMs: number): string {
  const ms = milliseconds(time);
  if (ms == null) return NONE;
  const seconds = (nowMs - ms) / 1000;
  return seconds < 1 ? "now" : `${duration(Math.floor(seconds))} ago`;
}

/** Formats the time of day of an ISO time in UTC, to the millisecond at most. */
export function timeOfDay(time: string | null | undefined, digits = 3): string {
  const ms = milliseconds(time);
  if (ms == null) return NONE;
  const text = new Date(ms).toISOString().slice(11, 23);
  return digits === 0 ? text.slice(0, 8) : text.slice(0, 9 + digits);
}

/** Formats date and time of an ISO time in UTC, to the second. */
export function dateTime(time: string | null | undefined): string {
  const ms = milliseconds(time);
  return ms == null ? NONE : new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

/** Formats a share of one as a percentage. */
export function percent(share: number | null | undefined): string {
  return share == null || !Number.isFinite(share) ? NONE : `${Math.round(share * 1000) / 10}${THIN}%`;
}

/** Converts an ISO time to milliseconds since 1970; null where there is none. */
export function milliseconds(time: string | null | undefined): number | null {
  if (!time) return null;
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? null : ms;
}

/** Converts a number that may have come as text; null where there is none. */
export function number(value: unknown): number | null {
  if (value == null || value === "" || typeof value === "boolean") return null;
  const converted = Number(value);
  return Number.isFinite(converted) ? converted : null;
}

/** Formats a reading of a signal or a panel in the unit that its name or Grafana gives. */
export function inUnit(value: number | null | undefined, unit: string): string {
  if (value == null) return NONE;
  switch (unit) {
    case "s": return duration(value);
    case "bytes": return bytes(value);
    case "percentunit": return percent(value);
    case "reqps": return `${measured(value)}/s`;
    case "currencyUSD": return `$${value.toPrecision(2)}`;
    case "bool": return value >= 1 ? "yes" : "no";
    default: return measured(value);
  }
}

/** Returns the unit of a signal: its name ends with it. */
export function unitOfSignal(signal: string): string {
  if (signal.endsWith("_s")) return "s";
  if (signal.endsWith("_bytes")) return "bytes";
  if (/^(cpu|memory|io)_pressure$/.test(signal)) return "percentunit";
  return "none";
}

/** Writes a name of the wire for people: `CIRCUIT_BREAK` as `Circuit break`. */
export function plain(name: string | null | undefined): string {
  if (!name) return NONE;
  const words = name.replace(/_/g, " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}
