// Numbers, times and sizes as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 1,234; from a million on 1.23M. */
export const count = (n) => (n === undefined || n === null ? "–" : Math.abs(n) < 1e6 ? whole.format(n) : short.format(n));

/** A second: 12.3/s; 12.3 if `isBare`. */
export function rate(n, isBare) {
  if (n === undefined || n === null) return "–";
  if (isBare) return n % 1 ? n.toFixed(n < 1 ? 2 : 1) : count(n);
  if (n === 0) return "0/s";
  return `${Math.abs(n) < 10 ? n.toFixed(1) : count(n)}/s`;
}

/** 12.3 MB; `isRound` leaves out a fraction that is none. */
export function bytes(n, isRound) {
  if (n === undefined || n === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${unit && n < 100 && !(isRound && n % 1 === 0) ? n.toFixed(1) : whole.format(n)} ${units[unit]}`;
}

/** 850 ms, 12 s, 4 min 5 s, 3 h 20 min, 6 d 4 h. */
export function duration(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return s < 600 && s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h${s % 3600 >= 60 ? ` ${Math.floor((s % 3600) / 60)} min` : ""}`;
  return `${Math.floor(s / 86_400)} d${s % 86_400 >= 3600 ? ` ${Math.floor((s % 86_400) / 3600)} h` : ""}`;
}

/** A moment, with the day if it is another one. */
export function moment(ms) {
  if (!ms) return "–";
  const at = new Date(ms);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toISOString().slice(0, 10)} ${time}`;
}

/** How long until then, or since. */
export const until = (ms, now = Date.now()) => (ms <= now ? "now" : `in ${duration(ms - now)}`);

/** The rate of a counter in RabbitMQ's form. */
export const rateOf = (object, name) => object?.[`${name}_details`]?.rate ?? 0;

export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
