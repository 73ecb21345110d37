// Values as people read them. What a process has chosen is hostile: see `runs`.

// Controls, format characters (zero-width, bidirectional, tags), fillers, variation selectors:
// the set of linnix_core.escape.
const HOSTILE =
  /[\x00-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

function escaped(character) {
  const code = character.codePointAt(0);
  const digits = code.toString(16);
  if (code <= 0xff) return `\\x${digits.padStart(2, "0")}`;
  return code <= 0xffff ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`;
}

/** The text as pieces `[text, wasEscaped]`, none of which can act on what is around it. */
export function runs(text) {
  const found = [];
  let from = 0;
  for (const match of text.matchAll(HOSTILE)) {
    if (match.index > from) found.push([text.slice(from, match.index), false]);
    found.push([escaped(match[0]), true]);
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push([text.slice(from), false]);
  return found;
}

/** The same as one string, for attributes. */
export function printable(value) {
  return String(value ?? "").replace(HOSTILE, escaped);
}

export const UNKNOWN = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const upTo = [0, 1, 2, 3].map(
  (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }),
);

export function count(value) {
  return known(value) ? grouped.format(value) : UNKNOWN;
}

/** A measurement: three digits that matter, no more. */
export function number(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  return upTo[size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3].format(value);
}

export function percent(value, digits = 1) {
  return known(value) ? `${value.toFixed(value >= 1000 ? 0 : digits)} %` : UNKNOWN;
}

/** Like `percent`, for columns whose heading has the sign. */
export function bare(value) {
  return known(value) ? value.toFixed(value >= 1000 ? 0 : 1) : "";
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  let unit = 0;
  let left = value;
  while (Math.abs(left) >= 1000 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit === 0 || left >= 100 ? left.toFixed(0) : left.toFixed(left >= 10 ? 1 : 2)} ${UNITS[unit]}`;
}

/** A number with a unit of the UCUM, as records have them. */
export function quantity(value, unit, name = "") {
  if (unit === name) return number(value);
  if (unit === "By") return bytes(value);
  if (unit === "By/s") return `${bytes(value)}/s`;
  if (unit === "s") return value < 1 ? `${number(value * 1000)} ms` : duration(value);
  if (unit === "%") return `${number(value)} %`;
  if (!unit || unit === "1") return number(value);
  return `${number(value)} ${unit.replace(/^\{(.*)\}$/, "$1")}`;
}

/** Seconds in the two largest units. */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const two = (value) => String(value).padStart(2, "0");

/** A moment (seconds since 1970) on the reader's clock; the date where it is not today's. */
export function moment(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const at = new Date(seconds * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

export function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  if (passed < 5) return "now";
  const whole = passed < 60 ? `${Math.floor(passed)} s` : duration(passed).split(" ").slice(0, 2).join(" ");
  return `${whole} ago`;
}

export function plural(amount, one, many = `${one}s`) {
  return `${count(amount)} ${amount === 1 ? one : many}`;
}
