// Policies: what queues and exchanges are given by their names.
import { html } from "../vendor/htm-preact.js";
import { ask, at } from "../api.js";
import { askFor } from "../dialog.js";
import { usePolled } from "../live.js";
import { Refusal, Table } from "../table.js";
import { parse, useVhosts } from "./queues.js";

/** Whether the user has the tag, or is an administrator. */
export const may = (me, tag) => me.tags.includes("administrator") || me.tags.includes(tag);

export function Policies({ me }) {
  const vhosts = useVhosts();
  return html`<h1>Policies</h1><p class="lead">A policy gives settings to all queues and exchanges whose name its pattern is found in. Of several, the one of the highest priority applies, and one operator policy besides.</p>
    <${List} kind="policies" title="Policies" vhosts=${vhosts} isOpen=${true} />
    <${List} kind="operator-policies" title="Operator policies" vhosts=${vhosts} isOpen=${may(me, "administrator")} />`;
}

function List({ kind, title, vhosts, isOpen }) {
  const { data, refused, refresh } = usePolled(`/${kind}`, 10);
  const edit = (policy) => askFor({
    title: policy ? `Policy ${policy.name}` : kind === "policies" ? "New policy" : "New operator policy", action: "Set",
    fields: [
      !policy && { name: "name", label: "Name", required: true },
      !policy && vhosts.length > 1 && { name: "vhost", label: "Virtual host", type: "select", value: vhosts[0], options: vhosts.map((name) => [name, name]) },
      { name: "pattern", label: "Pattern", required: true, value: policy?.pattern ?? "", hint: "a regular expression, such as ^jobs\\." },
      { name: "to", label: "Applies to", type: "select", value: policy?.["apply-to"] ?? "queues", options: ["all", "queues", "classic_queues", "quorum_queues", "streams", "exchanges"].map((word) => [word, word.replace("_", " ")]) },
      { name: "priority", label: "Priority", type: "number", value: policy?.priority ?? 0, required: true },
      { name: "definition", label: "Settings, as JSON", type: "area", required: true, value: JSON.stringify(policy?.definition ?? { "max-length": 100000 }, null, 2) },
    ].filter(Boolean),
    run: async (values) => {
      await ask("PUT", at(kind, policy?.vhost ?? values.vhost ?? vhosts[0] ?? "/", policy?.name ?? values.name), {
        pattern: values.pattern, definition: parse(values.definition), "apply-to": values.to, priority: Number(values.priority),
      });
      refresh();
      return "The policy holds from now on.";
    },
  });
  const remove = (policy) => askFor({
    title: `Delete the policy ${policy.name}?`, action: "Delete", isDanger: true, text: "What it says no longer holds, for queues that are there as well.",
    run: async () => {
      await ask("DELETE", at(kind, policy.vhost, policy.name));
      refresh();
      return `${policy.name} is deleted.`;
    },
  });
  return html`<section class="card"><div class="line"><h2>${title}</h2>${isOpen && html`<button type="button" onClick=${() => edit()}>New…</button>`}</div>
    ${refused ? html`<${Refusal} text=${refused} />` : html`<${Table} caption=${title} rows=${data} id=${(policy) => `${policy.vhost} ${policy.name}`} empty="None." columns=${[
      { label: "Name", isMain: true, cell: (policy) => html`${policy.name}${vhosts.length > 1 && html` <small>${policy.vhost}</small>`}` },
      { label: "Pattern", cell: (policy) => html`<code>${policy.pattern}</code>` },
      { label: "Applies to", isWide: true, cell: (policy) => policy["apply-to"] },
      { label: "Settings", cell: (policy) => html`<code>${Object.entries(policy.definition).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")}</code>` },
      { label: "Priority", isNumber: true, cell: (policy) => policy.priority },
      isOpen && { label: html`<span class="unseen">Actions</span>`, cell: (policy) => html`<span class="buttons"><button type="button" onClick=${() => edit(policy)}>Change…</button><button type="button" class="danger" onClick=${() => remove(policy)}>Delete…</button></span>` },
    ]} />`}</section>`;
}
