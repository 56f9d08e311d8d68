// Lists: tables that are sorted and paged, and what stands around them.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { count } from "./format.js";

/**
 * `columns`: { id, label, cell(row), isNumber, sort, isWide }. `isWide` ones are left out on a phone.
 * `selection`: { has, toggle, all }. `sort`: { by, isDown, set }.
 */
export function Table({ caption, columns, rows, id, sort, selection, empty, mark }) {
  columns = columns.filter(Boolean);
  if (!rows) return html`<p class="waiting" aria-busy="true">Loading…</p>`;
  if (!rows.length) return html`<p class="empty">${empty ?? "Nothing here."}</p>`;
  const isAll = selection && rows.every((row) => selection.has(id(row)));
  const head = (column) => {
    const isBy = sort && column.sort && sort.by === column.sort;
    const label = column.sort && sort
      ? html`<button type="button" class="sort" onClick=${() => sort.set(column.sort, isBy ? !sort.isDown : column.isNumber)}>${column.label}
          <span aria-hidden="true">${isBy ? (sort.isDown ? "↓" : "↑") : ""}</span></button>`
      : column.label;
    return html`<th scope="col" class=${classes(column)} aria-sort=${isBy ? (sort.isDown ? "descending" : "ascending") : undefined}>${label}</th>`;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="unseen">${caption}</caption>
    <thead><tr>
      ${selection && html`<th scope="col" class="check"><input type="checkbox" aria-label="Select all" checked=${isAll} onChange=${() => selection.all(rows.map(id), !isAll)} /></th>`}
      ${columns.map(head)}
    </tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${id(row)} class=${mark?.(row) ?? ""}>
      ${selection && html`<td class="check"><input type="checkbox" aria-label=${`Select ${id(row)}`} checked=${selection.has(id(row))} onChange=${() => selection.toggle(id(row))} /></td>`}
      ${columns.map((column, at) => at === 0
        ? html`<th scope="row" class=${classes(column)}>${column.cell(row)}</th>`
        : html`<td class=${classes(column)}>${column.cell(row)}</td>`)}
    </tr>`)}</tbody>
  </table></div>`;
}

const classes = (column) => [column.isNumber && "number", column.isWide && "wide", column.isMain && "main"].filter(Boolean).join(" ");

export function Pager({ page, pageCount, total, of, set }) {
  if (!pageCount || pageCount < 2) return html`<p class="pager" role="status">${count(total)} ${of}</p>`;
  return html`<nav class="pager" aria-label=${`Pages of ${of}`}>
    <button type="button" disabled=${page <= 1} onClick=${() => set(page - 1)}>← Previous</button>
    <span role="status">Page ${count(page)} of ${count(pageCount)} · ${count(total)} ${of}</span>
    <button type="button" disabled=${page >= pageCount} onClick=${() => set(page + 1)}>Next →</button>
  </nav>`;
}

/** A box for what is looked for; tells it when the typing pauses. */
export function Search({ label, value, set, placeholder }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => set(text), 250);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<label class="search"><span class="unseen">${label}</span>
    <input type="search" value=${text} placeholder=${placeholder ?? label} spellcheck="false" autocomplete="off"
      onInput=${(event) => setText(event.target.value)} onKeyDown=${(event) => event.key === "Enter" && set(text)} /></label>`;
}

/** Which rows are chosen. */
export function useSelection() {
  const [chosen, setChosen] = useState(new Set());
  return {
    list: [...chosen],
    has: (id) => chosen.has(id),
    clear: () => setChosen(new Set()),
    toggle: (id) => setChosen((old) => {
      const next = new Set(old);
      if (!next.delete(id)) next.add(id);
      return next;
    }),
    all: (ids, isOn) => setChosen((old) => {
      const next = new Set(old);
      ids.forEach((id) => (isOn ? next.add(id) : next.delete(id)));
      return next;
    }),
  };
}

/** Names and values. */
export const Facts = ({ of }) => html`<dl class="facts">${of.filter(Boolean).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

/** A figure with its name. */
export const Tile = ({ name, value, note, kind = "", href }) => html`<div class=${`tile ${kind}`}><dt>${name}</dt>
  <dd>${href ? html`<a href=${href}>${value}</a>` : value}${note && html`<small>${note}</small>`}</dd></div>`;

/** Tabs: `[id, label, count]` each; the caller shows what belongs to the chosen one in `#panel`. */
export function Tabs({ label, tabs, chosen, set }) {
  // On a phone the chosen one may be beyond the edge.
  useEffect(() => document.getElementById(`tab-${chosen}`)?.scrollIntoView({ block: "nearest", inline: "center" }), [chosen]);
  const key = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex(([id]) => id === chosen);
    const [next] = tabs[(at + step + tabs.length) % tabs.length];
    set(next);
    requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} onKeyDown=${key}>${tabs.map(([id, text, number]) => html`
    <button type="button" role="tab" id=${`tab-${id}`} aria-selected=${id === chosen} aria-controls="panel" tabindex=${id === chosen ? 0 : -1}
      onClick=${() => set(id)}>${text}${number !== undefined && html` <span class="badge">${count(number)}</span>`}</button>`)}</div>`;
}

export const Panel = ({ tab, children }) => html`<section id="panel" role="tabpanel" aria-labelledby=${`tab-${tab}`} tabindex="0">${children}</section>`;

/** What takes the place of something that may not be seen or is gone. */
export const Refusal = ({ text }) => html`<p class="notice bad" role="alert">${text}</p>`;
