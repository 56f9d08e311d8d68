"""Works on the tasks of task_queue, one at a time; every dot in a task is a second of work."""

import os
import time

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")


def work(channel, method, _properties, body):
    task = body.decode()
    print(f" [x] Received '{task}'", flush=True)
    time.sleep(task.count("."))
    print(" [x] Done", flush=True)
    channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare("task_queue", durable=True)
channel.basic_qos(prefetch_count=1)
channel.basic_consume("task_queue", work)
print(" [*] Waiting for tasks. To exit press CTRL+C", flush=True)
try:
    channel.start_consuming()
except KeyboardInterrupt:
    connection.close()
