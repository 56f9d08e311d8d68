// A broker as it is on a usual day: queues of a shop, workers that succeed, fail and forget, schedules, dead letters.
// `node scene.mjs AMQP_PORT HTTP_PORT` plays it until it is ended; the tests and the screenshots use its parts.
import amqp from "amqplib";

/** Asks the HTTP API; fails with what it says. */
export function client(port, login = "guest:guest") {
  return async (method, path, document) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api${path}`, {
      method,
      headers: { authorization: `Basic ${btoa(login)}` },
      body: document && JSON.stringify(document),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  };
}

const RETRIES = {
  "x-delayed-retry-type": "all",
  "x-delayed-retry-min": 20_000,
  "x-delayed-retry-max": 600_000,
  "x-delayed-retry-backoff": "exponential",
  "x-delivery-limit": 3,
};

const JOBS = {
  "emails.welcome": (n) => ({ to: `customer${n}@shop.example`, template: "welcome", locale: "en" }),
  "emails.invoice": (n) => ({ to: `customer${n}@shop.example`, invoice: 20_000 + n }),
  "thumbnails": (n) => ({ image: `uploads/${n}.jpg`, sizes: [64, 256, 1024] }),
  "search.index": (n) => ({ product: n, fields: ["title", "price"] }),
  "webhooks": (n) => ({ url: "https://partner.example/hook", event: "order.paid", order: 4_000 + n }),
  "reports": (n) => ({ report: "monthly", tenant: `t-${n % 7}` }),
  "payments.capture": (n) => ({ order: 4_000 + n, amount: { currency: "EUR", cents: 1_999 + n } }),
};

/** Queues, exchanges, bindings, policies, users, schedules. */
export async function declare(channel, ask) {
  await channel.assertExchange("shop", "topic", { durable: true });
  await channel.assertExchange("shop.dead", "direct", { durable: true });
  await channel.assertExchange("audit", "fanout", { durable: true });
  await channel.bindExchange("audit", "shop", "#");
  await channel.assertQueue("audit.log", { durable: true, arguments: { "x-message-ttl": 3_600_000 } });
  await channel.bindQueue("audit.log", "audit", "");
  for (const name of Object.keys(JOBS)) {
    const dead = { "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead" };
    const retried = name === "payments.capture" || name === "webhooks" ? { ...RETRIES, "x-delivery-limit": name === "webhooks" ? 1 : 3 } : {};
    await channel.assertQueue(name, { durable: true, arguments: { ...dead, ...retried } });
    await channel.bindQueue(name, "shop", name.includes(".") ? name : `${name}.#`);
  }
  await channel.assertQueue("dead", { durable: true });
  await channel.bindQueue("dead", "shop.dead", "dead");
  await ask("PUT", "/policies/%2F/short", {
    pattern: "^thumbnails$", definition: { "max-length": 100_000, overflow: "reject-publish" }, "apply-to": "queues",
  });
  for (const [name, cron, routing_key] of [
    ["nightly-report", "0 3 * * *", "reports.nightly"],
    ["clean-up-uploads", "*/15 * * * *", "thumbnails.clean"],
  ]) {
    await ask("PUT", `/schedules/%2F/${name}`, {
      cron, time_zone: "Europe/Berlin", exchange: "shop", routing_key, payload: `{"job":"${name}"}`,
    });
  }
  await ask("PUT", "/users/mona", { password: "looks-only", tags: "monitoring" });
  await ask("PUT", "/users/web", { password: "publishes", tags: "" });
  await ask("PUT", "/permissions/%2F/web", { configure: "", write: "^shop$", read: "" });
}

/** Puts so many jobs into a queue. */
export async function publish(channel, queue, count, options = {}) {
  for (let n = 0; n < count; n++) {
    const body = Buffer.from(JSON.stringify(JOBS[queue]?.(n) ?? { n }));
    channel.publish("", queue, body, {
      persistent: true, contentType: "application/json", messageId: `${queue}-${n}`, ...options,
    });
  }
  await channel.waitForConfirms();
}

/** Dead letters that say why they failed, as `leveret work` leaves them. */
export async function fail(channel, connection, queue, count) {
  const worker = await connection.createChannel();
  const reasons = [
    ["exit 1", "Traceback (most recent call last):\n  File \"mailer.py\", line 41, in send\n    smtp.connect(host, 587)\nTimeoutError: [Errno 110] Connection timed out"],
    ["timeout after 30 s", "rendering page 1 of 214\nrendering page 2 of 214"],
    ["exit 65", "ValueError: no such customer: 4711"],
  ];
  for (let n = 0; n < count; n++) {
    const [reason, details] = reasons[n % reasons.length];
    await publish(channel, queue, 1, {
      messageId: `${queue}-failed-${n}`,
      headers: { "x-failure-reason": reason, "x-failure-details": details, tenant: n % 2 ? "acme" : "globex" },
    });
  }
  await worker.prefetch(count);
  await new Promise((resolve) => {
    let left = count;
    worker.consume(queue, (message) => {
      worker.nack(message, false, false);
      if (--left === 0) resolve();
    });
  });
  await worker.close();
}

async function work(connection, queue, every, prefetch, fate) {
  const channel = await connection.createChannel();
  await channel.prefetch(prefetch);
  let [n, isOpen] = [0, true];
  channel.on("close", () => (isOpen = false));
  await channel.consume(queue, async (message) => {
    if (!message) return;
    await new Promise((resolve) => setTimeout(resolve, every * (0.5 + Math.random())));
    if (isOpen) fate(channel, message, n++);
  }, { consumerTag: `worker-${queue}` });
}

/** A day in the shop; a delivery that is not acknowledged stands out after half of `forgottenAfter`. Returns what ends it. */
export async function play(amqpPort, httpPort, forgottenAfter = 120_000) {
  const ask = client(httpPort);
  const open = (name) => amqp.connect(`amqp://guest:guest@127.0.0.1:${amqpPort}/`, { clientProperties: { connection_name: name } });
  const shop = await open("shop-web");
  const channel = await shop.createConfirmChannel();
  await declare(channel, ask);
  const ack = (channel, message) => channel.ack(message);
  // What fails comes first, while nobody else works on those queues.
  const failing = await open("mailer@worker-3");
  await fail(channel, failing, "emails.invoice", 14);
  await fail(channel, failing, "reports", 6);
  await publish(channel, "payments.capture", 5);
  const stubborn = await failing.createChannel();
  await stubborn.prefetch(1);
  await stubborn.consume("payments.capture", (message) => message && stubborn.nack(message), { consumerTag: "payments" });
  // One that forgets to acknowledge.
  await publish(channel, "reports", 4);
  const forgetful = await open("reports@worker-2");
  const forgets = await forgetful.createChannel();
  await forgets.prefetch(2);
  await forgets.consume("reports", () => {}, { consumerTag: "pdf-renderer", arguments: { "x-consumer-timeout": forgottenAfter, "x-consumer-timeout-action": "return" } });
  await publish(channel, "emails.welcome", 240, { headers: { "x-delay": 3_600_000 } });
  await publish(channel, "emails.invoice", 37);
  await publish(channel, "search.index", 1_800);
  await ask("PUT", "/queues/%2F/webhooks/pause");
  await publish(channel, "webhooks", 86);
  const workers = await open("worker@worker-1");
  await work(workers, "thumbnails", 40, 20, ack);
  await work(workers, "search.index", 60, 5, ack);
  await work(workers, "emails.invoice", 400, 2, ack);
  await work(workers, "emails.welcome", 100, 5, ack);
  let hour = 0;
  const beat = setInterval(() => {
    const load = Math.round(9 + 6 * Math.sin(hour++ / 7) + 3 * Math.random());
    for (let n = 0; n < load * 3; n++) {
      const key = n % 6 ? "thumbnails.new" : "search.index";
      channel.publish("shop", key, Buffer.from(JSON.stringify({ image: `uploads/${hour}-${n}.jpg`, sizes: [64, 256] })), {
        persistent: true, contentType: "application/json",
      });
    }
    if (hour % 10 === 0) channel.publish("", "emails.invoice", Buffer.from(JSON.stringify(JOBS["emails.invoice"](hour))), { persistent: true, contentType: "application/json" });
  }, 120);
  return async () => {
    clearInterval(beat);
    for (const connection of [shop, failing, forgetful, workers]) await connection.close();
  };
}

if (process.argv[1]?.endsWith("scene.mjs")) {
  await play(process.argv[2], process.argv[3]);
  console.log("playing");
}
