// Who changed what: for administrators and who monitors.
import { html } from "../vendor/htm-preact.js";
import { query } from "../api.js";
import { moment } from "../format.js";
import { usePolled } from "../live.js";
import { Badge, Pager, Refusal, Search, Table } from "../table.js";

export function Audit({ values, setValues }) {
  const page = Number(values.page ?? 1);
  const list = usePolled("/audit" + query({ page, page_size: 50, user: values.user }), 5);
  const details = (entry) => Object.entries(entry.details ?? {})
    .map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
  return html`<h1>Changes</h1>
    <p class="lead">What was changed by requests and by applications, with who did it and what was refused; the newest first.</p>
    <div class="tools"><${Search} label="Only of the user" value=${values.user ?? ""} set=${(user) => setValues({ user })} /></div>
    ${list.refused ? html`<${Refusal} text=${list.refused} />` : html`<${Table} caption="Changes" rows=${list.data?.items} id=${(entry) => JSON.stringify(entry)} empty="Nothing was changed yet." columns=${[
      { label: "What", isMain: true, cell: (entry) => html`<code>${entry.what}</code>${details(entry) && html`<small class="preview">${details(entry)}</small>`}` },
      { label: "User", cell: (entry) => entry.user || "–" },
      { label: "From", isWide: true, cell: (entry) => entry.peer },
      { label: "Outcome", cell: (entry) => (entry.outcome === "done" ? "done" : html`<${Badge} kind="bad">${entry.outcome}<//>`) },
      { label: "When", cell: (entry) => html`<time datetime=${entry.time}>${moment(Date.parse(entry.time))}</time>` },
    ]} /><${Pager} page=${page} pageCount=${list.data?.page_count} total=${list.data?.filtered_count} of="changes" set=${(next) => setValues({ ...values, page: next === 1 ? undefined : next })} />`}`;
}
