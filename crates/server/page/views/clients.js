// Who is connected: connections, channels, consumers.
import { html } from "../vendor/htm-preact.js";
import { ask, at, query } from "../api.js";
import { askFor } from "../dialog.js";
import { bytes, count, duration, moment, plural, rate, rateOf } from "../format.js";
import { usePolled } from "../live.js";
import { Badge, Pager, Panel, Refusal, Search, Table, Tabs } from "../table.js";

const VIEWS = { connections: Connections, channels: Channels, consumers: Consumers };

export function Clients({ values, setValues }) {
  const tab = values.tab ?? "connections";
  const View = VIEWS[tab] ?? Connections;
  return html`<h1>Clients</h1>
    <${Tabs} label="Clients" tabs=${[["connections", "Connections"], ["channels", "Channels"], ["consumers", "Consumers"]]} chosen=${tab} set=${(next) => setValues({ tab: next })} />
    <${Panel} tab=${tab}><${View} key=${tab} values=${values} setValues=${setValues} /><//>`;
}

/** A page of a list, with its search. */
function Paged({ path, of, values, setValues, columns, id, hint }) {
  const page = Number(values.page ?? 1);
  const { data, refused, refresh } = usePolled(path + query({ page, page_size: 50, name: values.name }), 3);
  return html`<div class="tools"><${Search} label=${hint} value=${values.name ?? ""} set=${(name) => setValues({ ...values, name, page: undefined })} /></div>
    ${refused ? html`<${Refusal} text=${refused} />` : html`<${Table} caption=${of} rows=${data?.items} id=${id} columns=${columns(refresh)} empty=${`There are no ${of}.`} />
    <${Pager} page=${page} pageCount=${data?.page_count} total=${data?.filtered_count} of=${of} set=${(next) => setValues({ ...values, page: next === 1 ? undefined : next })} />`}`;
}

const nameOf = (connection) => connection.client_properties?.connection_name;

function Connections(props) {
  const close = (connection, refresh) => askFor({
    title: "Close this connection?", action: "Close it", isDanger: true,
    text: `${nameOf(connection) ?? connection.name} of ${connection.user}: its jobs go back to their queues. Most clients connect again by themselves.`,
    fields: [{ name: "reason", label: "What the client is told", value: "Closed via management plugin", wide: true }],
    run: async () => {
      await ask("DELETE", at("connections", connection.name));
      refresh();
      return "The connection is closed.";
    },
  });
  return html`<${Paged} ...${props} path="/connections" of="connections" hint="Search by address" id=${(connection) => connection.name} columns=${(refresh) => [
    { label: "Connection", isMain: true, cell: (connection) => html`${nameOf(connection) ?? connection.name}<small class="preview">${connection.name}</small>` },
    { label: "User", cell: (connection) => connection.user },
    { label: "Client", isWide: true, cell: (connection) => html`${connection.client_properties?.product} <small>${connection.client_properties?.version}</small>` },
    { label: "State", cell: (connection) => html`<${Badge} kind=${connection.state === "running" ? "good" : "warn"}>${connection.state}<//>${connection.ssl && html` <${Badge}>TLS<//>`}` },
    { label: "Channels", isNumber: true, cell: (connection) => count(connection.channels) },
    { label: "From client", isNumber: true, isWide: true, cell: (connection) => `${bytes(rateOf(connection, "recv_oct"))}/s` },
    { label: "To client", isNumber: true, isWide: true, cell: (connection) => `${bytes(rateOf(connection, "send_oct"))}/s` },
    { label: "Since", isNumber: true, isWide: true, cell: (connection) => html`<span title=${moment(connection.connected_at)}>${duration(Date.now() - connection.connected_at)}</span>` },
    { label: html`<span class="unseen">Actions</span>`, cell: (connection) => html`<button type="button" class="danger" onClick=${() => close(connection, refresh)}>Close…</button>` },
  ]} />`;
}

function Channels(props) {
  return html`<${Paged} ...${props} path="/channels" of="channels" hint="Search by address" id=${(channel) => channel.name} columns=${() => [
    { label: "Channel", isMain: true, cell: (channel) => channel.name },
    { label: "User", isWide: true, cell: (channel) => channel.user },
    { label: "Kind", cell: (channel) => html`${channel.confirm && html`<${Badge}>confirms<//>`}${channel.transactional && html`<${Badge}>transactions<//>`}` },
    { label: "Consumers", isNumber: true, isWide: true, cell: (channel) => count(channel.consumer_count) },
    { label: "Prefetch", isNumber: true, isWide: true, cell: (channel) => count(channel.prefetch_count) },
    { label: "Unacked", isNumber: true, cell: (channel) => count(channel.messages_unacknowledged) },
    { label: "Unconfirmed", isNumber: true, isWide: true, cell: (channel) => count(channel.messages_unconfirmed) },
    { label: "In", isNumber: true, cell: (channel) => rate(rateOf(channel.message_stats, "publish")) },
    { label: "Out", isNumber: true, cell: (channel) => rate(rateOf(channel.message_stats, "deliver_get")) },
  ]} />`;
}

function Consumers() {
  const { data, refused } = usePolled("/consumers", 5);
  if (refused) return html`<${Refusal} text=${refused} />`;
  const shown = data?.slice(0, 500);
  return html`<${Table} caption="Consumers" rows=${shown} id=${(consumer) => `${consumer.channel_details?.name} ${consumer.consumer_tag}`} empty="Nobody consumes." columns=${[
    { label: "Consumer", isMain: true, cell: (consumer) => consumer.consumer_tag },
    { label: "Queue", cell: (consumer) => html`<a href=${"#" + at("queue", consumer.queue.vhost, consumer.queue.name)}>${consumer.queue.name}</a>` },
    { label: "Channel", isWide: true, cell: (consumer) => html`<code>${consumer.channel_details?.name ?? "–"}</code>` },
    { label: "Prefetch", isNumber: true, cell: (consumer) => (consumer.prefetch_count ? count(consumer.prefetch_count) : html`<${Badge} kind="warn">no limit<//>`) },
    { label: "State", cell: (consumer) => html`<${Badge} kind=${consumer.active ? "good" : ""}>${consumer.active ? "active" : "waits"}<//>` },
  ]} /><p class="pager">${data && plural(data.length, "consumer")}${data?.length > 500 ? ", the first 500 are shown" : ""}</p>`;
}
