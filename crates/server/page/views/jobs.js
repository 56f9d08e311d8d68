// Jobs: the messages of a queue that wait, are retried, run or are dead; all that run anywhere.
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { askFor, attempt, open } from "../dialog.js";
import { bytes, count, duration, moment, plural, until } from "../format.js";
import { useClock, usePolled } from "../live.js";
import { Message, deaths, failure, preview, title } from "../message.js";
import { Badge, Refusal, Table, useSelection } from "../table.js";

/** What can be looked for, by the API's names. */
const FIELDS = [
  ["body", "Body contains"],
  ["property.message_id", "Message id is"],
  ["routing_key", "Routing key is"],
  ["header", "Header name=value"],
  ["property.type", "Type is"],
  ["property.correlation_id", "Correlation id is"],
];

const PAGE = 25;
const SHOWN_BYTES = 240;

/** The filter that the search stands for: `{ key: value }`, or null. */
function filterOf({ field, text }) {
  if (!text) return null;
  if (field !== "header") return { [field]: text };
  const [name, ...value] = text.split("=");
  return value.length ? { [`header.${name.trim()}`]: value.join("=") } : null;
}

/**
 * The messages of `queue` in this state. `only` is a filter that always holds: `{ key: value }`. `home` is the queue that
 * dead letters came from, where that is known.
 */
export function Jobs({ vhost, queue, state, only, home, kind, refreshed }) {
  const [search, setSearch] = useState({ field: "body", text: "" });
  const [draft, setDraft] = useState("");
  const [more, setMore] = useState(null);
  const selection = useSelection();
  const filter = { ...only, ...filterOf(search) };
  const messages = at("queues", vhost, queue, "messages");
  const path = messages + query({ state, count: PAGE, truncate: SHOWN_BYTES, ...filter });
  const { data, refused, refresh, isOld } = usePolled(path, selection.list.length || more ? 0 : 5);
  const now = useClock();
  useEffect(() => {
    refresh();
  }, [refreshed]);
  useEffect(() => {
    setMore(null);
    selection.clear();
  }, [path]);
  const items = data && !isOld ? [...data.items, ...(more?.items ?? [])] : undefined;
  const next = more ? more.next : data?.next;
  const again = () => {
    selection.clear();
    setMore(null);
    refresh();
  };
  const bulk = actions({ vhost, queue, state, kind, home, done: again });
  const chosen = items?.filter((message) => selection.has(message.seq)) ?? [];
  const isDead = kind === "dead" || items?.some((message) => deaths(message).length);
  const show = (message) => open(title(message), ({ close }) => html`<${Job} vhost=${vhost} queue=${queue} seq=${message.seq} first=${message} bulk=${bulk} close=${close} />`);
  const submit = (event) => {
    event.preventDefault();
    setSearch((old) => ({ ...old, text: draft }));
  };
  return html`<form class="tools" onSubmit=${submit} role="search">
      <select aria-label="Look for" value=${search.field} onChange=${(event) => setSearch({ field: event.target.value, text: draft })}>${FIELDS.map(([id, label]) => html`<option value=${id}>${label}</option>`)}</select>
      <label class="search"><span class="unseen">What to look for</span><input type="search" value=${draft} placeholder=${search.field === "header" ? "tenant=acme" : "Find a job"} spellcheck="false" autocomplete="off"
        onInput=${(event) => { setDraft(event.target.value); if (!event.target.value) setSearch((old) => ({ ...old, text: "" })); }} /></label>
      <button type="submit">Find</button>
      <button type="button" class="plain" onClick=${again}>Refresh</button>
      ${search.text && data && html`<small role="status">${plural(items?.length ?? 0, "job")} found, ${count(data.passed_over)} passed over${next ? " so far" : ""}</small>`}
    </form>
    ${selection.list.length > 0 && html`<div class="chosen" role="group" aria-label="What to do with the chosen jobs"><b>${count(selection.list.length)} chosen</b>
      ${bulk.map((action) => html`<button type="button" class=${action.isDanger ? "danger" : ""} onClick=${() => action.run(selection.list, chosen)}>${action.label}</button>`)}
      <button type="button" class="plain" onClick=${selection.clear}>Clear</button></div>`}
    ${refused ? html`<${Refusal} text=${refused} />` : html`<${Table} caption=${`Jobs of ${queue}`} rows=${items} id=${(message) => message.seq} selection=${selection}
      empty=${search.text ? "No job is like that." : EMPTY[kind ?? state]} columns=${[
        { label: "Job", isMain: true, cell: (message) => html`<button type="button" class="link" onClick=${() => show(message)}>${title(message)}</button><small class="preview">${preview(message)}</small>` },
        isDead && { label: "Why", cell: (message) => html`<span class="reason">${failure(message)?.reason ?? "–"}</span><small class="preview">${lastLine(failure(message)?.details)}</small>` },
        isDead && kind !== "dead" && { label: "Died in", isWide: true, cell: (message) => deaths(message)[0]?.queue },
        isDead && { label: "Died", isNumber: true, isWide: true, cell: (message) => (deaths(message)[0] ? moment(deaths(message)[0].time * 1000) : "–") },
        state === "delayed" && { label: "Due", isNumber: true, cell: (message) => html`<span title=${moment(message.due_at)}>${until(message.due_at, now)}</span>` },
        state === "delayed" && { label: "Why it waits", cell: (message) => (message.delivery_count ? html`<${Badge} kind="warn">retry after ${plural(message.delivery_count, "failure")}<//>${failure(message) && html`<small class="preview">${failure(message).reason}</small>`}` : html`<${Badge}>delayed<//>`) },
        state !== "delayed" && !isDead && { label: "Failed", isNumber: true, cell: (message) => count(message.delivery_count) },
        !isDead && { label: "Routing key", isWide: true, cell: (message) => html`<code>${message.routing_key}</code>` },
        { label: "Size", isNumber: true, isWide: true, cell: (message) => bytes(message.payload_bytes) },
      ]} />`}
    ${next && items?.length >= PAGE && html`<p class="pager"><button type="button" onClick=${async () => {
      await attempt(async () => {
        const answer = await ask("GET", messages + query({ from: next, count: PAGE, truncate: SHOWN_BYTES, ...filter }));
        setMore({ items: [...(more?.items ?? []), ...answer.items], next: answer.items.length ? answer.next : null });
      });
    }}>Show more</button></p>`}`;
}

const EMPTY = {
  ready: "No job waits.",
  delayed: "No job waits for a time or for its next try.",
  dead: "No dead job. What fails too often, expires or is rejected comes here.",
};

const lastLine = (details) => details?.trim().split("\n").at(-1)?.slice(0, 120);

/** What can be done with messages, one or many: { label, run(seqs, messages), isDanger }. */
function actions({ vhost, queue, state, kind, home, done }) {
  const messages = (...names) => at("queues", vhost, queue, "messages", ...names);
  const after = async (run, text) => {
    if (await attempt(run, text)) done();
  };
  const move = (seqs) => askFor({
    title: `Move ${plural(seqs.length, "job")}`, action: "Move", text: "They are new there: failed deliveries are counted anew.",
    fields: [{ name: "to", label: "To the queue", required: true, wide: true, value: home ?? "" }],
    run: async ({ to }) => {
      const result = await ask("POST", messages("move"), { seqs, to_queue: to });
      done();
      return told(result.moved, "moved", result);
    },
  });
  const remove = (seqs) => askFor({
    title: `Delete ${plural(seqs.length, "job")}?`, action: "Delete", isDanger: true, text: "They are dropped for good and do not become dead letters.",
    run: async () => {
      const { deleted } = await ask("POST", messages("delete"), { seqs });
      done();
      return told(deleted, "deleted");
    },
  });
  // A dead letter goes back to the queue where it died last.
  const retryDead = (seqs, chosen) => after(async () => {
    const groups = new Map();
    for (const message of chosen) {
      const to = home ?? deaths(message)[0]?.queue;
      if (!to) throw new Error(`Nothing says where ${title(message)} came from: move it instead.`);
      groups.set(to, [...(groups.get(to) ?? []), message.seq]);
    }
    let moved = 0;
    for (const [to, part] of groups) moved += (await ask("POST", messages("move"), { seqs: part, to_queue: to })).moved;
    return moved;
  }, (moved) => told(moved, "back in the queue"));
  const isDead = kind === "dead" || kind === "letters";
  return [
    isDead && { label: "Retry", run: retryDead },
    state === "delayed" && { label: "Retry now", run: (seqs) => after(() => ask("POST", messages("release"), { seqs }), ({ released }) => told(released, "due now")) },
    state === "ready" && !isDead && { label: "To the end", run: (seqs) => after(() => ask("POST", messages("requeue"), { seqs }), ({ requeued }) => told(requeued, "at the end of the queue")) },
    { label: "Move…", run: move },
    { label: "Delete…", run: remove, isDanger: true },
  ].filter(Boolean);
}

function told(number, words, { unroutable, refused } = {}) {
  if (refused) return `${plural(number, "job")} ${words}; the other queue is full.`;
  if (unroutable) return `${plural(number, "job")} ${words}; ${count(unroutable)} had nowhere to go.`;
  return number ? `${plural(number, "job")} ${words}.` : "Nothing was done: the jobs have gone on meanwhile.";
}

/** One job in a dialog, with its whole body. */
function Job({ vhost, queue, seq, first, bulk, close }) {
  const [message, setMessage] = useState(first);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    ask("GET", at("queues", vhost, queue, "messages", seq) + "?truncate=262144").then(setMessage, (refused) => setProblem(refused.message));
  }, [seq]);
  return html`<div class="job"><p class="line"><span>in <b>${queue}</b>, number ${seq}</span></p>
    <p class="problem" role="alert">${problem}</p>
    <${Message} message=${message} />
    <div class="actions">${bulk.map((action) => html`<button type="button" class=${action.isDanger ? "danger" : action.label.startsWith("Retry") ? "primary" : ""}
      onClick=${() => { close(true); action.run([seq], [message]); }}>${action.label}</button>`)}</div></div>`;
}

/** Deliveries that somebody holds. `queue` is left out for all of them. */
export function Leases({ vhost, queue, refreshed }) {
  const path = queue ? at("queues", vhost, queue, "leases") + "?count=50" : "/leases?count=200";
  const { data, refused, refresh, at: asked } = usePolled(path, 5);
  const now = useClock();
  useEffect(() => {
    refresh();
  }, [refreshed]);
  if (refused) return html`<${Refusal} text=${refused} />`;
  const passed = asked ? Math.max(0, now - asked) : 0;
  const leases = (data?.items ?? (Array.isArray(data) ? data : undefined))?.map((lease) => ({
    ...lease, age: lease.age_ms + passed, left: lease.left_ms === null || lease.left_ms === undefined ? null : Math.max(0, lease.left_ms - passed),
  }));
  leases?.sort((one, other) => other.age - one.age);
  const of = (lease) => at("queues", lease.queue.vhost, lease.queue.name, "leases", String(lease.seq));
  const extend = (lease) => askFor({
    title: "More time for this job", action: "Extend",
    fields: [{ name: "minutes", label: "Minutes from now", type: "number", min: 1, value: 30, required: true }],
    run: async ({ minutes }) => {
      await ask("PUT", of(lease), { ms: Number(minutes) * 60_000 });
      refresh();
      return "It has more time.";
    },
  });
  const takeBack = (lease) => askFor({
    title: "Take this job from its worker?", action: "Take back", isDanger: true,
    text: "It goes back to its place in the queue as a failed delivery; another worker gets it, while this one may still be at it.",
    run: async () => {
      await ask("DELETE", of(lease));
      refresh();
      return "It is back in its queue.";
    },
  });
  const show = (lease) => open(`Job ${lease.seq}`, ({ close }) => html`<${RunningJob} lease=${lease} close=${close} />`);
  return html`<${Table} caption="Running jobs" rows=${leases} id=${(lease) => `${lease.queue.vhost} ${lease.queue.name} ${lease.seq}`} mark=${(lease) => (isLate(lease) ? "late" : "")} empty="No job runs." columns=${[
    { label: "Job", isMain: true, cell: (lease) => html`<button type="button" class="link" onClick=${() => show(lease)}>#${lease.seq}</button>` },
    !queue && { label: "Queue", cell: (lease) => html`<a href=${"#" + at("queue", lease.queue.vhost, lease.queue.name)}>${lease.queue.name}</a>` },
    { label: "Worker", isWide: true, cell: (lease) => html`${lease.consumer_tag || "taken by basic.get"}<small class="preview">${lease.client_name ?? lease.channel_details?.connection_name}</small>` },
    { label: "Runs for", isNumber: true, cell: (lease) => html`<span class=${isLate(lease) ? "late-text" : ""}>${duration(lease.age)}</span>` },
    { label: "Time left", isNumber: true, cell: (lease) => (lease.left === null ? "for ever" : html`${duration(lease.left)}<span class="meter" aria-hidden="true"><i style=${{ width: `${Math.round((100 * lease.left) / (lease.left + lease.age || 1))}%` }}></i></span>`) },
    leases?.some((lease) => lease.progress) && { label: "Progress", cell: (lease) => (typeof lease.progress === "number" ? html`<progress max="100" value=${lease.progress} aria-label="Progress"></progress><small>${lease.progress} %</small>` : lease.progress ?? "") },
    { label: "State", isWide: true, cell: (lease) => (isLate(lease) ? html`<${Badge} kind="bad">forgotten?<//>` : lease.extended ? html`<${Badge}>extended<//>` : html`<${Badge} kind="good">running<//>`) },
    { label: html`<span class="unseen">Actions</span>`, cell: (lease) => html`<span class="buttons"><button type="button" onClick=${() => extend(lease)}>Extend…</button><button type="button" class="danger" onClick=${() => takeBack(lease)}>Take back…</button></span>` },
  ]} />`;
}

/** Held for longer than half of its time. */
const isLate = (lease) => lease.left !== null && !lease.extended && lease.age > lease.left;

function RunningJob({ lease, close }) {
  const [message, setMessage] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    ask("GET", at("queues", lease.queue.vhost, lease.queue.name, "messages", String(lease.seq)) + "?truncate=262144").then(setMessage, (refused) => setProblem(refused.message));
  }, []);
  return html`<div class="job"><p class="problem" role="alert">${problem}</p>${message && html`<${Message} message=${message} />`}
    <div class="actions"><button type="button" onClick=${() => close(true)}>Close</button></div></div>`;
}

/** `#/running` */
export function Running() {
  return html`<h1>Running jobs</h1><p class="lead">Deliveries that a worker holds and has not acknowledged, the longest first. What is held for longer than half of its time is marked.</p><${Leases} />`;
}
