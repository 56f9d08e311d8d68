"""Sessions recorded with py-amqp, Celery's client: `python3 pyamqp_sessions.py PORT NAME`."""

import sys
import time

import amqp


def connect(port, **options):
    connection = amqp.Connection(f"127.0.0.1:{port}", **options)
    connection.connect()
    return connection


def drain(connection, ms):
    """Handles what comes within that time."""
    end = time.monotonic() + ms / 1000
    while (left := end - time.monotonic()) > 0:
        try:
            connection.drain_events(timeout=left)
        except TimeoutError:
            return


def transactions(port):
    connection = connect(port)
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare("booked", durable=True, auto_delete=False)
    channel.tx_select()
    channel.basic_publish(amqp.Message("one", delivery_mode=2), routing_key="booked")
    channel.basic_publish(amqp.Message("two", delivery_mode=2), routing_key="booked")
    other.basic_get("booked")
    channel.tx_commit()
    channel.basic_publish(amqp.Message("three"), routing_key="booked")
    channel.tx_rollback()
    got = channel.basic_get("booked")
    channel.basic_ack(got.delivery_tag)
    channel.tx_rollback()
    channel.basic_ack(got.delivery_tag)
    channel.tx_commit()
    other.queue_declare("booked", passive=True)
    other.queue_delete("booked")
    connection.close()


def prefetch(port):
    connection = connect(port)
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare("rationed", auto_delete=False)
    for body in "abcdef":
        channel.basic_publish(amqp.Message(body), routing_key="rationed")
    time.sleep(0.05)
    channel.queue_declare("rationed", passive=True)
    seen = []
    channel.basic_qos(0, 2, False)
    channel.basic_consume("rationed", consumer_tag="two", callback=seen.append)
    drain(connection, 200)
    channel.basic_ack(seen[0].delivery_tag)
    drain(connection, 200)
    channel.basic_ack(seen[-1].delivery_tag, multiple=True)
    drain(connection, 200)
    channel.basic_reject(seen[-1].delivery_tag, requeue=True)
    drain(connection, 200)
    channel.basic_cancel("two")
    channel.basic_recover(requeue=True)
    drain(connection, 50)
    other.queue_declare("rationed", passive=True)
    other.basic_qos(0, 1, True)
    other.basic_consume("rationed", consumer_tag="whole", callback=seen.append)
    drain(connection, 200)
    other.close()
    channel.queue_declare("rationed", passive=True)
    channel.queue_delete("rationed")
    connection.close()


def amqplain(port):
    connection = connect(port, login_method="AMQPLAIN", heartbeat=0, frame_max=8192, channel_max=3)
    channel = connection.channel()
    channel.queue_declare("framed", auto_delete=False)
    channel.basic_publish(amqp.Message("x" * 9000), routing_key="framed")
    time.sleep(0.05)
    channel.basic_get("framed", no_ack=True)
    channel.queue_delete("framed")
    channel.close()
    connection.close()


if __name__ == "__main__":
    globals()[sys.argv[2]](int(sys.argv[1]))
    time.sleep(0.2)
