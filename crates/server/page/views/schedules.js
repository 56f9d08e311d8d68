// Messages that are published again and again, by cron or by interval.
import { html } from "../vendor/htm-preact.js";
import { ask, at } from "../api.js";
import { askFor, attempt, Menu } from "../dialog.js";
import { count, duration, moment, until } from "../format.js";
import { useClock, usePolled } from "../live.js";
import { Badge, Refusal, Table } from "../table.js";
import { parse, useVhosts } from "./queues.js";

export function Schedules() {
  const vhosts = useVhosts();
  const { data, refused, refresh } = usePolled("/schedules", 5);
  const now = useClock();
  const self = (schedule, ...more) => at("schedules", schedule.vhost, schedule.name, ...more);
  const act = async (run, text) => {
    if (await attempt(run, text)) refresh();
  };
  const edit = (schedule) => askFor({
    title: schedule ? `Schedule ${schedule.name}` : "New schedule", action: "Set",
    fields: [
      !schedule && { name: "name", label: "Name", required: true },
      !schedule && vhosts.length > 1 && { name: "vhost", label: "Virtual host", type: "select", value: vhosts[0], options: vhosts.map((name) => [name, name]) },
      { name: "when", label: "When", required: true, value: schedule ? schedule.cron ?? `every ${schedule.every_ms / 1000} s` : "0 3 * * *", hint: "cron, or: every 30 s" },
      { name: "zone", label: "Time zone, for cron", value: schedule?.time_zone ?? "UTC" },
      { name: "exchange", label: "Exchange", value: schedule?.exchange ?? "", hint: "none = the default: the key is a queue" },
      { name: "key", label: "Routing key", value: schedule?.routing_key ?? "" },
      { name: "missed", label: "Missed while the server was down", type: "select", value: schedule?.if_missed ?? "skip", options: [["skip", "leave out"], ["one", "once"], ["all", "all of them"]] },
      { name: "payload", label: "Body", type: "area", rows: 4, value: schedule?.payload ?? "" },
      { name: "properties", label: "Properties, as JSON", type: "area", rows: 2, value: JSON.stringify(schedule?.properties ?? { content_type: "application/json" }) },
    ].filter(Boolean),
    run: async (form) => {
      const every = /^every\s+([\d.]+)\s*(ms|s|min|h)?$/i.exec(form.when.trim());
      const timing = every ? { every_ms: Number(every[1]) * { ms: 1, s: 1000, min: 60_000, h: 3_600_000 }[every[2] ?? "s"] } : { cron: form.when.trim(), time_zone: form.zone };
      await ask("PUT", schedule ? self(schedule) : at("schedules", form.vhost ?? vhosts[0] ?? "/", form.name), {
        ...timing, exchange: form.exchange, routing_key: form.key, if_missed: form.missed, payload: form.payload,
        payload_encoding: schedule?.payload_encoding ?? "string", properties: form.properties ? parse(form.properties) : {},
        ...(schedule && { enabled: schedule.enabled }),
        ...(schedule?.start_at && { start_at: schedule.start_at }), ...(schedule?.end_at && { end_at: schedule.end_at }),
      });
      refresh();
      return "The schedule is set.";
    },
  });
  const remove = (schedule) => askFor({
    title: `Delete the schedule ${schedule.name}?`, action: "Delete", isDanger: true, text: "Nothing more is published by it.",
    run: async () => {
      await ask("DELETE", self(schedule));
      refresh();
      return `${schedule.name} is deleted.`;
    },
  });
  return html`<div class="line"><h1>Schedules</h1><button type="button" class="primary" onClick=${() => edit()}>New schedule</button></div>
    ${refused ? html`<${Refusal} text=${refused} />` : html`<${Table} caption="Schedules" rows=${data} id=${(schedule) => `${schedule.vhost} ${schedule.name}`} empty="There is no schedule. One publishes a message by cron or by interval, without a client." columns=${[
      { label: "Schedule", isMain: true, cell: (schedule) => html`${schedule.name}${vhosts.length > 1 && html` <small>${schedule.vhost}</small>`}` },
      { label: "When", cell: (schedule) => (schedule.cron ? html`<code>${schedule.cron}</code> <small>${schedule.time_zone}</small>` : `every ${duration(schedule.every_ms)}`) },
      { label: "Publishes to", isWide: true, cell: (schedule) => html`${schedule.exchange || "(default)"} <code>${schedule.routing_key}</code>` },
      { label: "Next", isNumber: true, cell: (schedule) => (schedule.next_at ? html`<span title=${moment(schedule.next_at)}>${until(schedule.next_at, now)}</span>` : "–") },
      { label: "Last", isNumber: true, isWide: true, cell: (schedule) => moment(schedule.last_at) },
      { label: "Fired", isNumber: true, isWide: true, cell: (schedule) => html`${count(schedule.fired)}${schedule.failed > 0 && html` <${Badge} kind="bad">${count(schedule.failed)} failed<//>`}` },
      { label: "State", cell: (schedule) => html`<${Badge} kind=${schedule.last_error ? "bad" : schedule.enabled ? "good" : "warn"}>${schedule.enabled ? schedule.state : "paused"}<//>${schedule.last_error && html`<small class="preview">${schedule.last_error}</small>`}` },
      { label: html`<span class="unseen">Actions</span>`, cell: (schedule) => html`<span class="buttons"><button type="button" onClick=${() => act(() => ask("POST", self(schedule, "fire")), ({ routed, reason }) => (routed ? `${schedule.name} is published.` : `It went nowhere: ${reason ?? "nothing is bound"}.`))}>Run now</button>
        <${Menu} label="More" items=${[
          [schedule.enabled ? "Pause" : "Resume", () => act(() => ask("PUT", self(schedule, schedule.enabled ? "pause" : "resume")), `${schedule.name} is ${schedule.enabled ? "paused" : "running"}.`)],
          ["Change…", () => edit(schedule)],
          ["Delete…", () => remove(schedule), true],
        ]} /></span>` },
    ]} />`}`;
}
