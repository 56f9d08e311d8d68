// The frame: who is logged in, where one is, what stands around every view.
import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { logOut, session, whoAmI } from "./api.js";
import { Dialogs } from "./dialog.js";
import { pulse } from "./live.js";
import { Login } from "./views/login.js";
import { Overview } from "./views/overview.js";
import { Queues } from "./views/queues.js";
import { Queue } from "./views/queue.js";
import { Running } from "./views/jobs.js";
import { Exchange, Exchanges } from "./views/exchanges.js";
import { Clients } from "./views/clients.js";
import { Schedules } from "./views/schedules.js";
import { Policies, may } from "./views/policies.js";
import { Access } from "./views/access.js";
import { Audit } from "./views/audit.js";
import { Server } from "./views/server.js";

/** Where one can go: address, name, view, who sees it in the menu, icon. */
const PLACES = [
  ["", "Overview", Overview, "all", "M3 13h4v5H3zM8 8h4v10H8zM13 3h4v15h-4z"],
  ["queues", "Queues", Queues, "all", "M3 5h14M3 10h14M3 15h9"],
  ["running", "Running jobs", Running, "all", "M10 3a7 7 0 1 0 7 7M10 6v4l3 2"],
  ["exchanges", "Exchanges", Exchanges, "all", "M3 10h5M8 10l7-5M8 10h7M8 10l7 5"],
  ["clients", "Clients", Clients, "all", "M4 6h12v8H4zM8 17h4"],
  ["schedules", "Schedules", Schedules, "all", "M4 5h12v12H4zM4 9h12M7 3v3M13 3v3"],
  ["policies", "Policies", Policies, "policymaker", "M5 3h10v14H5zM8 7h4M8 10h4"],
  ["access", "Users & vhosts", Access, "administrator", "M10 9a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM4 17c0-4 3-6 6-6s6 2 6 6"],
  ["changes", "Changes", Audit, "monitoring", "M4 4h12v13H4zM7 8h6M7 11h6M7 14h3"],
  ["server", "Server", Server, "monitoring", "M3 4h14v5H3zM3 11h14v5H3zM6 6.5h1M6 13.5h1"],
];
const OTHERS = { queue: Queue, exchange: Exchange };

/** `#/queue/%2F/name?tab=dead`: the parts, decoded, and the rest. */
function address() {
  const [path, rest] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").map(decodeURIComponent), values: Object.fromEntries(new URLSearchParams(rest ?? "")) };
}

/** Changes what stands behind the `?` without a step in the browser's history. */
function setValues(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  const path = location.hash.split("?")[0] || "#/";
  history.replaceState(null, "", path + (kept.length ? "?" + new URLSearchParams(kept) : ""));
  dispatchEvent(new Event("hashchange"));
}

const THEMES = { auto: "System", light: "Light", dark: "Dark" };

function useTheme() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "auto");
  useEffect(() => {
    localStorage.setItem("theme", theme);
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, setTheme];
}

function Pulse() {
  const [state, setState] = useState(pulse.state);
  useEffect(() => {
    const look = () => setState(pulse.state);
    pulse.addEventListener("change", look);
    return () => pulse.removeEventListener("change", look);
  }, []);
  const words = { live: "Live", resting: "Paused", lost: "Connecting…" };
  return html`<span class=${`pulse ${state}`} role="status"><span aria-hidden="true"></span>${words[state]}</span>`;
}

function Frame({ me, leave }) {
  const [where, setWhere] = useState(address());
  const [theme, setTheme] = useTheme();
  const [isOpen, setOpen] = useState(false);
  const main = useRef();
  const [place] = where.parts;
  useEffect(() => {
    const follow = () => setWhere(address());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const path = where.parts.join("/");
  const isFirst = useRef(true);
  useEffect(() => {
    setOpen(false);
    const heading = main.current.querySelector("h1");
    document.title = `${heading?.textContent ?? "Leveret"} · Leveret`;
    if (!isFirst.current) {
      heading?.setAttribute("tabindex", "-1");
      heading?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    isFirst.current = false;
  }, [path]);
  const entry = PLACES.find(([id]) => id === place);
  const View = entry?.[2] ?? OTHERS[place] ?? Lost;
  const current = { queue: "queues", exchange: "exchanges" }[place] ?? place;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <header class="bar">
      <button type="button" class="icon burger" aria-expanded=${isOpen} aria-controls="menu" aria-label="Menu" onClick=${() => setOpen(!isOpen)}>☰</button>
      <a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="24" height="24" />Leveret</a>
      <${Pulse} />
      <span class="theme"><select aria-label="Colours" value=${theme} onChange=${(event) => setTheme(event.target.value)}>
        ${Object.entries(THEMES).map(([id, label]) => html`<option value=${id}>${label}</option>`)}</select></span>
      <span class="me" title=${me.tags.join(", ")}>${me.name}</span>
      <button type="button" class="plain" onClick=${leave}>Log out</button>
    </header>
    <nav id="menu" class=${isOpen ? "menu-open" : ""} aria-label="Views"><ul>${PLACES.filter(([, , , tag]) => tag === "all" || may(me, tag)).map(([id, label, , , icon]) => html`
      <li><a href=${`#/${id}`} aria-current=${id === current ? "page" : undefined}><svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d=${icon} /></svg>${label}</a></li>`)}</ul></nav>
    <main id="main" ref=${main} tabindex="-1"><${View} key=${path} me=${me} parts=${where.parts.slice(1)} values=${where.values} setValues=${setValues} /></main>`;
}

const Lost = () => html`<h1>Nothing here</h1><p>There is no such view. <a href="#/">To the overview</a></p>`;

function App() {
  const [me, setMe] = useState(undefined);
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    whoAmI().then(setMe, () => setMe(null));
    const over = () => {
      setMe((old) => {
        if (old) setOver(true);
        return null;
      });
    };
    session.addEventListener("over", over);
    return () => session.removeEventListener("over", over);
  }, []);
  if (me === undefined) return null;
  const leave = async () => {
    await logOut();
    setOver(false);
    setMe(null);
  };
  return html`${me ? html`<${Frame} me=${me} leave=${leave} />` : html`<${Login} isOver=${isOver} enter=${async () => setMe(await whoAmI())} />`}<${Dialogs} />`;
}

document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
render(html`<${App} />`, document.getElementById("app"));
