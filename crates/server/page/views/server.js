// The server itself: definitions in and out, the log's latest lines, its settings.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { ask } from "../api.js";
import { askFor, attempt } from "../dialog.js";
import { bytes, count, duration } from "../format.js";
import { usePolled } from "../live.js";
import { Facts, Refusal, Table } from "../table.js";
import { may } from "./policies.js";

export function Server({ me }) {
  const { data: nodes, refused } = usePolled("/nodes", 5);
  const node = nodes?.[0];
  const isAdministrator = may(me, "administrator");
  return html`<h1>Server</h1>
    ${refused ? html`<${Refusal} text=${refused} />` : html`<div class="halves"><section class="card"><h2>${node?.name ?? "Node"}</h2><${Facts} of=${node ? [
      ["Up for", duration(node.uptime)],
      ["Memory", html`${bytes(node.mem_used)} <small>publishers wait above ${bytes(node.mem_limit)}</small>`],
      ["Free disk", html`${bytes(node.disk_free)} <small>publishers wait below ${bytes(node.disk_free_limit)}</small>`],
      ["Open files", `${count(node.fd_used)} of ${count(node.fd_total)}`],
      ["Cores", count(node.processors)],
      ["Data directory", html`<code>${node.db_dir}</code>`],
    ] : []} /></section>
    ${isAdministrator && html`<${Definitions} />`}</div>`}
    ${isAdministrator && html`<${Log} /><${Settings} />`}`;
}

function Definitions() {
  const file = useRef();
  const download = () => attempt(async () => {
    const definitions = await ask("GET", "/definitions");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(definitions, null, 2)], { type: "application/json" }));
    link.download = `definitions-${new Date().toISOString().slice(0, 10)}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const upload = async (event) => {
    const [chosen] = event.target.files;
    event.target.value = "";
    if (!chosen) return;
    let definitions;
    if (!(await attempt(async () => {
      definitions = JSON.parse(await chosen.text());
    }))) return;
    const parts = Object.entries(definitions).filter(([, value]) => Array.isArray(value) && value.length).map(([name, value]) => `${value.length} ${name.replace(/_/g, " ")}`);
    askFor({
      title: `Import ${chosen.name}?`, action: "Import", isDanger: true,
      text: `It has ${parts.join(", ") || "nothing"}. What is there already and has the same name is changed; nothing is deleted.`,
      run: async () => {
        await ask("POST", "/definitions", definitions);
        return "The definitions are imported.";
      },
    });
  };
  return html`<section class="card"><h2>Definitions</h2><p>Users, virtual hosts, permissions, policies, exchanges, queues, bindings and schedules, without messages, in RabbitMQ's form.</p>
    <p class="buttons"><button type="button" onClick=${download}>Download</button><button type="button" onClick=${() => file.current.click()}>Import…</button>
    <input ref=${file} class="unseen" type="file" accept="application/json,.json" aria-label="Definitions to import" tabindex="-1" onChange=${upload} /></p></section>`;
}

function Log() {
  const [lines, setLines] = useState([]);
  const [words, setWords] = useState("");
  const box = useRef();
  const last = useRef(0);
  useEffect(() => {
    const look = async () => {
      if (document.hidden) return;
      const news = await ask("GET", `/log?after=${last.current}`).catch(() => []);
      if (!news.length) return;
      last.current = news.at(-1).seq;
      const isAtEnd = !box.current || box.current.scrollHeight - box.current.scrollTop - box.current.clientHeight < 40;
      setLines((old) => [...old, ...news].slice(-500));
      if (isAtEnd) requestAnimationFrame(() => box.current && (box.current.scrollTop = box.current.scrollHeight));
    };
    look();
    const timer = setInterval(look, 2000);
    return () => clearInterval(timer);
  }, []);
  const shown = words ? lines.filter(({ text }) => text.toLowerCase().includes(words.toLowerCase())) : lines;
  const level = (text) => (/\bERROR\b/.test(text) ? "error" : /\bWARN\b/.test(text) ? "warn" : "");
  return html`<section class="card"><div class="line"><h2>Log</h2><label class="search"><span class="unseen">Show lines with</span><input type="search" placeholder="Show lines with" value=${words} onInput=${(event) => setWords(event.target.value)} /></label></div>
    ${lines.length ? html`<pre class="log" ref=${box} tabindex="0" role="log" aria-live="off" aria-label="Latest lines of the log">${shown.map(({ seq, text }) => html`<span key=${seq} class=${level(text)}>${text}${"\n"}</span>`)}</pre>` : html`<p class="empty">Nothing was logged since the server started.</p>`}</section>`;
}

function Settings() {
  const { data, refused } = usePolled("/config/effective", 0);
  if (refused || !data) return null;
  const rows = Array.isArray(data) ? data : Object.entries(data).map(([key, value]) => ({ key, value }));
  const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  return html`<section class="card"><h2>Settings</h2><${Table} caption="Settings in effect" rows=${rows} id=${(row) => row.key ?? row.name} columns=${[
    { label: "Key", isMain: true, cell: (row) => html`<code>${row.key ?? row.name}</code>` },
    { label: "Value", cell: (row) => html`<code>${text(row.value)}</code>` },
    rows.some((row) => row.source) && { label: "From", isWide: true, cell: (row) => row.source },
  ]} /></section>`;
}
