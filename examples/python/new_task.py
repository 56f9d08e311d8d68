"""Puts one task on the durable queue task_queue: python new_task.py First task."""

import os
import sys

import pika

message = " ".join(sys.argv[1:]) or "Hello World!"

url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare("task_queue", durable=True)
channel.basic_publish(
    exchange="",
    routing_key="task_queue",
    body=message.encode(),
    properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
)
print(f" [x] Sent '{message}'")
connection.close()
