// One message as people read it: why it failed, its history, headers, properties and body.
import { html, useState } from "./vendor/htm-preact.js";
import { bytes, count, moment } from "./format.js";
import { Facts, Tabs } from "./table.js";

const headersOf = (message) => message.properties?.headers ?? {};

/** Its deaths, the last first. */
export const deaths = (message) => [headersOf(message)["x-death"]].flat().filter((death) => death && typeof death === "object");

const WORDS = {
  rejected: "rejected by a worker",
  expired: "its time to live was over",
  maxlen: "the queue was full",
  delivery_limit: "it failed as often as it may",
};

/** Why it failed, as the worker or the broker says: { reason, details }; null if it did not. */
export function failure(message) {
  const headers = headersOf(message);
  const told = message.failure ?? {};
  const reason = (typeof told === "string" ? told : told.reason) ?? headers["x-failure-reason"];
  const details = told.details ?? headers["x-failure-details"];
  const [last] = deaths(message);
  if (reason || details) return { reason: text(reason ?? "failed"), details: details && text(details), at: told.time };
  return last ? { reason: WORDS[last.reason] ?? last.reason } : null;
}

/** What to call it: its id, else the beginning of its body. */
export function title(message) {
  return message.properties?.message_id || `#${message.seq}`;
}

/** The beginning of its body on one line. */
export function preview(message, length = 120) {
  if (message.payload_encoding === "base64") return `binary, ${bytes(message.payload_bytes)}`;
  return message.payload.replace(/\s+/g, " ").slice(0, length);
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function decode(message) {
  if (message.payload_encoding !== "base64") return new TextEncoder().encode(message.payload);
  return Uint8Array.from(atob(message.payload), (letter) => letter.charCodeAt(0));
}

function hex(octets) {
  const lines = [];
  for (let at = 0; at < Math.min(octets.length, 16_384); at += 16) {
    const part = [...octets.slice(at, at + 16)];
    const codes = part.map((octet) => octet.toString(16).padStart(2, "0")).join(" ").padEnd(48);
    const letters = part.map((octet) => (octet > 31 && octet < 127 ? String.fromCharCode(octet) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${codes} ${letters}`);
  }
  return lines.join("\n");
}

function pretty(payload) {
  try {
    const value = JSON.parse(payload);
    return typeof value === "object" ? JSON.stringify(value, null, 2) : null;
  } catch {
    return null;
  }
}

function Body({ message }) {
  const json = message.payload_encoding === "string" ? pretty(message.payload) : null;
  const forms = [json && ["json", "JSON"], message.payload_encoding === "string" && ["text", "Text"], ["hex", "Hex"]].filter(Boolean);
  const [form, setForm] = useState(forms[0][0]);
  const shown = form === "json" ? json : form === "text" ? message.payload : hex(decode(message));
  const isCut = decode(message).length < message.payload_bytes;
  return html`<section><div class="line"><h3>Body <small>${bytes(message.payload_bytes)}</small></h3>
      <div class="choice" role="group" aria-label="Show the body as">${forms.map(([id, label]) => html`<button type="button" aria-pressed=${id === form} onClick=${() => setForm(id)}>${label}</button>`)}</div></div>
    ${message.payload_bytes ? html`<pre class="code" tabindex="0" aria-label="Body">${shown}</pre>` : html`<p class="empty">The body is empty.</p>`}
    ${isCut && html`<small>Only the beginning is shown.</small>`}</section>`;
}

/** All of it. */
export function Message({ message }) {
  const { headers = {}, ...properties } = message.properties ?? {};
  const why = failure(message);
  const died = deaths(message);
  const own = Object.entries(headers).filter(([name]) => !/^x-(death|failure-(reason|details)|(first|last)-death-.*)$/.test(name));
  return html`
    ${why && html`<section class="why"><h3>Why it failed</h3><p><b>${why.reason}</b>${why.at > 0 && html` <small>${moment(why.at)}</small>`}</p>${why.details && html`<pre class="code" tabindex="0" aria-label="Details of the failure">${why.details}</pre>`}</section>`}
    <${Facts} of=${[
      ["State", message.state === "unacked" ? "running" : message.state === "delayed" ? `waits until ${moment(message.due_at)}` : "waiting"],
      ["Failed deliveries", count(message.delivery_count)],
      ["Exchange", message.exchange || "(default)"],
      ["Routing key", html`<code>${message.routing_key}</code>`],
      message.expires_at && ["Expires", moment(message.expires_at)],
      message.queue_priority > 0 && ["Priority", message.queue_priority],
      message.lease && ["Worker", message.lease.consumer_tag],
    ]} />
    <${Body} key=${message.seq} message=${message} />
    ${died.length > 0 && html`<section><h3>Deaths</h3><div class="scroll"><table><thead><tr><th scope="col">Queue</th><th scope="col">Reason</th><th scope="col" class="number">Times</th><th scope="col">Last</th></tr></thead>
      <tbody>${died.map((death) => html`<tr><th scope="row">${death.queue}</th><td>${death.reason}</td><td class="number">${count(death.count)}</td><td>${moment(death.time * 1000)}</td></tr>`)}</tbody></table></div></section>`}
    <${Values} name="Headers" of=${own} />
    <${Values} name="Properties" of=${Object.entries(properties)} />`;
}

const Values = ({ name, of }) => of.length > 0 && html`<section><h3>${name}</h3><dl class="values">${of.map(([key, value]) => html`<div><dt>${key}</dt><dd><code>${text(value)}</code></dd></div>`)}</dl></section>`;
