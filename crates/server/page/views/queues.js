// All queues: searched, sorted and paged by the server.
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { askFor } from "../dialog.js";
import { count, duration, rate, rateOf } from "../format.js";
import { useLive } from "../live.js";
import { Badge, Pager, Refusal, Search, Table } from "../table.js";
import { State } from "./overview.js";

const COLUMNS = "name,vhost,type,state,policy,messages_ready,messages_unacknowledged,messages_delayed,consumers,oldest_ready_age_ms,oldest_unacked_age_ms,late_leases,arguments.x-queue-type,message_stats.publish_details,message_stats.deliver_get_details,message_stats.ack_details";

/** The vhosts that the user may see. */
export function useVhosts() {
  const [vhosts, setVhosts] = useState([]);
  useEffect(() => {
    ask("GET", "/vhosts?columns=name").then((all) => setVhosts(all.map(({ name }) => name)), () => {});
  }, []);
  return vhosts;
}

export const VhostChoice = ({ vhosts, value, set }) => vhosts.length > 1 && html`<select aria-label="Virtual host" value=${value ?? ""} onChange=${(event) => set(event.target.value)}><option value="">All virtual hosts</option>${vhosts.map((name) => html`<option value=${name}>${name}</option>`)}</select>`;

export function Queues({ values, setValues }) {
  const vhosts = useVhosts();
  const page = Number(values.page ?? 1);
  const path = (values.vhost ? at("queues", values.vhost) : "/queues") + query({
    page, page_size: 50, name: values.name, use_regex: values.regex && "true", sort: values.sort, sort_reverse: values.down && "true", columns: COLUMNS,
  });
  const [answer] = useLive(path);
  const change = (next) => setValues({ ...values, page: undefined, ...next });
  useEffect(() => {
    // What is on a later page may have gone meanwhile.
    if (answer?.refused && page > 1) change({});
  }, [answer?.refused]);
  const sort = { by: values.sort ?? "name", isDown: !!values.down, set: (by, isDown) => change({ sort: by === "name" && !isDown ? undefined : by, down: isDown ? 1 : undefined }) };
  const number = (label, name, cell, isWide) => ({ label, sort: name, isNumber: true, isWide, cell });
  return html`<div class="line"><h1>Queues</h1><button type="button" class="primary" onClick=${() => declare(values.vhost ?? vhosts[0] ?? "/", vhosts)}>New queue</button></div>
    <div class="tools"><${Search} label="Search by name" value=${values.name ?? ""} set=${(name) => change({ name })} />
      <label class="flag"><input type="checkbox" checked=${!!values.regex} onChange=${(event) => change({ regex: event.target.checked ? 1 : undefined })} /> <span>Regular expression</span></label>
      <${VhostChoice} vhosts=${vhosts} value=${values.vhost} set=${(vhost) => change({ vhost })} /></div>
    ${answer?.refused ? html`<${Refusal} text=${answer.refused} />` : html`<${Table} caption="Queues" rows=${answer?.items} id=${(queue) => `${queue.vhost} ${queue.name}`} sort=${sort}
      mark=${(queue) => (queue.late_leases ? "late" : "")} empty=${values.name ? "No queue has such a name." : "There is no queue yet."} columns=${[
        { label: "Queue", sort: "name", isMain: true, cell: (queue) => html`<a href=${"#" + at("queue", queue.vhost, queue.name)}>${queue.name}</a>
          ${vhosts.length > 1 && html` <small>${queue.vhost}</small>`}${queue.type !== "classic" && html` <${Badge}>${queue.type}<//>`}${queue.policy && html` <small title="Policy">${queue.policy}</small>`}` },
        number("Waiting", "messages_ready", (queue) => count(queue.messages_ready)),
        number("Running", "messages_unacknowledged", (queue) => count(queue.messages_unacknowledged), true),
        number("Delayed", "messages_delayed", (queue) => count(queue.messages_delayed), true),
        number("Oldest waiting", "oldest_ready_age_ms", (queue) => duration(queue.oldest_ready_age_ms)),
        number("Oldest running", "oldest_unacked_age_ms", (queue) => duration(queue.oldest_unacked_age_ms), true),
        number("In", "message_stats.publish_details.rate", (queue) => rate(rateOf(queue.message_stats, "publish")), true),
        number("Out", "message_stats.deliver_get_details.rate", (queue) => rate(rateOf(queue.message_stats, "deliver_get")), true),
        number("Acks", "message_stats.ack_details.rate", (queue) => rate(rateOf(queue.message_stats, "ack")), true),
        number("Consumers", "consumers", (queue) => count(queue.consumers), true),
        { label: "State", sort: "state", cell: (queue) => html`<${State} queue=${queue} />` },
      ]} />
    <${Pager} page=${page} pageCount=${answer?.page_count} total=${answer?.filtered_count} of=${answer?.filtered_count === 1 ? "queue" : "queues"} set=${(next) => setValues({ ...values, page: next === 1 ? undefined : next })} />`}`;
}

function declare(vhost, vhosts) {
  askFor({
    title: "New queue", action: "Declare",
    fields: [
      { name: "name", label: "Name", required: true, wide: true },
      vhosts.length > 1 && { name: "vhost", label: "Virtual host", type: "select", value: vhost, options: vhosts.map((name) => [name, name]) },
      { name: "type", label: "Type", type: "select", value: "classic", options: [["classic", "classic"], ["quorum", "quorum"], ["stream", "stream"]] },
      { name: "limit", label: "Failed deliveries at most", type: "number", min: 0, hint: "then it is dead-lettered" },
      { name: "retry", label: "Pause before a retry, in seconds", type: "number", min: 0, hint: "twice as long each time" },
      { name: "dead", label: "Dead letters go to the queue", hint: "by the default exchange" },
      { name: "more", label: "More arguments, as JSON", type: "area", rows: 3 },
    ].filter(Boolean),
    run: async (values) => {
      const more = values.more ? parse(values.more) : {};
      const optional = (key, value) => (value === "" || value === undefined ? {} : { [key]: value });
      const retry = Number(values.retry) * 1000;
      await ask("PUT", at("queues", values.vhost ?? vhost, values.name), {
        durable: true,
        arguments: {
          ...optional("x-queue-type", values.type === "classic" ? "" : values.type),
          ...optional("x-delivery-limit", values.limit && Number(values.limit)),
          ...(retry ? { "x-delayed-retry-type": "all", "x-delayed-retry-min": retry, "x-delayed-retry-max": retry * 64, "x-delayed-retry-backoff": "exponential" } : {}),
          ...(values.dead ? { "x-dead-letter-exchange": "", "x-dead-letter-routing-key": values.dead } : {}),
          ...more,
        },
      });
      location.hash = at("queue", values.vhost ?? vhost, values.name);
      return `The queue ${values.name} is there.`;
    },
  });
}

/** JSON that somebody typed; says where it is wrong. */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${error.message}`);
  }
}

