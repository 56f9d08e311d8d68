// Puts one task on the durable queue task_queue: node new_task.js First task.
import amqp from "amqplib";

const message = process.argv.slice(2).join(" ") || "Hello World!";

const connection = await amqp.connect(process.env.AMQP_URL ?? "amqp://guest:guest@localhost:5672/");
const channel = await connection.createChannel();
await channel.assertQueue("task_queue", { durable: true });
channel.sendToQueue("task_queue", Buffer.from(message), { persistent: true });
console.log(` [x] Sent '${message}'`);
await channel.close();
await connection.close();
