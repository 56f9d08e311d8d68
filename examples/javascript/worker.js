// Works on the tasks of task_queue, one at a time; every dot in a task is a second of work.
import { setTimeout as sleep } from "node:timers/promises";
import amqp from "amqplib";

const connection = await amqp.connect(process.env.AMQP_URL ?? "amqp://guest:guest@localhost:5672/");
const channel = await connection.createChannel();
await channel.assertQueue("task_queue", { durable: true });
await channel.prefetch(1);

console.log(" [*] Waiting for tasks. To exit press CTRL+C");
await channel.consume("task_queue", async (message) => {
  const task = message.content.toString();
  console.log(` [x] Received '${task}'`);
  await sleep(1000 * (task.split(".").length - 1));
  console.log(" [x] Done");
  channel.ack(message);
});
