// Sessions recorded with amqplib: `node amqplib_sessions.mjs PORT NAME`.
import { createRequire } from "node:module";

const amqp = createRequire(new URL("../../compat/node/", import.meta.url))("amqplib");
const [port, name] = process.argv.slice(2);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const connection = await amqp.connect({ hostname: "127.0.0.1", port: Number(port), heartbeat: 0 });
const channel = await connection.createChannel();

const sessions = {
  async routing() {
    for (const queue of ["left", "right"]) await channel.assertQueue(queue, { durable: false });
    await channel.assertExchange("news", "topic", { durable: false });
    await channel.assertExchange("all", "fanout", { durable: false, autoDelete: true });
    await channel.assertExchange("lost", "fanout", { durable: false });
    await channel.assertExchange("entry", "direct", { durable: false, alternateExchange: "lost" });
    await channel.bindQueue("left", "news", "*.red.#");
    await channel.bindQueue("right", "news", "#");
    await channel.bindQueue("left", "amq.headers", "", { "x-match": "all", colour: "red", size: 1 });
    await channel.bindQueue("right", "amq.headers", "", { "x-match": "any", colour: "red", size: 1 });
    await channel.bindExchange("news", "entry", "in");
    await channel.bindExchange("news", "all", "");
    await channel.bindQueue("right", "lost", "");
    for (const key of ["a.red", "a.red.b.c", "red", "green"]) channel.publish("news", key, Buffer.from(key));
    channel.publish("amq.headers", "", Buffer.from("both"), { headers: { colour: "red", size: 1 } });
    channel.publish("amq.headers", "", Buffer.from("one"), { headers: { colour: "blue", size: 1 } });
    channel.publish("entry", "in", Buffer.from("through"));
    channel.publish("entry", "out", Buffer.from("alternate"));
    channel.publish("all", "b.red", Buffer.from("to all"));
    channel.publish("", "left", Buffer.from("copied"), { CC: ["right"], BCC: ["right", "nobody"] });
    await pause(50);
    for (const queue of ["left", "right"]) while (await channel.get(queue, { noAck: true }));
    await channel.unbindExchange("news", "all", "");
    await channel.unbindQueue("left", "news", "*.red.#");
    channel.publish("news", "a.red", Buffer.from("right only"), { mandatory: true });
    for (const queue of ["left", "right"]) await channel.deleteQueue(queue);
    for (const exchange of ["all", "entry", "lost", "news"]) await channel.deleteExchange(exchange);
  },

  async replies() {
    const server = await connection.createChannel();
    await server.assertQueue("questions", { durable: false });
    const { consumerTag } = await server.consume("questions", ({ properties, content }) => {
      server.sendToQueue(properties.replyTo, Buffer.from(`${content}!`), { correlationId: properties.correlationId });
    }, { noAck: true });
    const answered = new Promise((done) => {
      channel.consume("amq.rabbitmq.reply-to", done, { noAck: true }).then(() => {
        channel.sendToQueue("questions", Buffer.from("answer"), {
          replyTo: "amq.rabbitmq.reply-to", correlationId: "7",
        });
      });
    });
    await answered;
    await server.cancel(consumerTag);
    await server.deleteQueue("questions");
    await server.close();
  },

  async dead_letters() {
    await channel.assertQueue("buried", { durable: false });
    await channel.assertExchange("graves", "direct", { durable: false });
    await channel.bindQueue("buried", "graves", "short");
    await channel.bindQueue("buried", "graves", "grave");
    await channel.assertQueue("rejecting", {
      durable: false, deadLetterExchange: "graves", deadLetterRoutingKey: "grave",
    });
    await channel.assertQueue("short", { durable: false, deadLetterExchange: "graves", maxLength: 1 });
    await channel.assertQueue("brief", { durable: false, deadLetterExchange: "", deadLetterRoutingKey: "buried",
      messageTtl: 50 });
    channel.sendToQueue("rejecting", Buffer.from("rejected"), { headers: { kept: true }, messageId: "1" });
    await pause(50);
    channel.reject(await channel.get("rejecting"), false);
    await pause(50);
    await channel.get("buried", { noAck: true });
    channel.sendToQueue("short", Buffer.from("pushed out"));
    channel.sendToQueue("short", Buffer.from("stays"));
    await pause(50);
    await channel.get("buried", { noAck: true });
    channel.sendToQueue("brief", Buffer.from("expires"), { expiration: 5000 });
    channel.sendToQueue("brief", Buffer.from("expires sooner"), { expiration: 20 });
    await pause(300);
    await channel.get("buried", { noAck: true });
    await channel.get("buried", { noAck: true });
    for (const queue of ["rejecting", "short", "brief", "buried"]) await channel.deleteQueue(queue);
    await channel.deleteExchange("graves");
  },
};

await sessions[name]();
await channel.close();
await connection.close();
