// Questions before something is done, and what is said after.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

let show = () => {};
let tell = () => {};

/**
 * Asks for confirmation or for values, and does it: `run(values)`; what that throws is shown, and the dialog stays.
 * Resolves to whether it was done. `fields`: { name, label, type, value, options, hint, required, wide }.
 */
export const askFor = (question) => new Promise((resolve) => show({ ...question, resolve }));

/** Shows something in a dialog: a component that is given `close`. */
export const open = (title, body) => new Promise((resolve) => show({ title, body, resolve, isLarge: true }));

/** Tells what happened, for a while. */
export const say = (text, kind = "good") => tell({ text, kind });

/** Does it and says so; a refusal is said, too. Returns whether it was done. */
export async function attempt(run, done) {
  try {
    const result = await run();
    const text = typeof done === "function" ? done(result) : done;
    if (text) say(text);
    return true;
  } catch (refused) {
    say(refused.message, "bad");
    return false;
  }
}

function Field({ field, value, set }) {
  const id = `field-${field.name}`;
  const hint = field.hint && `${id}-hint`;
  const common = {
    id, name: field.name, required: field.required, "aria-describedby": hint, autocomplete: field.autocomplete ?? "off",
    onInput: (event) => set(event.target.type === "checkbox" ? event.target.checked : event.target.value),
  };
  let input;
  if (field.type === "select") {
    input = html`<select ...${common} value=${value}>${field.options.map(([key, label]) => html`<option value=${key}>${label}</option>`)}</select>`;
  } else if (field.type === "area") {
    input = html`<textarea ...${common} rows=${field.rows ?? 6} spellcheck="false" value=${value}></textarea>`;
  } else if (field.type === "flag") {
    return html`<label class="flag wide"><input ...${common} type="checkbox" checked=${value} /> <span>${field.label}</span>
      ${field.hint && html`<small id=${hint}>${field.hint}</small>`}</label>`;
  } else {
    input = html`<input ...${common} type=${field.type ?? "text"} min=${field.min} value=${value} spellcheck="false" list=${field.list && `${id}-list`} />
      ${field.list && html`<datalist id=${`${id}-list`}>${field.list.map((item) => html`<option value=${item} />`)}</datalist>`}`;
  }
  return html`<div class=${field.wide || field.type === "area" ? "field wide" : "field"}>
    <label for=${id}>${field.label}${field.required ? "" : html` <small>optional</small>`}</label>${input}
    ${field.hint && html`<small id=${hint}>${field.hint}</small>`}</div>`;
}

function Question({ question, close }) {
  const fields = question.fields ?? [];
  const [values, setValues] = useState(() => Object.fromEntries(fields.map((field) => [field.name, field.value ?? (field.type === "flag" ? false : "")])));
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      const said = await question.run?.(values);
      if (typeof said === "string") say(said);
      close(true);
    } catch (refused) {
      setProblem(refused.message);
      setBusy(false);
    }
  };
  return html`<form method="dialog" onSubmit=${submit}>
    ${question.text && html`<p class="lead">${question.text}</p>`}
    <div class="fields">${fields.map((field) => html`<${Field} key=${field.name} field=${field} value=${values[field.name]}
      set=${(value) => setValues((old) => ({ ...old, [field.name]: value }))} />`)}</div>
    <p class="problem" role="alert">${problem}</p>
    <div class="actions"><button type="button" class="plain" onClick=${() => close(false)}>Cancel</button>
      <button type="submit" class=${question.isDanger ? "danger" : "primary"} disabled=${isBusy}>${question.action ?? "OK"}</button></div>
  </form>`;
}

/** Where dialogs and announcements appear; rendered once. */
export function Dialogs() {
  const [question, setQuestion] = useState(null);
  const [said, setSaid] = useState([]);
  const element = useRef();
  show = setQuestion;
  tell = (news) => {
    const entry = { ...news, id: Math.random() };
    setSaid((old) => [...old.slice(-2), entry]);
    setTimeout(() => setSaid((old) => old.filter((other) => other !== entry)), news.kind === "bad" ? 9000 : 5000);
  };
  useEffect(() => {
    if (question && !element.current.open) element.current.showModal();
  }, [question]);
  const close = (isDone) => {
    element.current?.close();
    question?.resolve(isDone);
    setQuestion(null);
  };
  useEffect(() => {
    // Whoever goes elsewhere is done with it.
    const leave = () => close(false);
    addEventListener("popstate", leave);
    return () => removeEventListener("popstate", leave);
  }, [question]);
  return html`
    ${question && html`<dialog ref=${element} key=${question.title} class=${question.isLarge ? "large" : ""} aria-labelledby="dialog-title"
        onCancel=${(event) => { event.preventDefault(); close(false); }}
        onMouseDown=${(event) => event.target === element.current && !question.fields?.length && close(false)}>
      <div class="sheet"><header><h2 id="dialog-title">${question.title}</h2>
        <button type="button" class="icon" aria-label="Close" onClick=${() => close(false)}>✕</button></header>
      ${question.body ? html`<${question.body} close=${close} />` : html`<${Question} question=${question} close=${close} />`}</div>
    </dialog>`}
    <div class="said" role="status" aria-live="polite">
      ${said.map((entry) => html`<p key=${entry.id} class=${entry.kind}>${entry.text}
        <button type="button" class="icon" aria-label="Dismiss" onClick=${() => setSaid((old) => old.filter((other) => other !== entry))}>✕</button></p>`)}
    </div>`;
}

/** A button that opens a short list of more. `items`: [label, run, isDanger]. */
export function Menu({ label, items }) {
  const element = useRef();
  useEffect(() => {
    const away = (event) => element.current?.contains(event.target) || element.current?.removeAttribute("open");
    document.addEventListener("click", away);
    return () => document.removeEventListener("click", away);
  }, []);
  const key = (event) => {
    if (event.key !== "Escape") return;
    element.current.removeAttribute("open");
    element.current.querySelector("summary").focus();
  };
  return html`<details class="menu" ref=${element} onKeyDown=${key}><summary class="button">${label} <span aria-hidden="true">▾</span></summary>
    <ul>${items.filter(Boolean).map(([text, run, isDanger]) => html`<li><button type="button" class=${isDanger ? "bad" : ""}
      onClick=${() => { element.current.removeAttribute("open"); run(); }}>${text}</button></li>`)}</ul></details>`;
}
