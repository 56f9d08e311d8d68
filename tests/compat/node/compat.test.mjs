// The promises of the broker, held against amqplib: prints `ok NAME` or `FAIL NAME: why` a test.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual, inspect } from "node:util";
import amqp from "amqplib";

const { AMQP_HOST = "127.0.0.1", AMQP_PORT = "5672", CONTROL_PORT, LEVERET_PID } = process.env;
const url = `amqp://guest:guest@${AMQP_HOST}:${AMQP_PORT}/%2f`;
const tests = [];
const left = { connections: [], queues: [], processes: [] };

function test(name, body, { needs, seconds = 30 } = {}) {
  tests.push({ name, body, needs, seconds });
}

function equal(got, wanted, what = "got") {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Error(`${what}: ${inspect(got, { breakLength: Infinity })}, expected ${inspect(wanted, { breakLength: Infinity })}`);
  }
}

async function connect(options = "") {
  const connection = await amqp.connect(url + options);
  connection.on("error", () => {}); // the server's restarts, and refusals that a test watches elsewhere
  left.connections.push(connection);
  return connection;
}

// A channel on a connection of its own; its refusal by the broker is channel.refusal.
async function open(kind = "createChannel", connection) {
  const channel = await (connection ?? (await connect()))[kind]();
  channel.refusal = new Promise((resolve) => channel.on("error", resolve));
  return channel;
}

async function declare(channel, options = {}) {
  const { queue } = await channel.assertQueue(`queue-${randomUUID()}`, { durable: false, ...options });
  left.queues.push(queue);
  return queue;
}

function send(channel, queue, bodies, options) {
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body), options);
}

// A consumer that keeps its deliveries; wait(n) resolves when there are n.
class Worker {
  deliveries = [];
  waiting = [];
  cancelled = false;

  static async start(queue, { prefetch, channel, acks, ...options } = {}) {
    const worker = new Worker();
    worker.channel = channel ?? (await open());
    if (prefetch) await worker.channel.prefetch(prefetch);
    const { consumerTag } = await worker.channel.consume(queue, (message) => {
      if (message) {
        worker.deliveries.push(message);
        if (acks) worker.channel.ack(message);
      } else {
        worker.cancelled = true;
      }
      for (const wake of worker.waiting.splice(0)) wake();
    }, options);
    worker.tag = consumerTag;
    return worker;
  }

  async until(done) {
    while (!done()) await new Promise((resolve) => this.waiting.push(resolve));
    return this;
  }

  wait(wanted) {
    return this.until(() => this.deliveries.length >= wanted);
  }

  get bodies() {
    return this.deliveries.map((message) => message.content.toString());
  }

  get redelivered() {
    return this.deliveries.map((message) => message.fields.redelivered);
  }
}

async function count(channel, queue) {
  return (await channel.checkQueue(queue)).messageCount;
}

// Asks until the queue has so many ready messages: RabbitMQ answers ahead of what it has yet to do.
async function becomesReady(channel, queue, wanted) {
  while ((await count(channel, queue)) !== wanted);
}

async function refused(channel, action, code, text) {
  const [error] = await Promise.all([channel.refusal, Promise.resolve().then(action).catch(() => {})]);
  const clipped = text.length <= 255 ? text : text.slice(0, 252) + "...";
  equal(error.code, code);
  if (!error.message.includes(`"${clipped}"`)) equal(error.message, clipped);
}

// Restarts the broker, how is "kill" or "term".
function restart(how) {
  return askDriver(`restart ${how}`);
}

// Publishers are blocked from now on while less is free.
function limitFreeDisk(size) {
  return askDriver(`ctl set_disk_free_limit ${size}`);
}

async function askDriver(request) {
  const control = net.connect(Number(CONTROL_PORT), "127.0.0.1");
  control.write(`${request}\n`);
  let answer = "";
  for await (const bytes of control) answer += bytes;
  equal(answer, "ok\n", "the driver's answer");
}

// A worker process that holds what it gets, and a reader of the bodies it prints.
function spawnWorker(queue) {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "--worker", queue], { stdio: ["ignore", "pipe", "inherit"] });
  left.processes.push(child);
  return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
}

if (process.argv[2] === "--worker") {
  const channel = await open();
  await channel.consume(process.argv[3], (message) => console.log(message.content.toString()));
} else {
  await run();
}

async function run() {
  define();
  let failed = 0;
  for (const { name, body, needs, seconds } of tests) {
    if (process.argv.length > 2 && !process.argv.includes(name)) continue;
    if ((needs === "restart" && !CONTROL_PORT) || (needs === "leveret" && !LEVERET_PID)) continue;
    let timer;
    const deadline = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done after ${seconds} s`)), seconds * 1000);
    });
    try {
      await Promise.race([body(), deadline]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      const line = /compat\.test\.mjs:(\d+)/g;
      const lines = [...(error.stack ?? "").matchAll(line)].map((match) => match[1]);
      console.log(`FAIL ${name}: ${error.message.replaceAll(/\s+/g, " ")} (line ${lines.at(-1) ?? "?"})`);
    }
    clearTimeout(timer);
    await clean();
  }
  process.exit(failed ? 1 : 0);
}

async function clean() {
  for (const child of left.processes.splice(0)) child.kill("SIGKILL");
  for (const connection of left.connections.splice(0)) {
    try {
      await connection.close();
    } catch {
      // already closed by the test or with the server
    }
  }
  const names = left.queues.splice(0);
  if (names.length) {
    const connection = await amqp.connect(url);
    const channel = await connection.createChannel();
    for (const name of names) await channel.deleteQueue(name);
    await connection.close();
  }
}

function define() {
  test("round_robin_in_strict_order", async () => {
    const channel = await open();
    const queue = await declare(channel);
    const workers = [];
    for (let n = 0; n < 3; n += 1) workers.push(await Worker.start(queue));
    send(channel, queue, Array.from({ length: 30 }, (_, n) => String(n)));
    for (const worker of workers) await worker.wait(10);
    equal(workers.map((w) => w.bodies), [0, 1, 2].map((first) => Array.from({ length: 10 }, (_, n) => String(first + 3 * n))));
  });

  test("prefetch_one_is_fair", async () => {
    const channel = await open();
    const queue = await declare(channel);
    const slow = await Worker.start(queue, { prefetch: 1 });
    const fast = await Worker.start(queue, { prefetch: 1, acks: true });
    send(channel, queue, [..."abcdefghij"]);
    await slow.wait(1);
    await fast.wait(9);
    equal([...slow.bodies, ...fast.bodies], [..."abcdefghij"]);
  });

  test("global_prefetch_is_the_channels_and_changes_at_once", async () => {
    const channel = await open();
    const queue = await declare(channel);
    await channel.prefetch(3, true);
    const worker = await Worker.start(queue, { channel });
    send(channel, queue, [..."abcdefghij"]);
    await worker.wait(3);
    await becomesReady(channel, queue, 7);
    await channel.prefetch(5, true);
    await worker.wait(5);
    await becomesReady(channel, queue, 5);
    channel.ackAll();
    await worker.wait(10);
  });

  test("manual_and_automatic_acknowledgement", async () => {
    const channel = await open();
    const queue = await declare(channel);
    send(channel, queue, ["a", "b"]);
    const manual = await (await Worker.start(queue)).wait(2);
    manual.channel.ack(manual.deliveries[1], true);
    await manual.channel.close();
    equal(await count(channel, queue), 0);
    send(channel, queue, ["c", "d"]);
    const automatic = await (await Worker.start(queue, { noAck: true })).wait(2);
    await automatic.channel.close();
    equal(await count(channel, queue), 0);
  });

  for (const [how, end] of [
    ["channel_closes", async (worker) => worker.channel.close()],
    ["connection_closes", async (_worker, connection) => connection.close()],
  ]) {
    test(`redelivery_when_the_${how}`, async () => {
      const channel = await open();
      const queue = await declare(channel);
      send(channel, queue, [..."01234"]);
      const connection = await connect();
      const holder = await (await Worker.start(queue, { channel: await open("createChannel", connection) })).wait(5);
      const waiting = await Worker.start(queue);
      await end(holder, connection);
      await waiting.wait(5);
      equal(waiting.bodies, [..."01234"]);
      equal(waiting.redelivered, Array(5).fill(true));
    });
  }

  test("redelivery_when_the_worker_is_killed", async () => {
    const channel = await open();
    const queue = await declare(channel);
    send(channel, queue, [..."01234"]);
    const { child, lines } = spawnWorker(queue);
    for (const body of "01234") equal((await lines.next()).value, body);
    const waiting = await Worker.start(queue);
    child.kill("SIGKILL");
    await waiting.wait(5);
    equal(waiting.bodies, [..."01234"]);
    equal(waiting.redelivered, Array(5).fill(true));
  });

  test("nack_and_reject", async () => {
    const channel = await open();
    const queue = await declare(channel);
    send(channel, queue, ["a", "b", "c"]);
    const got = [];
    for (let n = 0; n < 3; n += 1) got.push(await channel.get(queue));
    channel.nack(got[1]);
    channel.reject(got[0], true);
    channel.nack(got[2], false, false);
    const again = [await channel.get(queue), await channel.get(queue), await channel.get(queue)];
    equal(again.map((message) => message && [message.content.toString(), message.fields.redelivered]), [["a", true], ["b", true], false]);
  });

  test("recover_redelivers", async () => {
    const channel = await open();
    const queue = await declare(channel);
    send(channel, queue, ["a", "b"]);
    const worker = await (await Worker.start(queue, { channel })).wait(2);
    await channel.recover();
    await worker.wait(4);
    equal(worker.bodies, ["a", "b", "a", "b"]);
  });

  test("unknown_delivery_tag", async () => {
    const channel = await open();
    await refused(channel, () => channel.ack({ fields: { deliveryTag: 82 } }), 406, "PRECONDITION_FAILED - unknown delivery tag 82");
  });

  test("ack_on_another_channel", async () => {
    const connection = await connect();
    const owner = await open("createChannel", connection);
    const other = await open("createChannel", connection);
    const queue = await declare(owner);
    send(owner, queue, ["a"]);
    const worker = await (await Worker.start(queue, { channel: owner })).wait(1);
    await refused(other, () => other.ack(worker.deliveries[0]), 406, "PRECONDITION_FAILED - unknown delivery tag 1");
    owner.ack(worker.deliveries[0]);
    send(owner, queue, ["b"]);
    await worker.wait(2);
    equal(worker.bodies, ["a", "b"]);
  });

  test("acknowledgement_timeout", async () => {
    const channel = await open();
    const queue = await declare(channel, { arguments: { "x-consumer-timeout": 1000 } });
    send(channel, queue, ["a"]);
    const late = await (await Worker.start(queue)).wait(1);
    const waiting = await Worker.start(queue, { acks: true });
    await refused(late.channel, () => {}, 406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. "
      + "Timeout value used: 1000 ms. This timeout value can be configured, see consumers doc guide to learn more");
    await waiting.wait(1);
    equal(waiting.redelivered, [true]);
  }, { needs: "leveret" });

  test("a_worker_keeps_its_message_for_as_long_as_it_says", async () => {
    const channel = await open();
    const queue = await declare(channel, { arguments: { "x-consumer-timeout": 1000, "x-consumer-timeout-action": "return" } });
    send(channel, queue, ["a", "b"]);
    const worker = await (await Worker.start(queue)).wait(2);
    const extend = (headers) => worker.channel.publish("", "amq.leveret.lease", Buffer.alloc(0), { mandatory: true, headers });
    extend({ "x-delivery-tag": worker.deliveries[0].fields.deliveryTag, "x-lease-ms": 600_000 });
    await worker.wait(3);
    equal(worker.bodies.slice(0, 3), ["a", "b", "b"]);
    const returned = once(worker.channel, "return");
    worker.channel.ack(worker.deliveries[0]);
    extend({ "x-delivery-tag": 1 });
    const [{ fields }] = await returned;
    equal([fields.replyCode, fields.replyText, fields.routingKey], [312, "NO_ROUTE", "amq.leveret.lease"]);
    await refused(worker.channel, () => extend({ "x-lease-ms": 5 }), 406,
      "PRECONDITION_FAILED - invalid lease request: header 'x-delivery-tag' is missing");
  }, { needs: "leveret" });

  test("redeclaring_differently", async () => {
    const channel = await open();
    const queue = await declare(channel, { durable: true });
    await refused(channel, () => channel.assertQueue(queue, { durable: false }), 406,
      `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${queue}' in vhost '/': received 'false' but current is 'true'`);
  });

  test("missing_queue_and_exchange", async () => {
    let channel = await open();
    await refused(channel, () => channel.checkQueue("nope"), 404, "NOT_FOUND - no queue 'nope' in vhost '/'");
    channel = await open();
    await refused(channel, () => channel.publish("nope", "key", Buffer.from("a")), 404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
  });

  test("server_named_exclusive_and_auto_delete_queues", async () => {
    const connection = await connect();
    const channel = await open("createChannel", connection);
    const { queue } = await channel.assertQueue("", { exclusive: true });
    if (!queue.startsWith("amq.gen-")) equal(queue, "amq.gen-...");
    const other = await open();
    await refused(other, () => other.checkQueue(queue), 405, `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' `
      + "in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match "
      + "that of the original declaration.");
    const passing = await declare(channel, { autoDelete: true });
    const worker = await Worker.start(passing, { channel });
    await channel.cancel(worker.tag);
    await refused(channel, () => channel.checkQueue(passing), 404, `NOT_FOUND - no queue '${passing}' in vhost '/'`);
    await connection.close();
    const third = await open();
    await refused(third, () => third.checkQueue(queue), 404, `NOT_FOUND - no queue '${queue}' in vhost '/'`);
  });

  test("exchange_types_route", async () => {
    const channel = await open();
    const routes = [
      ["direct", "red", {}, "red", {}, "blue"],
      ["fanout", "", {}, "any", {}, null],
      ["topic", "a.*.#", {}, "a.b.c.d", {}, "a"],
      ["headers", "", { "x-match": "all", k: "v" }, "", { k: "v" }, ""],
    ];
    for (const [type, binding, args, hit, headers, miss] of routes) {
      const exchange = `exchange-${randomUUID()}`;
      await channel.assertExchange(exchange, type, { durable: false, autoDelete: true });
      const queue = await declare(channel);
      await channel.bindQueue(queue, exchange, binding, args);
      channel.publish(exchange, hit, Buffer.from(type), { headers });
      if (miss !== null) channel.publish(exchange, miss, Buffer.from("missed"));
      const message = await channel.get(queue);
      equal([message.content.toString(), message.fields.exchange, message.fields.routingKey, message.fields.messageCount], [type, exchange, hit, 0]);
    }
  });

  test("mandatory_messages_return", async () => {
    const channel = await open("createConfirmChannel");
    const order = [];
    channel.on("return", (message) => order.push([message.fields.replyCode, message.fields.replyText, message.content.toString()]));
    await new Promise((resolve) => channel.publish("amq.direct", "nowhere", Buffer.from("a"), { mandatory: true }, () => {
      order.push("confirmed");
      resolve();
    }));
    equal(order, [[312, "NO_ROUTE", "a"], "confirmed"]);
  });

  test("consumers_hear_of_their_queues_end", async () => {
    const channel = await open();
    const queue = await declare(channel);
    const worker = await Worker.start(queue);
    await channel.deleteQueue(queue);
    await worker.until(() => worker.cancelled);
  });

  test("get_purge_and_delete_count", async () => {
    const channel = await open();
    const queue = await declare(channel);
    equal(await channel.get(queue), false);
    send(channel, queue, [..."abcd"]);
    equal((await channel.get(queue)).fields.messageCount, 3);
    equal(await channel.purgeQueue(queue), { messageCount: 3 });
    send(channel, queue, ["e"]);
    equal(await channel.deleteQueue(queue), { messageCount: 1 });
  });

  test("ttl_dead_letters_and_x_death", async () => {
    const channel = await open();
    const dead = await declare(channel);
    const queue = await declare(channel, { messageTtl: 150, deadLetterExchange: "", deadLetterRoutingKey: dead });
    send(channel, queue, ["a"], { expiration: "100" });
    const letters = await (await Worker.start(dead)).wait(1);
    const { headers, expiration } = letters.deliveries[0].properties;
    const [{ time, ...death }] = headers["x-death"];
    equal(expiration, undefined);
    equal(time["!"], "timestamp");
    equal(death, { count: 1, reason: "expired", queue, exchange: "", "routing-keys": [queue], "original-expiration": "100" });
  });

  test("unused_queues_expire", async () => {
    const channel = await open("createConfirmChannel");
    const queue = await declare(channel, { expires: 200 });
    const gone = once(channel, "return");
    let done = false;
    gone.then(() => (done = true));
    while (!done) await new Promise((resolve) => channel.sendToQueue(queue, Buffer.from("a"), { mandatory: true }, resolve));
  });

  test("length_limits", async () => {
    const channel = await open("createConfirmChannel");
    const dropping = await declare(channel, { maxLength: 2 });
    send(channel, dropping, ["a", "b", "c"]);
    equal([(await channel.get(dropping)).content.toString(), (await channel.get(dropping)).content.toString()], ["b", "c"]);
    const refusing = await declare(channel, { maxLength: 1, arguments: { "x-overflow": "reject-publish" } });
    const outcomes = await Promise.all(["a", "b"].map((body) => new Promise((resolve) => {
      channel.sendToQueue(refusing, Buffer.from(body), {}, (error) => resolve(error ? "nack" : "ack"));
    })));
    equal(outcomes, ["ack", "nack"]);
  });

  test("priorities", async () => {
    const channel = await open();
    const queue = await declare(channel, { maxPriority: 5 });
    for (const [body, priority] of [["a", 0], ["b", 3], ["c", 5], ["d", 3]]) send(channel, queue, [body], { priority });
    await becomesReady(channel, queue, 4);
    equal((await (await Worker.start(queue)).wait(4)).bodies, ["c", "b", "d", "a"]);
  });

  test("bodies_of_any_size_and_byte", async () => {
    const channel = await open();
    const queue = await declare(channel);
    const worker = await Worker.start(queue);
    const every = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    const bodies = [Buffer.alloc(0), Buffer.from([0xce]), Buffer.alloc(1 << 20, every), Buffer.alloc(20 << 20, every)];
    for (const [n, body] of bodies.entries()) {
      channel.sendToQueue(queue, body);
      await worker.wait(n + 1);
      equal(worker.deliveries[n].content.equals(body), true, `body ${n} unchanged`);
    }
  }, { seconds: 60 });

  test("properties_come_back_whole", async () => {
    const channel = await open();
    const queue = await declare(channel);
    const options = {
      contentType: "text/plain", contentEncoding: "utf-8", deliveryMode: 2, priority: 7, correlationId: "c", replyTo: "r",
      expiration: "60000", messageId: "m", timestamp: 1_700_000_000, type: "t", userId: "guest", appId: "a",
      headers: { text: "zażółć", yes: true, no: false, int: -5, long: 2 ** 40, double: 2.5, nothing: null, list: [1, [2, { three: 3 }]], table: { nested: {} } },
    };
    send(channel, queue, ["a"], options);
    const { properties } = await channel.get(queue);
    equal(Object.fromEntries(Object.keys(options).map((key) => [key, properties[key]])), options);
  });

  test("direct_reply_to", async () => {
    const client = await open();
    const server = await open();
    const queue = await declare(server);
    const replies = await Worker.start("amq.rabbitmq.reply-to", { channel: client, noAck: true });
    send(client, queue, ["ping"], { replyTo: "amq.rabbitmq.reply-to", correlationId: "1" });
    const request = (await (await Worker.start(queue, { channel: server, acks: true })).wait(1)).deliveries[0];
    send(server, request.properties.replyTo, ["pong"], { correlationId: request.properties.correlationId });
    await replies.wait(1);
    equal([replies.bodies[0], replies.deliveries[0].properties.correlationId], ["pong", "1"]);
  });

  test("frames_of_4096_octets", async () => {
    const connection = await connect("?frameMax=4096&channelMax=5&heartbeat=3");
    const channel = await open("createChannel", connection);
    const queue = await declare(channel);
    const body = Buffer.alloc(100_000, "x");
    channel.sendToQueue(queue, body);
    equal((await channel.get(queue)).content.equals(body), true);
  });

  for (const how of ["term", "kill"]) {
    test(`durable_after_restart_${how}`, async () => {
      const channel = await open("createConfirmChannel");
      const queue = await declare(channel, { durable: true });
      const passing = await declare(channel);
      send(channel, queue, [..."abc"], { persistent: true });
      send(channel, queue, ["transient"]);
      await channel.waitForConfirms();
      await restart(how);
      const again = await open();
      const worker = await (await Worker.start(queue, { channel: again })).wait(3);
      send(again, queue, ["last"]);
      await worker.wait(4);
      equal(worker.bodies, ["a", "b", "c", "last"]);
      await refused(again, () => again.checkQueue(passing), 404, `NOT_FOUND - no queue '${passing}' in vhost '/'`);
    }, { needs: "restart", seconds: 90 });
  }

  test("publishers_are_blocked_while_disk_space_is_short", async () => {
    const connection = await connect();
    const channel = await open("createConfirmChannel", connection);
    const queue = await declare(channel, { durable: true });
    const blocked = once(connection, "blocked");
    const unblocked = once(connection, "unblocked");
    send(channel, queue, ["a", "b"], { persistent: true });
    await channel.waitForConfirms();
    await limitFreeDisk("1000TB");
    let worker;
    try {
      worker = await Worker.start(queue, { acks: true });
      await worker.wait(2);
      send(channel, queue, ["c"], { persistent: true });
      equal((await blocked)[0], "low on disk");
      send(channel, queue, ["d", "e"], { persistent: true });
      equal(await count(worker.channel, queue), 0);
    } finally {
      await limitFreeDisk("50MB");
    }
    await unblocked;
    await channel.waitForConfirms();
    equal((await worker.wait(5)).bodies, [..."abcde"]);
  }, { needs: "restart" });

  test("confirmed_messages_survive_a_kill", async () => {
    const channel = await open("createConfirmChannel");
    const queue = await declare(channel, { durable: true });
    const confirmed = new Set();
    const killAt = Math.floor(Math.random() * 450);
    let killed;
    await new Promise((resolve) => {
      let answered = 0;
      for (let n = 0; n < 500; n += 1) {
        channel.sendToQueue(queue, Buffer.from(String(n)), { persistent: true }, (error) => {
          answered += 1;
          if (!error) confirmed.add(n);
          if (answered > killAt) killed ??= restart("kill");
          if (answered === 500) resolve();
        });
      }
    });
    await killed;
    const again = await open();
    const bodies = [];
    for (let message; (message = await again.get(queue)); ) bodies.push(Number(message.content));
    equal(bodies, [...bodies.keys()], `order after a kill near ${killAt}`);
    equal([...confirmed].filter((n) => n >= bodies.length), [], "confirmed and missing");
  }, { needs: "restart", seconds: 120 });
}
