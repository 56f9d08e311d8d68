// A name and a password.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { logIn } from "../api.js";

export function Login({ enter, isOver }) {
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  const name = useRef();
  useEffect(() => {
    document.title = "Log in · Leveret";
    name.current.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    setProblem("");
    try {
      if (await logIn(form.get("username"), form.get("password"))) return await enter();
      setProblem("The name or the password is wrong. After several wrong ones each further attempt takes longer. The user guest can log in from the server's own machine only.");
    } catch (refused) {
      setProblem(refused.message);
    }
    setBusy(false);
  };
  return html`<main class="login"><form onSubmit=${submit} method="post" action="/api/login">
    <img src="/static/icon.svg" alt="" width="44" height="44" />
    <h1>Log in to Leveret</h1>
    ${isOver && html`<p class="notice" role="status">Your login has ended. Log in again to go on.</p>`}
    <div class="field"><label for="username">User</label><input ref=${name} id="username" name="username" autocomplete="username" autocapitalize="none" spellcheck="false" required /></div>
    <div class="field"><label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password" /></div>
    <p class="problem" role="alert">${problem}</p>
    <button type="submit" class="primary" disabled=${isBusy}>Log in</button>
  </form></main>`;
}
