// One queue: its figures, its jobs in every state, its consumers and settings, and what can be done with it.
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { Chart } from "../chart.js";
import { Menu, askFor, attempt } from "../dialog.js";
import { bytes, count, duration, plural, rate, rateOf } from "../format.js";
import { useHistory, useLive, usePolled } from "../live.js";
import { Badge, Facts, Panel, Refusal, Table, Tabs, Tile } from "../table.js";
import { Jobs, Leases } from "./jobs.js";
import { may } from "./policies.js";
import { publishForm } from "./exchanges.js";
import { parse } from "./queues.js";

const COLUMNS = "name,vhost,type,durable,auto_delete,exclusive,arguments,state,policy,operator_policy,effective_policy_definition,messages,messages_ready,messages_unacknowledged,messages_delayed,message_bytes,memory,message_stats,consumers,consumer_utilisation,consumer_details,oldest_ready_age_ms,oldest_unacked_age_ms,late_leases,messages_deduplicated,idle_since";

const DEPTHS = [["ready", "Waiting"], ["unacked", "Running"], ["delayed", "Delayed"]].map(([id, label]) => ({ id, label }));
const RATES = [["publish", "In"], ["deliver", "Out"], ["ack", "Acked"], ["redeliver", "Redelivered"]].map(([id, label]) => ({ id, label }));

/** What holds for the queue: its argument, or what a policy says. */
const setting = (queue, key) => queue.arguments?.[`x-${key}`] ?? queue.effective_policy_definition?.[key];

/** The queues that the dead letters of this one go to. */
function useGraves(queue, vhost) {
  const exchange = queue && setting(queue, "dead-letter-exchange");
  const key = queue && (setting(queue, "dead-letter-routing-key") ?? queue.name);
  const [graves, setGraves] = useState(undefined);
  useEffect(() => {
    if (!queue) return;
    if (exchange === undefined || exchange === null) return setGraves([]);
    if (exchange === "") return setGraves([key]);
    ask("GET", at("exchanges", vhost, exchange, "bindings", "source")).then((bindings) => {
      const queues = bindings.filter((binding) => binding.destination_type === "queue");
      const exact = queues.filter((binding) => binding.routing_key === key);
      setGraves([...new Set((exact.length ? exact : queues).map((binding) => binding.destination))]);
    }, () => setGraves([]));
  }, [exchange, key, !queue]);
  return graves;
}

export function Queue({ me, parts: [vhost, name], values, setValues }) {
  const self = at("queues", vhost, name);
  const [redrives, setRedrives] = useState(0);
  const [queue, redrive] = useLive(self + query({ columns: COLUMNS }), redrives >= 0 && `${self}/redrive`);
  const [changes, setChanges] = useState(0);
  const isThere = queue && !queue.refused;
  const graves = useGraves(isThere ? queue : null, vhost);
  const stats = (isThere && queue.message_stats) || {};
  const points = useHistory(`queue ${vhost} ${name}`, isThere && {
    ready: queue.messages_ready, unacked: queue.messages_unacknowledged, delayed: queue.messages_delayed,
    publish: rateOf(stats, "publish"), deliver: rateOf(stats, "deliver_get"), ack: rateOf(stats, "ack"), redeliver: rateOf(stats, "redeliver"),
  });
  const letters = usePolled(self + "/messages" + query({ count: 1, truncate: 1 }), 30).data?.items[0];
  const isGrave = !!letters?.properties?.headers?.["x-death"];
  if (queue?.refused) return html`<h1>${name}</h1><${Refusal} text=${queue.refused} /><p><a href="#/queues">To all queues</a></p>`;
  const changed = () => setChanges((n) => n + 1);
  const isPaused = queue?.state === "paused";
  const run = async (path, method, text) => {
    await attempt(() => ask(method, self + path), text);
    changed();
  };
  const purge = () => askFor({
    title: `Purge ${name}?`, action: "Purge", isDanger: true, text: `All ${count(queue.messages_ready + queue.messages_delayed)} jobs that wait are dropped for good. Those that run are not.`,
    run: async () => {
      await ask("DELETE", `${self}/contents`);
      changed();
      return `${name} is purged.`;
    },
  });
  const remove = () => askFor({
    title: `Delete the queue ${name}?`, action: "Delete the queue", isDanger: true,
    text: `The queue, its bindings and ${plural(queue.messages, "job")} are gone for good; its consumers are cancelled.`,
    run: async () => {
      await ask("DELETE", self);
      location.hash = "queues";
      return `${name} is deleted.`;
    },
  });
  const startRedrive = () => askFor({
    title: `Redrive ${name}`, action: "Redrive", text: "Each dead job goes back to the queue where it died. What has no such history stays.",
    fields: [
      { name: "rate", label: "Jobs a second at most", type: "number", min: 1, hint: "none = as fast as it goes" },
      { name: "to", label: "To another queue instead" },
    ],
    run: async ({ rate: limit, to }) => {
      await ask("POST", `${self}/redrive`, { ...(limit && { rate: Number(limit) }), ...(to && { to_queue: to }) });
      setRedrives((n) => n + 1);
      changed();
      return "The redrive has begun.";
    },
  });
  const tab = values.tab ?? "waiting";
  const setTab = (next) => setValues({ ...values, tab: next === "waiting" ? undefined : next });
  const hasGraves = graves?.length > 0 && !isGrave;
  const tabs = [
    ["waiting", isGrave ? "Dead jobs" : "Waiting", queue?.messages_ready],
    ["delayed", "Retried and delayed", queue?.messages_delayed],
    ["running", "Running", queue?.messages_unacknowledged],
    hasGraves && ["dead", "Dead"],
    ["consumers", "Consumers", queue?.consumers],
    ["settings", "Settings"],
  ].filter(Boolean);
  const isRedriven = redrive && !redrive.refused && (redrive.state !== "done" || redrives > 0);
  return html`<div class="line head"><div><p class="path"><a href="#/queues">Queues</a>${vhost !== "/" && html` / ${vhost}`}</p><h1>${name}</h1>
      ${isThere && html`<p class="badges">${isPaused && html`<${Badge} kind="warn">paused<//>`}${queue.late_leases > 0 && html`<${Badge} kind="bad">${plural(queue.late_leases, "forgotten ack")}<//>`}
        ${!isGrave && !queue.consumers && queue.messages_ready > 0 && html`<${Badge} kind="warn">no consumer<//>`}${isGrave && html`<${Badge} kind="bad">dead letters<//>`}
        <${Badge}>${queue.type}<//>${queue.durable ? html`<${Badge}>durable<//>` : html`<${Badge} kind="warn">transient<//>`}${queue.exclusive && html`<${Badge}>exclusive<//>`}${queue.policy && html`<${Badge}>policy ${queue.policy}<//>`}</p>`}</div>
    <div class="buttons">
      ${isGrave && html`<button type="button" class="primary" onClick=${startRedrive}>Redrive…</button>`}
      <button type="button" onClick=${() => publishForm(vhost, "", name, changed)}>Publish…</button>
      <button type="button" onClick=${() => run(isPaused ? "/resume" : "/pause", "PUT", isPaused ? `${name} delivers again.` : `${name} is paused.`)}>${isPaused ? "Resume" : "Pause"}</button>
      <${Menu} label="More" items=${[
        may(me, "policymaker") && ["Change limits…", () => limits(queue, vhost, changed)],
        !isGrave && ["Redrive dead letters…", startRedrive],
        ["Purge…", purge, true],
        ["Delete the queue…", remove, true],
      ]} />
    </div></div>
    ${isRedriven && html`<${Redrive} self=${self} redrive=${redrive} changed=${changed} />`}
    <dl class="tiles">
      <${Tile} name="Waiting" value=${count(queue?.messages_ready)} />
      <${Tile} name="Running" value=${count(queue?.messages_unacknowledged)} />
      <${Tile} name="Delayed" value=${count(queue?.messages_delayed)} />
      <${Tile} name="Oldest waiting" value=${duration(queue?.oldest_ready_age_ms)} />
      <${Tile} name="Oldest running" value=${duration(queue?.oldest_unacked_age_ms)} kind=${queue?.late_leases ? "warn" : ""} />
      <${Tile} name="In" value=${rate(rateOf(stats, "publish"))} />
      <${Tile} name="Out" value=${rate(rateOf(stats, "deliver_get"))} />
    </dl>
    <div class="charts below">
      <${Chart} title="Jobs" series=${DEPTHS} points=${points} height=${140} format=${count} isWhole=${true} />
      <${Chart} title="Jobs a second" series=${RATES} points=${points} height=${140} format=${rate} />
    </div>
    <${Tabs} label="Jobs and settings" tabs=${tabs} chosen=${tab} set=${setTab} />
    <${Panel} tab=${tab}>
      ${tab === "waiting" && html`<${Jobs} vhost=${vhost} queue=${name} state="ready" kind=${isGrave ? "letters" : undefined} refreshed=${changes} />`}
      ${tab === "delayed" && html`<${Jobs} vhost=${vhost} queue=${name} state="delayed" refreshed=${changes} />`}
      ${tab === "running" && html`<${Leases} vhost=${vhost} queue=${name} refreshed=${changes} />`}
      ${tab === "dead" && graves?.map((grave) => html`<p class="lead">Jobs of <b>${name}</b> that are dead, in <a href=${"#" + at("queue", vhost, grave)}>${grave}</a></p>
        <${Jobs} key=${grave} vhost=${vhost} queue=${grave} state="ready" kind="dead" home=${name} only=${{ "header.x-last-death-queue": name }} refreshed=${changes} />`)}
      ${tab === "consumers" && html`<${Consumers} consumers=${queue?.consumer_details} />`}
      ${tab === "settings" && isThere && html`<${Settings} me=${me} queue=${queue} vhost=${vhost} changed=${changed} />`}
    <//>`;
}

function Redrive({ self, redrive, changed }) {
  const isOver = ["done", "stopped", "failed"].includes(redrive.state);
  useEffect(() => {
    if (isOver) changed();
  }, [isOver]);
  const share = redrive.total ? Math.min(100, Math.round((100 * redrive.moved) / redrive.total)) : 100;
  return html`<div class=${`notice ${redrive.state === "failed" ? "bad" : isOver ? "good" : ""}`} role="status">
    <p><b>Redrive ${redrive.state}:</b> ${count(redrive.moved)} of ${plural(redrive.total, "job")} moved${redrive.unroutable ? `, ${count(redrive.unroutable)} had nowhere to go` : ""}${redrive.reason ? ` – ${redrive.reason}` : ""}
    ${!isOver && html` <button type="button" onClick=${() => attempt(() => ask("DELETE", `${self}/redrive`), "The redrive ends.")}>Stop</button>`}</p>
    <progress max="100" value=${share} aria-label="Redrive">${share} %</progress></div>`;
}

const Consumers = ({ consumers }) => html`<${Table} caption="Consumers" rows=${consumers} id=${(consumer) => consumer.channel_details?.name + consumer.consumer_tag} empty="Nobody consumes." columns=${[
  { label: "Consumer", isMain: true, cell: (consumer) => consumer.consumer_tag },
  { label: "Channel", cell: (consumer) => html`<code>${consumer.channel_details?.name ?? "–"}</code>` },
  { label: "User", isWide: true, cell: (consumer) => consumer.channel_details?.user },
  { label: "Prefetch", isNumber: true, cell: (consumer) => (consumer.prefetch_count ? count(consumer.prefetch_count) : html`<${Badge} kind="warn">no limit<//>`) },
  { label: "Timeout", isNumber: true, isWide: true, cell: (consumer) => (consumer.consumer_timeout ? duration(consumer.consumer_timeout) : "–") },
  { label: "State", cell: (consumer) => html`<${Badge} kind=${consumer.active ? "good" : ""}>${consumer.active ? "active" : "waits"}<//>${!consumer.ack_required && html` <${Badge} kind="warn">no acks<//>`}` },
]} />`;

function Settings({ me, queue, vhost, changed }) {
  const bindings = usePolled(at("queues", vhost, queue.name, "bindings"), 0);
  const value = (any) => html`<code>${typeof any === "object" ? JSON.stringify(any) : String(any)}</code>`;
  const list = (object) => Object.entries(object ?? {}).map(([key, any]) => [key, value(any)]);
  const bound = bindings.data?.filter((binding) => binding.source !== "");
  return html`<div class="halves">
    <section class="card"><h2>Declared as</h2>${list(queue.arguments).length ? html`<${Facts} of=${list(queue.arguments)} />` : html`<p class="empty">Without arguments.</p>`}
      <${Facts} of=${[["Durable", queue.durable ? "yes" : "no"], ["Deleted when unused", queue.auto_delete ? "yes" : "no"], ["Bodies", bytes(queue.message_bytes)], ["Memory", bytes(queue.memory)], queue.messages_deduplicated > 0 && ["Duplicates dropped", count(queue.messages_deduplicated)]]} /></section>
    <section class="card"><div class="line"><h2>By policy</h2>${may(me, "policymaker") && html`<button type="button" onClick=${() => limits(queue, vhost, changed)}>Change limits…</button>`}</div>
      <${Facts} of=${[["Policy", queue.policy ? html`<a href="#/policies">${queue.policy}</a>` : "none"], ["Operator policy", queue.operator_policy ?? "none"], ...list(queue.effective_policy_definition)]} /></section>
    <section class="card"><h2>Bound to</h2><${Table} caption="Bindings" rows=${bound} id=${(binding) => `${binding.source} ${binding.properties_key}`} empty="Only reached by its name, through the default exchange." columns=${[
      { label: "Exchange", isMain: true, cell: (binding) => html`<a href=${"#" + at("exchange", vhost, binding.source)}>${binding.source}</a>` },
      { label: "Routing key", cell: (binding) => html`<code>${binding.routing_key || "–"}</code>` },
      { label: html`<span class="unseen">Actions</span>`, cell: (binding) => html`<button type="button" class="danger" onClick=${() => askFor({
        title: "Remove this binding?", action: "Unbind", isDanger: true, text: `${binding.source} sends nothing more to ${queue.name} by the key ${binding.routing_key || "(none)"}.`,
        run: async () => {
          await ask("DELETE", at("bindings", vhost, "e", binding.source, "q", queue.name, binding.properties_key));
          bindings.refresh();
          return "The binding is gone.";
        },
      })}>Unbind…</button>` },
    ]} /></section></div>`;
}

const LIMITS = [
  ["max-length", "Jobs at most"],
  ["max-length-bytes", "Bytes at most"],
  ["message-ttl", "Time to live, in ms"],
  ["delivery-limit", "Failed deliveries at most"],
  ["max-in-flight", "Running at once at most"],
  ["rate-limit", "Deliveries a second at most"],
  ["consumer-timeout", "Acknowledgement timeout, in ms"],
];

/** A policy for this queue alone, which has all that applies now and what is changed. */
async function limits(queue, vhost, changed) {
  const policies = await ask("GET", at("policies", vhost)).catch(() => []);
  const current = policies.find((policy) => policy.name === queue.policy);
  const name = `queue ${queue.name}`;
  const own = policies.find((policy) => policy.name === name);
  const definition = current?.definition ?? {};
  askFor({
    title: `Limits of ${queue.name}`, action: "Set",
    text: current && current.name !== name
      ? `A policy for this queue alone takes the place of ${current.name} and keeps what that says.`
      : "A policy for this queue alone says so. Nothing set means no limit, or the queue's own argument.",
    fields: [
      ...LIMITS.map(([key, label]) => ({ name: key, label, type: "number", min: 0, value: definition[key] ?? "" })),
      { name: "overflow", label: "When it is full", type: "select", value: definition.overflow ?? "", options: [["", "as declared"], ["drop-head", "drop the oldest"], ["reject-publish", "refuse new ones"], ["reject-publish-dlx", "refuse and dead-letter new ones"]] },
      { name: "more", label: "Other keys, as JSON", type: "area", rows: 2, value: JSON.stringify(Object.fromEntries(Object.entries(definition).filter(([key]) => key !== "overflow" && !LIMITS.some(([known]) => known === key)))) },
    ],
    run: async ({ more, overflow, ...values }) => {
      const next = { ...(more ? parse(more) : {}) };
      for (const [key] of LIMITS) if (values[key] !== "") next[key] = Number(values[key]);
      if (overflow) next.overflow = overflow;
      const path = at("policies", vhost, name);
      if (Object.keys(next).length === 0) {
        if (own) await ask("DELETE", path);
      } else {
        const highest = Math.max(0, ...policies.filter((policy) => policy.name !== name).map((policy) => policy.priority));
        const pattern = `^${queue.name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
        await ask("PUT", path, { pattern, definition: next, "apply-to": "queues", priority: Math.max(own?.priority ?? 0, highest + 1) });
      }
      changed();
      return "The limits hold from now on.";
    },
  });
}
