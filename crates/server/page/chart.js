// Lines over time, drawn as SVG. The latest values stand beside the names; pointing at the chart shows those of then.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

const SPAN_MS = 300_000;
const PAD = { left: 50, right: 10, top: 8, bottom: 20 };

/** `series`: { id, label } with the class `line-ID`; `points`: { t, [id]: number }. */
export function Chart({ title, series, points, format, height = 168, isWhole }) {
  const frame = useRef();
  const [width, setWidth] = useState(480);
  const [pointed, setPointed] = useState(null);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(220, Math.floor(entry.contentRect.width))));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  const now = points.at(-1)?.t ?? Date.now();
  const first = Math.max(now - SPAN_MS, Math.min(points[0]?.t ?? now, now - 60_000));
  const shown = points.filter((point) => point.t >= first - 5000);
  const most = Math.max(0, ...shown.flatMap((point) => series.map(({ id }) => point[id] ?? 0)));
  const ticks = scale(most, isWhole);
  const top = ticks.at(-1);
  const [w, h] = [width - PAD.left - PAD.right, height - PAD.top - PAD.bottom];
  const x = (t) => PAD.left + ((t - first) / (now - first)) * w;
  const y = (value) => PAD.top + h - (value / top) * h;
  const path = (id) => shown.filter((point) => point[id] !== undefined && point[id] !== null)
    .map((point, at) => `${at ? "L" : "M"}${Math.max(PAD.left, x(point.t)).toFixed(1)} ${y(point[id]).toFixed(1)}`).join("");
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const t = first + ((event.clientX - box.left - PAD.left) / w) * (now - first);
    setPointed(shown.reduce((best, other) => (!best || Math.abs(other.t - t) < Math.abs(best.t - t) ? other : best), null)?.t);
  };
  const told = shown.find((other) => other.t === pointed) ?? shown.at(-1) ?? {};
  const summary = `${title}: ${series.map(({ id, label }) => `${label} ${format(shown.at(-1)?.[id] ?? 0)}`).join(", ")}`;
  const minutes = Math.round((now - first) / 60_000);
  return html`<figure class="chart">
    <figcaption><h3>${title}</h3><ul>${series.map(({ id, label }) => html`<li><span class=${`key line-${id}`} aria-hidden="true"></span>${label}${" "}<b>${format(told[id] ?? 0)}</b></li>`)}</ul></figcaption>
    <div ref=${frame} class="frame"><svg width=${width} height=${height} role="img" aria-label=${summary} onPointerMove=${point} onPointerLeave=${() => setPointed(null)}>
      ${ticks.map((tick) => html`<line class="grid" x1=${PAD.left} x2=${width - PAD.right} y1=${y(tick)} y2=${y(tick)} />
        <text class="tick" x=${PAD.left - 7} y=${y(tick) + 4} text-anchor="end">${format(tick, true)}</text>`)}
      <text class="tick" x=${PAD.left} y=${height - 4}>${minutes < 1 ? "" : `${minutes} min ago`}</text>
      <text class="tick" x=${width - PAD.right} y=${height - 4} text-anchor="end">${pointed ? new Date(pointed).toLocaleTimeString("en-GB") : "now"}</text>
      ${series.map(({ id }) => html`<path class=${`line line-${id}`} d=${path(id)} />`)}
      ${pointed && html`<line class="pointer" x1=${x(told.t)} x2=${x(told.t)} y1=${PAD.top} y2=${PAD.top + h} />
        ${series.map(({ id }) => html`<circle class=${`dot line-${id}`} cx=${x(told.t)} cy=${y(told[id] ?? 0)} r="3" />`)}`}
    </svg></div>
  </figure>`;
}

/** A few round numbers from 0 to at least the most. */
function scale(most, isWhole) {
  if (!(most > 0)) return [0, 1];
  if (isWhole && most < 3) most = 3;
  const rough = most / 3;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((by) => by * ten).find((by) => by >= rough && !(isWhole && by % 1)) ?? ten * 10;
  const ticks = [0];
  while (ticks.at(-1) < most) ticks.push(ticks.at(-1) + step);
  return ticks;
}
