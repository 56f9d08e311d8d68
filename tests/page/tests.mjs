// What people do on the page, and what they must not be able to do. Each test begins with queues of its own.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import amqp from "amqplib";
import { declare, fail, publish } from "./scene.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const tests = [];
const test = (name, body) => tests.push([name, body]);

/** Waits until it holds; fails with the last thing that did not. */
async function eventually(what, check, ms = 10_000) {
  const until = Date.now() + ms;
  for (;;) {
    const last = await check();
    if (last === true) return;
    if (Date.now() > until) throw new Error(`${what}: still ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A page of a browser without a past; fails the test when it breaks a rule of its own or asks anybody else. */
async function openPage({ browser, server }, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of 40[14]/.test(message.text())) page.faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url) && !/^(data|blob):/.test(request.url())) page.faults.push(`asks ${request.url()}`);
  });
  page.done = async () => {
    assert.deepEqual(page.faults, []);
    await context.close();
  };
  return page;
}

async function logIn(page, server, user = "guest", password = "guest") {
  await page.goto(server.url);
  await page.getByLabel("User").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
}

async function enter(world, ...login) {
  const page = await openPage(world);
  await logIn(page, world.server, ...login);
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
  return page;
}

const go = (page, { url }, hash) => page.goto(`${url}/#/${hash}`);

/** The shop of the scene, without its workers. */
async function shop({ server, ask }) {
  const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${server.amqp}/`);
  const channel = await connection.createConfirmChannel();
  await declare(channel, ask);
  for (const { name } of await ask("GET", "/queues?columns=name")) await ask("DELETE", `/queues/%2F/${name}/contents`);
  return { connection, channel, close: () => connection.close() };
}

const ready = async (ask, queue) => (await ask("GET", `/queues/%2F/${queue}`)).messages_ready;

test("the page comes with strict rules, and without a login for nothing but itself", async ({ server }) => {
  const answer = await fetch(server.url);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-security-policy"), /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.match(answer.headers.get("content-security-policy"), /frame-ancestors 'none'/);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
  const again = await fetch(`${server.url}/static/app.js`, { headers: { "if-none-match": (await fetch(`${server.url}/static/app.js`)).headers.get("etag") } });
  assert.equal(again.status, 304);
  const refused = await fetch(`${server.url}/api/queues`, { headers: { "x-leveret-page": "1" } });
  assert.equal(refused.status, 401);
  assert.equal(refused.headers.get("www-authenticate"), null, "no browser asks for a password of its own");
  assert.equal((await fetch(`${server.url}/api/page/events?get=/overview`)).status, 401);
  assert.match((await fetch(`${server.url}/api/queues`)).headers.get("www-authenticate"), /^Basic/);
});

test("a wrong password is told in words, and the right one lets in", async (world) => {
  const page = await openPage(world);
  await logIn(page, world.server, "guest", "wrong");
  await page.getByText("The name or the password is wrong.").waitFor();
  await page.getByLabel("Password").fill("guest");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.httpOnly, true);
  assert.equal(cookie.sameSite, "Strict");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in to Leveret" }).waitFor();
  const old = await fetch(`${world.server.url}/api/whoami`, { headers: { cookie: `${cookie.name}=${cookie.value}` } });
  assert.equal(old.status, 401, "the cookie is worth nothing after the logout");
  await page.done();
});

test("a rate changes while one looks", async (world) => {
  const { channel, close } = await shop(world);
  const page = await enter(world);
  const published = page.locator(".chart", { hasText: "Messages a second" }).locator("li", { hasText: "Published" });
  await published.getByText("0/s", { exact: true }).waitFor();
  let isOver = false;
  // A queue without a limit: how many there are by then is up to the machine.
  const publishing = (async () => {
    while (!isOver) await publish(channel, "reports", 50);
  })();
  await eventually("the rate", async () => {
    const text = await published.locator("b").textContent();
    return parseFloat(text) > 0 || text;
  });
  const waited = page.locator(".chart", { hasText: "Times of jobs" }).locator("li", { hasText: "In the queue" }).locator("b");
  const { consumerTag } = await channel.consume("reports", (message) => channel.ack(message));
  await eventually("the time in the queue", async () => parseFloat(await waited.textContent()) > 0);
  await channel.cancel(consumerTag);
  isOver = true;
  await publishing;
  await close();
  await page.done();
});

test("a dead job is found, says why it failed, and is retried", async (world) => {
  const { connection, channel, close } = await shop(world);
  await fail(channel, connection, "emails.invoice", 6);
  const page = await enter(world);
  await go(page, world.server, "queue/%2F/emails.invoice");
  await page.getByRole("tab", { name: "Dead" }).click();
  await page.getByText("emails.invoice-failed-0").waitFor();
  await page.getByLabel("Look for", { exact: true }).selectOption("property.message_id");
  await page.getByLabel("What to look for").fill("emails.invoice-failed-3");
  await page.getByRole("button", { name: "Find" }).click();
  await page.getByText("1 job found").waitFor();
  await page.getByRole("button", { name: "emails.invoice-failed-3" }).click();
  const dialog = page.getByRole("dialog", { name: "emails.invoice-failed-3" });
  await dialog.getByText("Why it failed").waitFor();
  await dialog.getByText("TimeoutError: [Errno 110] Connection timed out").waitFor();
  await dialog.getByText('"to": "customer0@shop.example"').waitFor();
  await dialog.getByRole("button", { name: "Hex" }).click();
  await dialog.getByText("000000  7b 22 74 6f").waitFor();
  await dialog.getByRole("button", { name: "Retry" }).click();
  await page.getByText("1 job back in the queue.").waitFor();
  await eventually("the queue", async () => (await ready(world.ask, "emails.invoice")) === 1 && (await ready(world.ask, "dead")) === 5);
  await close();
  await page.done();
});

test("a dead-letter queue is redriven, with its progress", async (world) => {
  const { connection, channel, close } = await shop(world);
  await fail(channel, connection, "emails.invoice", 9);
  await fail(channel, connection, "reports", 3);
  const page = await enter(world);
  await go(page, world.server, "queue/%2F/dead");
  await page.getByRole("button", { name: "Redrive…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Redrive" }).click();
  await page.getByText("12 of 12 jobs moved").waitFor();
  await eventually("the queues", async () => {
    const left = await Promise.all(["dead", "emails.invoice", "reports"].map((queue) => ready(world.ask, queue)));
    return (String(left) === "0,9,3") || left;
  });
  await close();
  await page.done();
});

test("a job that waits for its next try is retried now", async (world) => {
  const { connection, channel, close } = await shop(world);
  await publish(channel, "payments.capture", 1);
  const worker = await connection.createChannel();
  const { consumerTag } = await worker.consume("payments.capture", (message) => worker.nack(message));
  await eventually("the retry", async () => (await world.ask("GET", "/queues/%2F/payments.capture")).messages_delayed === 1);
  await worker.cancel(consumerTag);
  const page = await enter(world);
  await go(page, world.server, "queue/%2F/payments.capture?tab=delayed");
  await page.getByText("retry after 1 failure").waitFor();
  await page.getByLabel("Select all").check();
  await page.getByRole("button", { name: "Retry now" }).click();
  await page.getByText("1 job due now.").waitFor();
  await eventually("the queue", async () => (await ready(world.ask, "payments.capture")) === 1);
  await close();
  await page.done();
});

test("what a worker holds is seen and taken back", async (world) => {
  const { connection, channel, close } = await shop(world);
  await publish(channel, "reports", 1);
  const worker = await connection.createChannel();
  await worker.prefetch(1);
  const { consumerTag } = await worker.consume("reports", () => {}, { consumerTag: "slow-worker" });
  await eventually("the delivery", async () => (await world.ask("GET", "/queues/%2F/reports")).messages_unacknowledged === 1);
  const page = await enter(world);
  await go(page, world.server, "running");
  await page.getByText("slow-worker").waitFor();
  await worker.cancel(consumerTag);
  await page.getByRole("button", { name: "Take back…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Take back" }).click();
  await page.getByText("It is back in its queue.").waitFor();
  await eventually("the queue", async () => (await ready(world.ask, "reports")) === 1);
  await close();
  await page.done();
});

test("a queue is published to, paused, limited, purged and deleted, with a question before what destroys", async (world) => {
  const { close } = await shop(world);
  await world.ask("PUT", "/queues/%2F/mine", { durable: true });
  const page = await enter(world);
  await go(page, world.server, "queue/%2F/mine");
  await page.getByRole("button", { name: "Publish…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Body").fill('{"hello": "world"}');
  await dialog.getByLabel("Headers").fill("not json");
  await dialog.getByRole("button", { name: "Publish" }).click();
  await dialog.getByText("This is no JSON").waitFor();
  await dialog.getByLabel("Headers").fill('{"tenant": "acme"}');
  await dialog.getByRole("button", { name: "Publish" }).click();
  await page.getByText("It is published.").waitFor();
  assert.equal(await ready(world.ask, "mine"), 1);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("mine is paused.").waitFor();
  assert.equal((await world.ask("GET", "/queues/%2F/mine")).state, "paused");
  const more = async (name) => {
    await page.getByText("More ▾").click();
    await page.getByRole("button", { name }).click();
  };
  await more("Change limits…");
  await dialog.getByLabel("Jobs at most").fill("10");
  await dialog.getByRole("button", { name: "Set" }).click();
  await page.getByText("The limits hold from now on.").waitFor();
  assert.deepEqual((await world.ask("GET", "/queues/%2F/mine")).effective_policy_definition, { "max-length": 10 });
  await more("Purge…");
  await dialog.getByText("dropped for good").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.equal(await ready(world.ask, "mine"), 1, "Escape does nothing");
  await more("Purge…");
  await dialog.getByRole("button", { name: "Purge" }).click();
  await page.getByText("mine is purged.").waitFor();
  assert.equal(await ready(world.ask, "mine"), 0);
  await more("Delete the queue…");
  await dialog.getByRole("button", { name: "Delete the queue" }).click();
  await page.getByRole("heading", { name: "Queues", level: 1 }).waitFor();
  assert.equal((await world.ask("GET", "/queues?name=mine&page=1")).filtered_count, 0);
  await close();
  await page.done();
});

test("who only monitors sees everything and changes nothing", async (world) => {
  const { connection, channel, close } = await shop(world);
  await fail(channel, connection, "reports", 2);
  const page = await enter(world, "mona", "looks-only");
  await page.getByRole("heading", { name: "Longest queues" }).waitFor();
  assert.equal(await page.getByRole("link", { name: "Users & vhosts" }).count(), 0);
  await go(page, world.server, "queue/%2F/dead");
  await page.getByText("More ▾").click();
  await page.getByRole("button", { name: "Purge…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByText("Not allowed: user not authorised to access virtual host.").waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await ready(world.ask, "dead"), 2);
  await page.getByText("Not allowed").first().waitFor(); // bodies are for those who may read the queue
  await go(page, world.server, "server");
  await page.getByText("Data directory").waitFor();
  assert.equal(await page.getByRole("heading", { name: "Log" }).count(), 0, "the log is for administrators");
  await go(page, world.server, "access");
  await page.getByText("Not allowed: not administrator user.").first().waitFor();
  await close();
  await page.done();
});

test("a login ends with its password, and the page says so", async (world) => {
  await world.ask("PUT", "/users/temp", { password: "one", tags: "monitoring" });
  const page = await enter(world, "temp", "one");
  await page.getByRole("heading", { name: "Longest queues" }).waitFor();
  await world.ask("PUT", "/users/temp", { password: "two", tags: "monitoring" });
  await page.getByText("Your login has ended.").waitFor();
  await page.done();
});

test("another site cannot use the login, though the browser sends the cookie", async (world) => {
  await world.ask("PUT", "/queues/%2F/target", { durable: true });
  const page = await enter(world);
  const inPage = (method, path, headers = {}) => page.evaluate(async ([verb, at, more]) => (await fetch(at, { method: verb, headers: more })).status, [method, path, headers]);
  assert.equal(await inPage("DELETE", "/api/queues/%2F/target/contents"), 401, "without the page's header");
  assert.equal(await inPage("DELETE", "/api/queues/%2F/target/contents", { "x-leveret-page": "1" }), 204);
  // Another port of the same host is the same site: SameSite does not help, the check does.
  const form = (path) => `<form method="post" enctype="text/plain" action="${world.server.url}/api${path}"><input name='{"routing_key":"target","payload":"x","payload_encoding":"string","properties":{},"a":"' value='"}'></form><script>document.forms[0].submit()</script>`;
  const evil = createServer((request, response) => {
    response.setHeader("content-type", "text/html");
    response.end(request.url.startsWith("/?") ? form(decodeURIComponent(request.url.slice(2))) : "quiet");
  });
  await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
  const at = `http://127.0.0.1:${evil.address().port}`;
  const other = await page.context().newPage();
  for (const path of ["/exchanges/%2F/amq.default/publish", "/login"]) {
    const answered = other.waitForResponse((response) => response.url().startsWith(`${world.server.url}/api`));
    await other.goto(`${at}/?${encodeURIComponent(path)}`).catch(() => {});
    const answer = await answered;
    assert.equal(answer.status(), 401, path);
    assert.match(await answer.text().catch(() => "own page"), /own page|page of another origin/);
  }
  assert.equal(await ready(world.ask, "target"), 0);
  await other.goto(at);
  const read = await other.evaluate((url) => fetch(url, { credentials: "include" }).then(() => "read", () => "refused"), `${world.server.url}/api/queues`);
  assert.equal(read, "refused");
  evil.close();
  assert.equal(await ready(world.ask, "target"), 0);
  await page.done();
});

test("it is used by keyboard alone", async (world) => {
  const { close } = await shop(world);
  const page = await enter(world);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.getByRole("link", { name: "Queues", exact: true }).first().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Queues", level: 1 }).waitFor();
  await eventually("the focus", () => page.evaluate(() => document.activeElement.tagName === "H1" || document.activeElement.tagName));
  await page.getByRole("link", { name: "reports" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("tab", { name: /^Waiting/ }).focus();
  await page.keyboard.press("ArrowRight");
  await eventually("the tab", () => page.evaluate(() => document.activeElement.id === "tab-delayed" || document.activeElement.id));
  await close();
  await page.done();
});

const VIEWS = ["", "queues", "queue/%2F/dead", "queue/%2F/reports?tab=running", "queue/%2F/payments.capture?tab=delayed", "queue/%2F/reports?tab=settings", "queue/%2F/reports?tab=consumers",
  "running", "exchanges", "exchange/%2F/shop", "clients", "clients?tab=channels", "clients?tab=consumers", "schedules", "policies", "access", "changes", "server"];

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing serious on any view, ${colorScheme}`, async (world) => {
    const { connection, channel, close } = await shop(world);
    await fail(channel, connection, "reports", 3);
    await publish(channel, "reports", 3);
    const holding = await connection.createChannel();
    await holding.prefetch(1);
    await holding.consume("reports", () => {}, { consumerTag: "slow-worker" });
    const page = await openPage(world, { colorScheme, bypassCSP: true, reducedMotion: "reduce" });
    const found = [];
    const look = async (view) => {
      if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
      for (const violation of violations.filter(({ impact }) => impact === "serious" || impact === "critical")) {
        found.push(`${view}: ${violation.id}: ${violation.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
      }
    };
    await page.goto(world.server.url);
    await page.getByLabel("User").waitFor();
    await look("login");
    await logIn(page, world.server);
    await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
    for (const view of VIEWS) {
      await go(page, world.server, view);
      await page.waitForFunction(() => document.querySelector("main h1") && !document.querySelector("[aria-busy]"));
      await look(view || "overview");
    }
    await go(page, world.server, "queue/%2F/dead");
    await page.getByRole("button", { name: "reports-failed-0" }).click();
    await page.getByText("Why it failed").waitFor();
    await look("a job");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Publish…" }).click();
    await look("a form");
    await page.keyboard.press("Escape");
    await page.setViewportSize({ width: 360, height: 780 });
    for (const view of VIEWS) {
      await go(page, world.server, view);
      await page.waitForFunction(() => document.querySelector("main h1") && !document.querySelector("[aria-busy]"));
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (overflow > 0) found.push(`${view} is ${overflow} px wider than a phone`);
    }
    await page.getByRole("button", { name: "Menu" }).click();
    await look("the menu on a phone");
    assert.deepEqual(found, []);
    await close();
    await page.done();
  });
}

// The last one: it leaves them behind.
test("changes are listed with who made them, over HTTP and over AMQP", async (world) => {
  await world.ask("PUT", "/queues/%2F/changed-by-request", { durable: true });
  const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${world.server.amqp}`);
  const channel = await connection.createChannel();
  await channel.assertQueue("changed-by-application", { durable: true });
  await connection.close();
  const page = await enter(world);
  await page.getByRole("link", { name: "Changes", exact: true }).click();
  await page.getByRole("heading", { name: "Changes", level: 1 }).waitFor();
  await page.getByText("PUT /api/queues///changed-by-request").first().waitFor();
  await page.getByText("queue.declare changed-by-application").first().waitFor();
  await page.getByLabel("Only of the user").fill("nobody-of-that-name");
  await page.getByText("Nothing was changed yet.").waitFor();
  await page.done();
});

test("10,000 queues are listed, searched and sorted at once, in a few kB a second", async (world) => {
  const names = Array.from({ length: 10_000 }, (_, n) => `jobs.${String(n).padStart(5, "0")}`);
  await world.ask("POST", "/definitions", { queues: names.map((name) => ({ name, vhost: "/", durable: true, auto_delete: false, arguments: {} })) });
  for (const [index, count] of [[7_777, 5], [42, 3]]) {
    for (let n = 0; n < count; n++) {
      await world.ask("POST", "/exchanges/%2F/amq.default/publish", { routing_key: names[index], payload: "x", payload_encoding: "string", properties: {} });
    }
  }
  const page = await enter(world);
  const timed = async (what, most, run) => {
    const began = performance.now();
    await run();
    const ms = performance.now() - began;
    console.log(`   ${what}: ${Math.round(ms)} ms`);
    assert.ok(ms < most, `${what} took ${Math.round(ms)} ms`);
  };
  await timed("the list", 2_000, async () => {
    await go(page, world.server, "queues");
    await page.getByText(/Page 1 of 2\d\d/).waitFor();
  });
  await timed("a search, with the pause after typing", 2_000, async () => {
    await page.getByLabel("Search by name").fill("jobs.0999");
    await page.getByText("10 queues", { exact: true }).waitFor();
  });
  await page.getByLabel("Search by name").fill("jobs.");
  await page.getByText("10,000 queues").waitFor();
  await timed("the longest first", 2_500, async () => {
    await page.getByRole("button", { name: "Waiting", exact: true }).click();
    await page.getByText("jobs.07777").waitFor();
  });
  await timed("the last page", 2_500, async () => {
    await page.getByRole("button", { name: "Next →" }).click();
    await page.getByText("Page 2 of 200").waitFor();
  });
  const cookies = await page.context().cookies();
  const stream = await fetch(`${world.server.url}/api/page/events?get=${encodeURIComponent("/queues?page=1&page_size=50&columns=name,messages_ready")}&get=/page/vitals`, {
    headers: { cookie: cookies.map(({ name, value }) => `${name}=${value}`).join("; ") },
  });
  let bytes = 0;
  const reader = stream.body.getReader();
  const until = Date.now() + 4_000;
  await reader.read();
  const began = Date.now();
  const publishing = (async () => {
    while (Date.now() < until) {
      await world.ask("POST", "/exchanges/%2F/amq.default/publish", { routing_key: names[0], payload: "x", payload_encoding: "string", properties: {} });
    }
    await reader.cancel();
  })();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    bytes += value.length;
  }
  await publishing;
  const rate = (bytes * 1000) / (Date.now() - began);
  console.log(`   the stream, after its first answer: ${Math.round(rate)} B/s`);
  assert.ok(rate > 0 && rate < 6_000, `${rate} B/s`);
  await page.done();
});
