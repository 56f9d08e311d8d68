// Exchanges and what is bound to them, drawn from left to right. The table beside it says the same in words.
import { html } from "./vendor/htm-preact.js";

const BOX = { width: 168, height: 30, gap: 12, between: 150 };

/** How many boxes can be looked at. */
export const BOXES_MAX = 60;

const key = (kind, name) => `${kind} ${name}`;

/** What bindings lead to, from these exchanges on: `{ nodes, edges }`, at most BOXES_MAX nodes. */
export function reach(bindings, from) {
  const bySource = Map.groupBy ? Map.groupBy(bindings, (binding) => binding.source) : group(bindings);
  const nodes = new Map(from.map((name) => [key("exchange", name), { kind: "exchange", name, column: 0 }]));
  const edges = new Map();
  const waiting = [...from];
  while (waiting.length) {
    const source = waiting.shift();
    for (const binding of bySource.get(source) ?? []) {
      const to = key(binding.destination_type, binding.destination);
      if (!nodes.has(to)) {
        if (nodes.size >= BOXES_MAX) continue;
        nodes.set(to, { kind: binding.destination_type, name: binding.destination, column: 0 });
        if (binding.destination_type === "exchange") waiting.push(binding.destination);
      }
      const id = `${key("exchange", source)}>${to}`;
      const edge = edges.get(id) ?? { from: key("exchange", source), to, labels: [] };
      edge.labels.push(binding.routing_key || (Object.keys(binding.arguments ?? {}).length ? "headers" : ""));
      edges.set(id, edge);
    }
  }
  return { nodes, edges: [...edges.values()] };
}

function group(bindings) {
  const groups = new Map();
  for (const binding of bindings) groups.set(binding.source, [...(groups.get(binding.source) ?? []), binding]);
  return groups;
}

/** Columns: an exchange stands right of all that lead to it (loops end somewhere), queues stand last. */
function lay({ nodes, edges }) {
  for (let round = 0; round < 8; round++) {
    for (const edge of edges) {
      const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
      if (to.kind === "exchange" && to.column <= from.column && from !== to) to.column = Math.min(from.column + 1, 8);
    }
  }
  const last = Math.max(0, ...[...nodes.values()].filter((node) => node.kind === "exchange").map((node) => node.column)) + 1;
  const columns = [];
  for (const node of nodes.values()) {
    if (node.kind === "queue") node.column = last;
    (columns[node.column] ??= []).push(node);
  }
  // Whatever is led to stands near what leads there.
  const placeOf = (node) => {
    const sources = edges.filter((edge) => nodes.get(edge.to) === node).map((edge) => nodes.get(edge.from).y ?? 0);
    return sources.length ? sources.reduce((sum, y) => sum + y, 0) / sources.length : 0;
  };
  let tallest = 0;
  columns.forEach((column, at) => {
    column.sort((one, other) => placeOf(one) - placeOf(other) || one.name.localeCompare(other.name));
    column.forEach((node, row) => {
      node.x = at * (BOX.width + BOX.between);
      node.y = row * (BOX.height + BOX.gap);
    });
    tallest = Math.max(tallest, column.length);
  });
  const height = tallest * (BOX.height + BOX.gap) - BOX.gap;
  for (const column of columns.filter(Boolean)) {
    const shift = (height - (column.length * (BOX.height + BOX.gap) - BOX.gap)) / 2;
    column.forEach((node) => (node.y += shift));
  }
  return { width: columns.length * (BOX.width + BOX.between) - BOX.between, height };
}

const cut = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

/** `href(kind, name)` leads to a box's own view; `mark` is the exchange that it is about. */
export function Graph({ graph, href, mark, label }) {
  const { width, height } = lay(graph);
  const line = ({ from, to }) => {
    const [a, b] = [graph.nodes.get(from), graph.nodes.get(to)];
    const [x1, y1, x2, y2] = [a.x + BOX.width, a.y + BOX.height / 2, b.x, b.y + BOX.height / 2];
    const bend = Math.max(50, Math.abs(x2 - x1) / 2);
    return { path: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 5} ${y2}`, x: x2 - 10, y: y2 - 5 };
  };
  return html`<div class="scroll graph" tabindex="0" role="region" aria-label=${label}>
    <svg width=${width + 4} height=${height + 12} viewBox=${`-2 -6 ${width + 4} ${height + 12}`} role="group" aria-label=${label}>
      <defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" /></marker></defs>
      ${graph.edges.map((edge) => {
        const { path, x, y } = line(edge);
        const labels = edge.labels.filter(Boolean);
        const text = labels.length > 1 ? `${cut(labels[0], 14)} +${labels.length - 1}` : cut(labels[0] ?? "", 18);
        return html`<g class="edge"><path d=${path} marker-end="url(#tip)" /><text x=${x} y=${y} text-anchor="end">${text}<title>${labels.join("\n")}</title></text></g>`;
      })}
      ${[...graph.nodes.values()].map((node) => html`<a href=${href(node.kind, node.name)} class=${`box ${node.kind} ${node.kind === "exchange" && node.name === mark ? "mark" : ""}`}
        aria-label=${`${node.kind} ${node.name || "(default)"}`}>
        <rect x=${node.x} y=${node.y} width=${BOX.width} height=${BOX.height} rx=${node.kind === "exchange" ? BOX.height / 2 : 5} />
        <text x=${node.x + BOX.width / 2} y=${node.y + BOX.height / 2 + 4} text-anchor="middle">${cut(node.name || "(default)", 22)}<title>${node.name}</title></text></a>`)}
    </svg></div>`;
}
