// Exchanges and bindings: a list, a drawing, and one exchange with what leads there and from there.
import { html } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { askFor, say } from "../dialog.js";
import { count, rate, rateOf } from "../format.js";
import { BOXES_MAX, Graph, reach } from "../graph.js";
import { usePolled } from "../live.js";
import { Badge, Facts, Pager, Refusal, Search, Table } from "../table.js";
import { VhostChoice, parse, useVhosts } from "./queues.js";

const leads = (vhost) => (kind, name) => "#" + at(kind, vhost, name || "amq.default");

export function Exchanges({ values, setValues }) {
  const vhosts = useVhosts();
  const page = Number(values.page ?? 1);
  const vhost = values.vhost ?? (vhosts.length === 1 ? vhosts[0] : undefined);
  const list = usePolled((vhost ? at("exchanges", vhost) : "/exchanges") + query({ page, page_size: 50, name: values.name }), 5);
  const bindings = usePolled(vhost && at("bindings", vhost), 15);
  const own = bindings.data?.filter((binding) => binding.source !== "");
  const sources = own && [...new Set(own.map((binding) => binding.source))];
  const graph = sources?.length ? reach(own, sources.slice(0, BOXES_MAX)) : null;
  const declare = () => askFor({
    title: "New exchange", action: "Declare",
    fields: [
      { name: "name", label: "Name", required: true },
      vhosts.length > 1 && { name: "vhost", label: "Virtual host", type: "select", value: vhost ?? vhosts[0], options: vhosts.map((name) => [name, name]) },
      { name: "type", label: "Type", type: "select", value: "topic", options: ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-random", "x-recent-history", "x-message-deduplication"].map((type) => [type, type]) },
      { name: "arguments", label: "Arguments, as JSON", type: "area", rows: 2 },
    ].filter(Boolean),
    run: async (form) => {
      await ask("PUT", at("exchanges", form.vhost ?? vhost ?? "/", form.name), { type: form.type, durable: true, arguments: form.arguments ? parse(form.arguments) : {} });
      list.refresh();
      return `The exchange ${form.name} is there.`;
    },
  });
  return html`<div class="line"><h1>Exchanges</h1><button type="button" class="primary" onClick=${declare}>New exchange</button></div>
    <div class="tools"><${Search} label="Search by name" value=${values.name ?? ""} set=${(name) => setValues({ ...values, name, page: undefined })} />
      <${VhostChoice} vhosts=${vhosts} value=${values.vhost} set=${(name) => setValues({ vhost: name })} /></div>
    ${graph && !values.name && html`<section class="card"><h2>Bindings</h2>
      ${graph.nodes.size >= BOXES_MAX && html`<p class="lead">There are more than can be drawn: choose an exchange to see what it leads to.</p>`}
      <${Graph} graph=${graph} href=${leads(vhost)} label="Exchanges and what is bound to them" /></section>`}
    ${list.refused ? html`<${Refusal} text=${list.refused} />` : html`<${Table} caption="Exchanges" rows=${list.data?.items} id=${(exchange) => `${exchange.vhost} ${exchange.name}`} columns=${[
      { label: "Exchange", isMain: true, cell: (exchange) => html`<a href=${leads(exchange.vhost)("exchange", exchange.name)}>${exchange.name || "(default)"}</a>${vhosts.length > 1 && html` <small>${exchange.vhost}</small>`}` },
      { label: "Type", cell: (exchange) => html`<${Badge}>${exchange.type}<//>` },
      { label: "In", isNumber: true, cell: (exchange) => rate(rateOf(exchange.message_stats, "publish_in")) },
      { label: "Out", isNumber: true, isWide: true, cell: (exchange) => rate(rateOf(exchange.message_stats, "publish_out")) },
      { label: "Kept", isWide: true, cell: (exchange) => (exchange.durable ? "durable" : "transient") },
      { label: "Policy", isWide: true, cell: (exchange) => exchange.policy ?? "" },
    ]} /><${Pager} page=${page} pageCount=${list.data?.page_count} total=${list.data?.filtered_count} of="exchanges" set=${(next) => setValues({ ...values, page: next === 1 ? undefined : next })} />`}`;
}

export function Exchange({ parts: [vhost, path] }) {
  const name = path === "amq.default" ? "" : path;
  const self = at("exchanges", vhost, path);
  const exchange = usePolled(self, 5);
  const from = usePolled(name && at("bindings", vhost), 10);
  const to = usePolled(name && `${self}/bindings/destination`, 10);
  if (exchange.refused) return html`<h1>${path}</h1><${Refusal} text=${exchange.refused} /><p><a href="#/exchanges">To all exchanges</a></p>`;
  const stats = exchange.data?.message_stats;
  const own = from.data?.filter((binding) => binding.source === name);
  const graph = own?.length || to.data?.length ? reach([...(from.data ?? []).filter((binding) => binding.source !== "")].filter((binding) => isNear(binding, name, to.data)), [...new Set([...(to.data ?? []).map((binding) => binding.source), name])]) : null;
  const again = () => {
    from.refresh();
    to.refresh();
  };
  const bind = () => askFor({
    title: `Bind to ${name}`, action: "Bind",
    fields: [
      { name: "kind", label: "What", type: "select", value: "q", options: [["q", "a queue"], ["e", "an exchange"]] },
      { name: "destination", label: "Its name", required: true },
      { name: "key", label: "Routing key" },
      { name: "arguments", label: "Arguments, as JSON", type: "area", rows: 2 },
    ],
    run: async (form) => {
      await ask("POST", at("bindings", vhost, "e", name, form.kind, form.destination), { routing_key: form.key, arguments: form.arguments ? parse(form.arguments) : {} });
      again();
      return "It is bound.";
    },
  });
  const unbind = (binding) => askFor({
    title: "Remove this binding?", action: "Unbind", isDanger: true, text: `${name} sends nothing more to ${binding.destination} by the key ${binding.routing_key || "(none)"}.`,
    run: async () => {
      await ask("DELETE", at("bindings", vhost, "e", binding.source, binding.destination_type[0], binding.destination, binding.properties_key));
      again();
      return "The binding is gone.";
    },
  });
  const remove = () => askFor({
    title: `Delete the exchange ${name}?`, action: "Delete the exchange", isDanger: true, text: "Its bindings go, too; what is published to it is refused from then on.",
    run: async () => {
      await ask("DELETE", self);
      location.hash = "exchanges";
      return `${name} is deleted.`;
    },
  });
  const isOwn = name && !name.startsWith("amq.");
  return html`<div class="line head"><div><p class="path"><a href="#/exchanges">Exchanges</a></p><h1>${name || "Default exchange"}</h1></div>
    <div class="buttons"><button type="button" onClick=${() => publishForm(vhost, name)}>Publish…</button>
      ${name && html`<button type="button" onClick=${bind}>Bind…</button>`}${isOwn && html`<button type="button" class="danger" onClick=${remove}>Delete…</button>`}</div></div>
    ${!name && html`<p class="lead">It sends each message to the queue whose name is the routing key.</p>`}
    ${graph && html`<section class="card"><h2>Where messages go</h2><${Graph} graph=${graph} href=${leads(vhost)} mark=${name} label=${`What ${name} is bound to`} /></section>`}
    <div class="halves"><section class="card"><h2>Exchange</h2><${Facts} of=${[
      ["Type", exchange.data?.type], ["Durable", exchange.data?.durable ? "yes" : "no"], ["Internal", exchange.data?.internal ? "yes" : "no"], ["Policy", exchange.data?.policy ?? "none"],
      ["Published to it", `${count(stats?.publish_in ?? 0)} (${rate(rateOf(stats, "publish_in"))})`], ["Went to queues", `${count(stats?.publish_out ?? 0)} (${rate(rateOf(stats, "publish_out"))})`],
      ...Object.entries(exchange.data?.arguments ?? {}).map(([key, value]) => [key, html`<code>${JSON.stringify(value)}</code>`]),
    ]} /></section>
    ${name && html`<section class="card"><h2>${count(own?.length)} bindings</h2><${Table} caption="Bindings" rows=${own} id=${(binding) => `${binding.destination_type} ${binding.destination} ${binding.properties_key}`} empty="Nothing is bound: messages are dropped or returned." columns=${[
      { label: "To", isMain: true, cell: (binding) => html`<a href=${leads(vhost)(binding.destination_type, binding.destination)}>${binding.destination}</a> <small>${binding.destination_type}</small>` },
      { label: "Routing key", cell: (binding) => html`<code>${binding.routing_key || "–"}</code>` },
      { label: "Arguments", isWide: true, cell: (binding) => (Object.keys(binding.arguments ?? {}).length ? html`<code>${JSON.stringify(binding.arguments)}</code>` : "") },
      { label: html`<span class="unseen">Actions</span>`, cell: (binding) => html`<button type="button" class="danger" onClick=${() => unbind(binding)}>Unbind…</button>` },
    ]} /></section>`}</div>`;
}

/** Of what leads here, only the way here is drawn; of what is here, all. */
const isNear = (binding, name, to) => !to?.some(({ source }) => source === binding.source) || binding.destination === name || binding.source === name;

/** A form that publishes a message: to an exchange, or by the default one to a queue. */
export function publishForm(vhost, exchange, queue, done) {
  askFor({
    title: queue ? `Publish to ${queue}` : `Publish to ${exchange || "the default exchange"}`, action: "Publish",
    fields: [
      !queue && { name: "key", label: "Routing key" },
      { name: "body", label: "Body", type: "area", required: true, rows: 5, value: queue ? "" : undefined },
      { name: "type", label: "Content type", value: "application/json", list: ["application/json", "text/plain", "application/octet-stream"] },
      { name: "delay", label: "Delay, in seconds", type: "number", min: 0 },
      { name: "headers", label: "Headers, as JSON", type: "area", rows: 2 },
      { name: "properties", label: "More properties, as JSON", type: "area", rows: 2, hint: "message_id, priority, expiration, reply_to, …" },
      { name: "persistent", label: "Survives a restart", type: "flag", value: true },
    ].filter(Boolean),
    run: async (form) => {
      const headers = { ...(form.headers ? parse(form.headers) : {}), ...(form.delay ? { "x-delay": Number(form.delay) * 1000 } : {}) };
      const { routed } = await ask("POST", at("exchanges", vhost, exchange || "amq.default", "publish"), {
        routing_key: queue ?? form.key ?? "", payload: form.body, payload_encoding: "string",
        properties: { ...(form.properties ? parse(form.properties) : {}), delivery_mode: form.persistent ? 2 : 1, ...(form.type && { content_type: form.type }), headers },
      });
      done?.();
      if (!routed) return say("It was published, but nothing is bound for that key: it is dropped.", "bad");
      return "It is published.";
    },
  });
}
