// How the whole server is: what waits, what moves, what is wrong.
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { Chart } from "../chart.js";
import { bytes, count, duration, plural, rate, rateOf } from "../format.js";
import { seedHistory, useHistory, useLive } from "../live.js";
import { Badge, Facts, Refusal, Table, Tile } from "../table.js";

const OVERVIEW = "/overview" + query({
  columns: "message_stats,queue_totals,object_totals,churn_rates,cluster_name,product_version,listeners",
});
const NODES = "/nodes" + query({
  columns: "name,uptime,mem_used,mem_limit,mem_alarm,disk_free,disk_free_limit,disk_free_alarm,fd_used,fd_total,processors",
});
const BUSIEST = "/queues" + query({
  page: 1, page_size: 8, sort: "messages", sort_reverse: true,
  columns: "name,vhost,state,messages,messages_ready,messages_unacknowledged,messages_delayed,consumers,oldest_ready_age_ms,late_leases",
});
const RATES = [["publish", "Published"], ["deliver", "Delivered"], ["ack", "Acked"], ["redeliver", "Redelivered"]].map(([id, label]) => ({ id, label }));
const TIMES = [["wait", "In the queue"], ["run", "Until acked"]].map(([id, label]) => ({ id, label }));
const DEPTHS = [["ready", "Waiting"], ["unacked", "Running"], ["delayed", "Delayed"]].map(([id, label]) => ({ id, label }));

const isTold = (answer) => answer && !answer.refused;

/** What the server remembers of the last minutes, so that a chart need not begin with nothing. */
async function remember() {
  const told = await ask("GET", "/overview" + query({ msg_rates_age: 300, msg_rates_incr: 5, lengths_age: 300, lengths_incr: 5, columns: "message_stats,queue_totals" }));
  const samples = (group, name) => [...(told[group]?.[`${name}_details`]?.samples ?? [])].reverse();
  const points = new Map();
  const put = (id, list) => list.forEach(({ t, value }) => points.set(t, { ...points.get(t), t, [id]: value }));
  const rates = (name) => samples("message_stats", name).slice(1).map((sample, index) => {
    const before = samples("message_stats", name)[index];
    return { t: sample.timestamp, value: Math.max(0, ((sample.sample - before.sample) * 1000) / (sample.timestamp - before.timestamp)) };
  });
  put("publish", rates("publish"));
  put("deliver", rates("deliver_get"));
  put("ack", rates("ack"));
  put("redeliver", rates("redeliver"));
  for (const [id, name] of [["ready", "messages_ready"], ["unacked", "messages_unacknowledged"], ["delayed", "messages_delayed"]]) {
    put(id, samples("queue_totals", name).map((sample) => ({ t: sample.timestamp, value: sample.sample })));
  }
  seedHistory("overview", [...points.values()].filter((point) => point.publish !== undefined && point.ready !== undefined).sort((one, other) => one.t - other.t));
}

const countersOf = ({ time_in_queue, time_to_ack, syncs, sync_us }) => ({
  waits: time_in_queue.count, wait_ms: time_in_queue.sum_ms, runs: time_to_ack.count, run_ms: time_to_ack.sum_ms, syncs, sync_ms: sync_us / 1000,
});

/** What took how long between two points, in the mean; nothing where nothing happened, or a queue that was counted is gone. */
function meansOf(before, { t, ...now }) {
  const mean = (sum, count) => (now[count] > before[count] && now[sum] >= before[sum] ? (now[sum] - before[sum]) / (now[count] - before[count]) : undefined);
  return { t, wait: mean("wait_ms", "waits"), run: mean("run_ms", "runs"), sync: mean("sync_ms", "syncs") };
}

const milliseconds = (ms) => (ms >= 60_000 ? duration(ms) : ms >= 1_000 ? `${+(ms / 1_000).toPrecision(2)} s` : `${+ms.toPrecision(2)} ms`);

export function Overview({ me }) {
  const sees = me.tags.some((tag) => tag === "administrator" || tag === "monitoring");
  const [overview, queues, nodes, vitals] = useLive(OVERVIEW, BUSIEST, sees && NODES, sees && "/page/vitals");
  const [, setSeeded] = useState(false);
  useEffect(() => {
    remember().then(() => setSeeded(true), () => {});
  }, []);
  const node = isTold(nodes) ? nodes[0] : undefined;
  const stats = overview?.message_stats ?? {};
  const totals = overview?.queue_totals ?? {};
  const points = useHistory("overview", isTold(overview) && {
    publish: rateOf(stats, "publish"), deliver: rateOf(stats, "deliver_get"), ack: rateOf(stats, "ack"), redeliver: rateOf(stats, "redeliver"),
    ready: totals.messages_ready, unacked: totals.messages_unacknowledged, delayed: totals.messages_delayed,
  });
  const machine = useHistory("machine", node && isTold(vitals) && { memory: node.mem_used, ...countersOf(vitals) });
  const means = machine.map((point, index) => meansOf(machine[Math.max(0, index - 5)], point));
  if (overview?.refused) return html`<h1>Overview</h1><${Refusal} text=${overview.refused} />`;
  return html`<h1>Overview</h1>
    <${Alarms} node=${node} vitals=${isTold(vitals) ? vitals : undefined} queues=${queues?.items} />
    <dl class="tiles">
      <${Tile} name="Waiting" value=${count(totals.messages_ready)} href="#/queues?sort=messages_ready&down=1" />
      <${Tile} name="Running" value=${count(totals.messages_unacknowledged)} href="#/running" />
      <${Tile} name="Delayed" value=${count(totals.messages_delayed)} href="#/queues?sort=messages_delayed&down=1" />
      ${isTold(vitals) && html`<${Tile} name="Oldest waiting" value=${duration(vitals.oldest_ready_age_ms)} href="#/queues?sort=oldest_ready_age_ms&down=1" />
      <${Tile} name="Oldest running" value=${duration(vitals.oldest_unacked_age_ms)} href="#/queues?sort=oldest_unacked_age_ms&down=1" />
      <${Tile} name="Forgotten acks" value=${count(vitals.late_leases)} kind=${vitals.late_leases ? "warn" : ""} href="#/running" />`}
    </dl>
    <div class="charts">
      <${Chart} title="Messages a second" series=${RATES} points=${points} format=${rate} />
      <${Chart} title="Messages in queues" series=${DEPTHS} points=${points} format=${count} isWhole=${true} />
    </div>
    ${node && html`<div class="charts three"><${Chart} title="Times of jobs" series=${TIMES} points=${means} height=${130} format=${milliseconds} />
      <${Chart} title="Sync latency" series=${[{ id: "sync", label: "Mean" }]} points=${means} height=${130} format=${milliseconds} />
      <${Chart} title="Memory" series=${[{ id: "memory", label: `of ${bytes(node.mem_limit)} allowed` }]} points=${machine} height=${130} format=${(n, isTick) => bytes(n, isTick)} /></div>`}
    <section class="card"><div class="line"><h2>Longest queues</h2><a href="#/queues">All ${plural(overview?.object_totals?.queues ?? 0, "queue")}</a></div>
      <${Table} caption="Longest queues" rows=${queues?.items} id=${(queue) => `${queue.vhost} ${queue.name}`} mark=${(queue) => (queue.late_leases ? "late" : "")}
        empty="There is no queue yet. Declare one from a client, or under Queues." columns=${[
          { label: "Queue", isMain: true, cell: (queue) => html`<a href=${"#" + at("queue", queue.vhost, queue.name)}>${queue.name}</a>${queue.vhost !== "/" && html` <small>${queue.vhost}</small>`}` },
          { label: "Waiting", isNumber: true, cell: (queue) => count(queue.messages_ready) },
          { label: "Running", isNumber: true, isWide: true, cell: (queue) => count(queue.messages_unacknowledged) },
          { label: "Delayed", isNumber: true, isWide: true, cell: (queue) => count(queue.messages_delayed) },
          { label: "Oldest", isNumber: true, cell: (queue) => duration(queue.oldest_ready_age_ms) },
          { label: "Consumers", isNumber: true, isWide: true, cell: (queue) => count(queue.consumers) },
          { label: "State", cell: (queue) => html`<${State} queue=${queue} />` },
        ]} /></section>
    <div class="halves">
      <section class="card"><h2>Objects and churn</h2><${Churn} overview=${overview} /></section>
      <section class="card"><h2>Server</h2><${Facts} of=${[
        ["Cluster", overview?.cluster_name],
        ["Version", overview?.product_version && `Leveret ${overview.product_version}`],
        node && ["Up for", duration(node.uptime)],
        node && ["Free disk", html`${bytes(node.disk_free)} <small>publishers wait below ${bytes(node.disk_free_limit)}</small>`],
        node && ["Open files", `${count(node.fd_used)} of ${count(node.fd_total)}`],
      ]} />
      <h3>Listeners</h3><ul class="inline">${(overview?.listeners ?? []).map((listener) => html`<li><${Badge}>${listener.protocol}<//> <code>${listener.ip_address.includes(":") ? `[${listener.ip_address}]` : listener.ip_address}:${listener.port}</code></li>`)}</ul></section>
    </div>`;
}

/** What a queue is in, as a word. */
export function State({ queue }) {
  if (queue.state === "paused") return html`<${Badge} kind="warn">paused<//>`;
  if (queue.late_leases) return html`<${Badge} kind="bad">${plural(queue.late_leases, "forgotten ack")}<//>`;
  if (!queue.consumers && queue.messages_ready) return html`<${Badge} kind="warn">no consumer<//>`;
  return queue.messages_unacknowledged || queue.consumers ? html`<${Badge} kind="good">working<//>` : html`<${Badge}>idle<//>`;
}

function Alarms({ node, vitals }) {
  const alarms = [
    node?.mem_alarm && ["bad", html`<b>Memory is short.</b> Publishers are blocked: ${bytes(node.mem_used)} of ${bytes(node.mem_limit)} are used. Let consumers catch up, or raise the limit.`],
    node?.disk_free_alarm && ["bad", html`<b>The disk is nearly full.</b> Publishers are blocked: ${bytes(node.disk_free)} are free, ${bytes(node.disk_free_limit)} are wanted. Make room.`],
    vitals?.late_leases > 0 && ["warn", html`<b>${plural(vitals.late_leases, "delivery is", "deliveries are")} unacknowledged for longer than half of the timeout.</b> Somebody forgot, or a job hangs. <a href="#/running">Show them</a>`],
    vitals?.paused > 0 && ["", html`${plural(vitals.paused, "queue is", "queues are")} paused. <a href="#/queues?sort=state">Show them</a>`],
  ].filter(Boolean);
  return html`<div role="status" class="alarms">${alarms.map(([kind, text]) => html`<p class=${`notice ${kind}`}>${text}</p>`)}</div>`;
}

function Churn({ overview }) {
  const objects = overview?.object_totals ?? {};
  const churn = overview?.churn_rates ?? {};
  const made = (name) => rate(rateOf(churn, name));
  return html`<table class="small"><caption class="unseen">Objects</caption><thead><tr><th scope="col">Kind</th><th scope="col" class="number">There</th><th scope="col" class="number">Made</th><th scope="col" class="number">Gone</th></tr></thead><tbody>
    <tr><th scope="row"><a href="#/clients">Connections</a></th><td class="number">${count(objects.connections)}</td><td class="number">${made("connection_created")}</td><td class="number">${made("connection_closed")}</td></tr>
    <tr><th scope="row"><a href="#/clients?tab=channels">Channels</a></th><td class="number">${count(objects.channels)}</td><td class="number">${made("channel_created")}</td><td class="number">${made("channel_closed")}</td></tr>
    <tr><th scope="row"><a href="#/queues">Queues</a></th><td class="number">${count(objects.queues)}</td><td class="number">${made("queue_created")}</td><td class="number">${made("queue_deleted")}</td></tr>
    <tr><th scope="row"><a href="#/clients?tab=consumers">Consumers</a></th><td class="number">${count(objects.consumers)}</td><td></td><td></td></tr>
    <tr><th scope="row"><a href="#/exchanges">Exchanges</a></th><td class="number">${count(objects.exchanges)}</td><td></td><td></td></tr>
  </tbody></table>`;
}
