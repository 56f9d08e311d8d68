// The HTTP API: asks it, words its refusals, logs in and out.

/** A refusal; its message is for people. */
export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** Dispatches `over` when nobody is logged in any more. */
export const session = new EventTarget();

// What changes something needs it: no form and no other site can send it.
const HEADERS = { "x-leveret-page": "1" };

/** A path of names: `at("queues", vhost, name)`. */
export const at = (...names) => "/" + names.map(encodeURIComponent).join("/");

/** A query string of what is neither undefined nor empty. */
export function query(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? "?" + new URLSearchParams(pairs) : "";
}

/** Asks and returns the answer's document, or throws what it says as `Refused`. */
export async function ask(method, path, document) {
  let answer;
  try {
    answer = await fetch("/api" + path, { method, headers: HEADERS, body: document && JSON.stringify(document) });
  } catch {
    throw new Refused(0, "The server does not answer.");
  }
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    value = { reason: text };
  }
  if (answer.ok) return value;
  if (isOver(answer.status, value)) session.dispatchEvent(new Event("over"));
  throw new Refused(answer.status, wording(answer.status, value));
}

/** Whether an answer says that nobody is logged in. */
export const isOver = (status, value) => status === 401 && value?.error === "not_authorized";

/** What a refusal says. */
export function wording(status, value) {
  const reason = typeof value?.reason === "string" ? value.reason : value && JSON.stringify(value.reason ?? value);
  if (status === 401) return `Not allowed: ${lower(reason ?? "your user may not do this")}.`;
  if (status === 404) return "It is not there any more.";
  return reason || `The server answered ${status}.`;
}

const lower = (text) => text.charAt(0).toLowerCase() + text.slice(1).replace(/\.$/, "");

/** Logs in; false where name or password is wrong. */
export async function logIn(username, password) {
  const body = new URLSearchParams({ username, password });
  const answer = await fetch("/api/login", { method: "POST", headers: HEADERS, body });
  if (answer.ok) return true;
  const value = await answer.json().catch(() => null);
  if (value?.reason === "Login failed") return false;
  throw new Refused(answer.status, value?.reason === "Not management user"
    ? "This user may use queues but not this page: it needs the tag management, monitoring, policymaker or administrator."
    : wording(answer.status, value));
}

export const logOut = () => ask("DELETE", "/login").catch(() => {});

/** Who is logged in; null if nobody is. */
export async function whoAmI() {
  const answer = await fetch("/api/whoami", { headers: HEADERS });
  return answer.ok ? answer.json() : null;
}
