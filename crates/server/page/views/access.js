// Users, what they may do, and virtual hosts: for administrators.
import { html } from "../vendor/htm-preact.js";
import { ask, at } from "../api.js";
import { askFor } from "../dialog.js";
import { count } from "../format.js";
import { usePolled } from "../live.js";
import { Badge, Refusal, Table } from "../table.js";

const TAGS = [["", "none: may use queues, not this page"], ["management", "management: this page, for what is permitted"], ["policymaker", "policymaker: and policies"], ["monitoring", "monitoring: sees everything"], ["administrator", "administrator: may do everything"]];

export function Access({ me }) {
  const users = usePolled("/users", 10);
  const permissions = usePolled("/permissions", 10);
  const vhosts = usePolled("/vhosts", 10);
  const confirm = (title, text, path, refresh, action = "Delete") => askFor({
    title, text, action, isDanger: true,
    run: async () => {
      await ask("DELETE", path);
      refresh();
      return "Done.";
    },
  });
  const user = (old) => askFor({
    title: old ? `User ${old.name}` : "New user", action: old ? "Change" : "Add",
    fields: [
      !old && { name: "name", label: "Name", required: true },
      { name: "password", label: "Password", type: "password", required: !old, autocomplete: "new-password", hint: old && "none = as it is" },
      { name: "tags", label: "Tags", value: (old?.tags ?? ["management"]).join(","), hint: "with commas between", list: TAGS.map(([tag]) => tag).filter(Boolean) },
    ].filter(Boolean),
    run: async (form) => {
      const path = at("users", old?.name ?? form.name);
      const secret = form.password ? { password: form.password } : { password_hash: old.password_hash, hashing_algorithm: old.hashing_algorithm };
      await ask("PUT", path, { tags: form.tags, ...secret });
      users.refresh();
      return old ? "The user is changed." : "The user is there. Give it permissions for a virtual host.";
    },
  });
  const permit = (old) => askFor({
    title: old ? `What ${old.user} may do in ${old.vhost}` : "New permission", action: "Set",
    text: "Regular expressions of names of queues and exchanges. Nothing means none, .* means all.",
    fields: [
      !old && { name: "user", label: "User", type: "select", value: users.data?.[0]?.name, options: (users.data ?? []).map(({ name }) => [name, name]) },
      !old && { name: "vhost", label: "Virtual host", type: "select", value: vhosts.data?.[0]?.name, options: (vhosts.data ?? []).map(({ name }) => [name, name]) },
      ...["configure", "write", "read"].map((right) => ({ name: right, label: { configure: "May declare and delete", write: "May publish to", read: "May consume from" }[right], value: old?.[right] ?? ".*" })),
    ].filter(Boolean),
    run: async (form) => {
      await ask("PUT", at("permissions", old?.vhost ?? form.vhost, old?.user ?? form.user), { configure: form.configure, write: form.write, read: form.read });
      permissions.refresh();
      return "The permission holds from now on.";
    },
  });
  const vhost = () => askFor({
    title: "New virtual host", action: "Add",
    fields: [{ name: "name", label: "Name", required: true }, { name: "description", label: "Description" }],
    run: async (form) => {
      await ask("PUT", at("vhosts", form.name), { description: form.description });
      vhosts.refresh();
      permissions.refresh();
      return `${form.name} is there.`;
    },
  });
  const actions = (cell) => ({ label: html`<span class="unseen">Actions</span>`, cell: (row) => html`<span class="buttons">${cell(row)}</span>` });
  return html`<h1>Users and virtual hosts</h1>
    <section class="card"><div class="line"><h2>Users</h2><button type="button" onClick=${() => user()}>New…</button></div>
    ${users.refused ? html`<${Refusal} text=${users.refused} />` : html`<${Table} caption="Users" rows=${users.data} id=${({ name }) => name} columns=${[
      { label: "User", isMain: true, cell: ({ name }) => html`${name}${name === me.name && html` <small>you</small>`}` },
      { label: "Tags", cell: ({ tags }) => tags.map((tag) => html`<${Badge}>${tag}<//> `) },
      { label: "Password", isWide: true, cell: ({ password_hash }) => (password_hash ? "set" : "none") },
      { label: "Virtual hosts", isWide: true, cell: ({ name }) => permissions.data?.filter((permission) => permission.user === name).map((permission) => permission.vhost).join(", ") || "none" },
      actions((row) => html`<button type="button" onClick=${() => user(row)}>Change…</button><button type="button" class="danger" onClick=${() => confirm(`Delete the user ${row.name}?`, "Its permissions go, too, and its connections are closed.", at("users", row.name), users.refresh)}>Delete…</button>`),
    ]} />`}</section>
    <section class="card"><div class="line"><h2>Permissions</h2><button type="button" onClick=${() => permit()}>New…</button></div>
    <${Table} caption="Permissions" rows=${permissions.data} id=${(row) => `${row.vhost} ${row.user}`} columns=${[
      { label: "User", isMain: true, cell: (row) => row.user },
      { label: "Virtual host", cell: (row) => row.vhost },
      ...["configure", "write", "read"].map((right) => ({ label: right, cell: (row) => html`<code>${row[right] || "–"}</code>` })),
      actions((row) => html`<button type="button" onClick=${() => permit(row)}>Change…</button><button type="button" class="danger" onClick=${() => confirm(`Take from ${row.user} all permissions in ${row.vhost}?`, "Its clients there are refused from then on.", at("permissions", row.vhost, row.user), permissions.refresh, "Take away")}>Remove…</button>`),
    ]} /></section>
    <section class="card"><div class="line"><h2>Virtual hosts</h2><button type="button" onClick=${vhost}>New…</button></div>
    <${Table} caption="Virtual hosts" rows=${vhosts.data} id=${({ name }) => name} columns=${[
      { label: "Virtual host", isMain: true, cell: ({ name, description }) => html`${name}${description && html`<small class="preview">${description}</small>`}` },
      { label: "Waiting", isNumber: true, cell: (row) => count(row.messages_ready) },
      { label: "Running", isNumber: true, cell: (row) => count(row.messages_unacknowledged) },
      actions((row) => html`<button type="button" class="danger" onClick=${() => confirm(`Delete the virtual host ${row.name}?`, "All its queues, exchanges, jobs, permissions and policies are gone for good.", at("vhosts", row.name), () => { vhosts.refresh(); permissions.refresh(); })}>Delete…</button>`),
    ]} /></section>`;
}
