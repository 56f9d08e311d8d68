"""Replays what tools ask of RabbitMQ over HTTP, each as its source has it, with a user as its documentation wants one:
KEDA's scaler, the Terraform provider (through rabbit-hole), kbudde's exporter and Prometheus; and checks what they read
out of the answers.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from urllib.parse import quote

import pika
from harness import HOST, PORT, equal, run, test

BASE = f"http://127.0.0.1:{os.environ['HTTP_PORT']}"
METRICS = f"http://127.0.0.1:{os.environ['METRICS_PORT']}"


def ask(method, path, body=None, user="guest", status=200, headers=(), base=BASE):
    """Sends a request; the answer's headers and body, decoded if that is JSON."""
    login = b64encode(f"{user}:{user}".encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Authorization": f"Basic {login}", **dict(headers)}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            got, head, text = answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        got, head, text = error.code, error.headers, error.read().decode()
    assert got == status, f"{method} {path} as {user}: {got}, expected {status}: {text}"
    return head, json.loads(text) if head.get_content_type() == "application/json" and text else text


def get(path, **how):
    return ask("GET", path, **how)[1]


def broker():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))


def prepare():
    for user, tags in (("monitor", "monitoring"), ("scaler", "management"), ("terraform", "administrator")):
        ask("PUT", f"/api/users/{user}", {"password": user, "tags": tags}, status=201)
        ask("PUT", f"/api/permissions/%2F/{user}", {"configure": ".*", "write": ".*", "read": ".*"}, status=201)
    channel = broker().channel()
    channel.queue_declare("work.a", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare("work.b", durable=True)
    channel.confirm_delivery()
    for _ in range(5):
        channel.basic_publish("", "work.a", b"1234567890")
    channel.basic_get("work.a")  # stays unacknowledged: nobody closes this connection
    return channel


# --- KEDA ---------------------------------------------------------------------------------------------------------------


@test()
def keda_reads_a_queue_by_name():
    """protocol: http, mode QueueLength and MessageRate: the queue's JSON, decoded into numbers."""
    queue = get("/api/queues/%2F/work.a", user="scaler")
    equal((queue["messages"], queue["messages_unacknowledged"], queue["name"]), (5, 1, "work.a"))
    for detail in ("publish_details", "deliver_get_details"):
        assert isinstance(queue["message_stats"][detail]["rate"], (int, float)), queue["message_stats"]


@test()
def keda_reads_queues_by_a_pattern():
    """useRegex: a page of queues, whose items are summed, or the greatest taken; a different vhost in the path."""
    query = "page=1&use_regex=true&pagination=false&name=%5Ework%5C.&page_size=100"
    page = get(f"/api/queues/%2F?{query}", user="scaler")
    queues = page["items"] if isinstance(page, dict) else page
    equal(sorted(queue["name"] for queue in queues), ["work.a", "work.b"])
    equal(sum(queue["messages"] for queue in queues), 5)
    # Without a vhost it is asked like this.
    everywhere = get(f"/api/queues?{query}", user="scaler")
    assert len(everywhere["items"] if isinstance(everywhere, dict) else everywhere) == 2


@test()
def keda_takes_a_missing_queue_for_none():
    ask("GET", "/api/queues/%2F/nope", user="scaler", status=404)


@test()
def keda_declares_passively_over_amqp():
    channel = broker().channel()
    equal(channel.queue_declare("work.a", passive=True).method.message_count, 4)


# --- Terraform ------------------------------------------------------------------------------------------------------------


def applied(path, body, read=None):
    """What a resource's create, read, update and delete do: the body comes back with the types it had."""
    as_terraform = {"user": "terraform"}
    ask("PUT", path, body, status=201, **as_terraform)
    shown = get(read or path, **as_terraform)
    for key, value in body.items():
        equal(shown.get(key), value, f"{path} {key}")
    ask("PUT", path, body, status=204, **as_terraform)
    ask("DELETE", path, status=204, **as_terraform)
    ask("GET", read or path, status=404, **as_terraform)


@test()
def terraform_manages_each_of_its_resources():
    ask("PUT", "/api/vhosts/tf", {"description": "d", "tags": [], "default_queue_type": "quorum", "tracing": False}, user="terraform", status=201)
    shown = get("/api/vhosts/tf", user="terraform")
    equal((shown["name"], shown["description"], shown["default_queue_type"], shown["tracing"]), ("tf", "d", "quorum", False))
    ask("PUT", "/api/permissions/tf/terraform", {"configure": ".*", "write": ".*", "read": ".*"}, user="terraform", status=204)
    applied("/api/exchanges/tf/x", {"type": "topic", "durable": True, "auto_delete": False, "internal": False, "arguments": {"alternate-exchange": "y"}})
    applied("/api/queues/tf/q", {"durable": True, "auto_delete": False, "arguments": {"x-queue-type": "quorum", "x-message-ttl": 5000}})
    applied("/api/policies/tf/p", {"pattern": ".*", "priority": 3, "apply-to": "queues", "definition": {"max-length": 9, "overflow": "reject-publish"}})
    applied("/api/operator-policies/tf/o", {"pattern": ".*", "priority": 0, "apply-to": "queues", "definition": {"max-length": 99}})
    applied("/api/permissions/tf/scaler", {"configure": "^a", "write": "", "read": ".*"})
    ask("PUT", "/api/topic-permissions/tf/scaler", {"exchange": "amq.topic", "write": "^a", "read": ".*"}, user="terraform", status=201)
    equal([p["exchange"] for p in get("/api/topic-permissions/tf/scaler", user="terraform")], ["amq.topic"])
    ask("DELETE", "/api/topic-permissions/tf/scaler", status=204, user="terraform")
    ask("PUT", "/api/parameters/federation-upstream/tf/up", {"value": {"uri": "amqp://localhost", "max-hops": 1}}, user="terraform", status=201)
    equal(get("/api/parameters/federation-upstream/tf/up", user="terraform")["value"], {"uri": "amqp://localhost", "max-hops": 1})
    ask("PUT", "/api/vhost-limits/tf/max-queues", {"value": 7}, user="terraform", status=204)
    equal(get("/api/vhost-limits/tf", user="terraform"), [{"vhost": "tf", "value": {"max-queues": 7}}])


@test()
def terraform_binds_and_finds_its_binding_again():
    how = {"user": "terraform"}
    ask("PUT", "/api/vhosts/tfb", {}, status=201, **how)
    ask("PUT", "/api/queues/tfb/q", {"durable": True}, status=201, **how)
    ask("PUT", "/api/exchanges/tfb/x", {"type": "headers", "durable": True}, status=201, **how)
    arguments = {"x-match": "all", "kind": "a/b", "count": 3}
    head, _ = ask("POST", "/api/bindings/tfb/e/x/q/q", {"routing_key": "k/1", "arguments": arguments}, status=201, **how)
    key = head["Location"].rsplit("/", 1)[1]
    (found,) = [b for b in get("/api/bindings/tfb", **how) if b["source"] == "x"]
    equal((found["arguments"], found["routing_key"]), (arguments, "k/1"))
    equal(found["properties_key"], urllib.request.unquote(key))
    ask("DELETE", f"/api/bindings/tfb/e/x/q/q/{quote(found['properties_key'], safe='')}", status=204, **how)
    equal([b for b in get("/api/bindings/tfb", **how) if b["source"] == "x"], [])


@test()
def terraform_keeps_a_user_by_hash_and_tags():
    hashed = {"password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "management"}
    ask("PUT", "/api/users/tfu", hashed, user="terraform", status=201)
    user = get("/api/users/tfu", user="terraform")
    equal((user["password_hash"], user["tags"]), (hashed["password_hash"], ["management"]))
    ask("DELETE", "/api/users/tfu", user="terraform", status=204)
    ask("GET", "/api/users/tfu", user="terraform", status=404)


# --- kbudde's exporter ----------------------------------------------------------------------------------------------------


@test()
def the_exporter_reads_what_it_makes_metrics_of():
    """Capabilities bert and no_sort: it asks for Erlang's encoding and takes JSON, and for lists without an order."""
    how = {"user": "monitor", "headers": [("Accept", "application/bert, application/json;q=0.1")]}
    overview = get("/api/overview", **how)
    equal(set(overview["object_totals"]), {"channels", "connections", "consumers", "exchanges", "queues"})
    for total in ("messages", "messages_ready", "messages_unacknowledged"):
        assert isinstance(overview["queue_totals"][total], int)
    assert overview["node"] and overview["rabbitmq_version"] and overview["cluster_name"]
    (node,) = get("/api/nodes?sort=", **how)
    for field in ("mem_used", "mem_limit", "disk_free", "disk_free_limit", "fd_used", "fd_total", "sockets_used", "sockets_total", "uptime", "running", "mem_alarm", "disk_free_alarm", "partitions"):
        assert field in node, field
    queues = get("/api/queues?sort=", **how)
    (queue,) = [queue for queue in queues if queue["name"] == "work.a"]
    for field in ("vhost", "durable", "state", "consumers", "memory", "messages_ready", "messages_persistent", "message_bytes", "message_bytes_ready"):
        assert field in queue, field
    assert queue["message_stats"]["publish"] == 5
    assert any(exchange["name"] == "amq.topic" for exchange in get("/api/exchanges?sort=", **how))
    assert get("/api/connections?sort=", **how)[0]["vhost"] == "/"
    for vhost in (quote("/", safe=""),):
        equal(get(f"/api/aliveness-test/{vhost}", **how), {"status": "ok"})
    get("/api/federation-links", user="monitor", status=404)
    get("/api/shovels", user="monitor", status=404)


# --- Prometheus -----------------------------------------------------------------------------------------------------------

# What the panels of RabbitMQ's own dashboards read from the aggregated page.
READ_BY_DASHBOARDS = """
rabbitmq_identity_info rabbitmq_build_info rabbitmq_connections rabbitmq_channels rabbitmq_queues rabbitmq_consumers
rabbitmq_queue_messages_ready rabbitmq_queue_messages_unacked rabbitmq_queue_messages
rabbitmq_connections_opened_total rabbitmq_connections_closed_total rabbitmq_channels_opened_total
rabbitmq_channels_closed_total rabbitmq_queues_declared_total rabbitmq_queues_created_total rabbitmq_queues_deleted_total
rabbitmq_process_open_fds rabbitmq_process_max_fds rabbitmq_process_resident_memory_bytes
rabbitmq_resident_memory_limit_bytes rabbitmq_disk_space_available_bytes rabbitmq_disk_space_available_limit_bytes
rabbitmq_erlang_uptime_seconds rabbitmq_global_messages_received_total rabbitmq_global_messages_received_confirm_total
rabbitmq_global_messages_routed_total rabbitmq_global_messages_confirmed_total
rabbitmq_global_messages_unroutable_dropped_total rabbitmq_global_messages_unroutable_returned_total
rabbitmq_global_messages_delivered_total rabbitmq_global_messages_delivered_consume_manual_ack_total
rabbitmq_global_messages_delivered_consume_auto_ack_total rabbitmq_global_messages_delivered_get_manual_ack_total
rabbitmq_global_messages_delivered_get_auto_ack_total rabbitmq_global_messages_redelivered_total
rabbitmq_global_messages_acknowledged_total rabbitmq_global_messages_get_empty_total rabbitmq_global_publishers
rabbitmq_global_consumers rabbitmq_alarms_memory_used_watermark rabbitmq_alarms_free_disk_space_watermark
""".split()
# Ours, promised in docs/metrics.md.
OURS = """
leveret_oldest_ready_age_seconds leveret_oldest_unacked_age_seconds leveret_late_leases leveret_queues_paused
leveret_log_bytes leveret_log_live_bytes leveret_log_sync_seconds_bucket leveret_time_in_queue_seconds_bucket
leveret_time_to_ack_seconds_count
""".split()


def scraped(path):
    """A page of metrics: each name with its samples, labels and value; malformed lines are errors."""
    head, text = ask("GET", path, base=METRICS, headers=[("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")])
    assert head["Content-Type"].startswith("text/plain; version=0.0.4"), head["Content-Type"]
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r'([a-z_0-9]+)(\{.*\})? (\S+)', line).groups()
            samples.setdefault(name, []).append((dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")), float(value)))
    return samples


@test()
def prometheus_finds_every_name_that_dashboards_read():
    page = scraped("/metrics")
    equal([name for name in READ_BY_DASHBOARDS + OURS if name not in page], [], "missing")
    equal(page["rabbitmq_queue_messages_unacked"], [({}, 1.0)])
    labels = page["rabbitmq_identity_info"][0][0]
    equal(sorted(labels), ["rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_endpoint", "rabbitmq_node"])
    assert page["rabbitmq_global_messages_received_total"][0][0]["protocol"] == "amqp091"


@test()
def prometheus_finds_objects_one_by_one():
    page = scraped("/metrics/per-object")
    ready = {labels["queue"]: value for labels, value in page["rabbitmq_queue_messages_ready"]}
    equal((ready["work.a"], ready["work.b"]), (4.0, 0.0))
    families = "family=queue_coarse_metrics&family=queue_consumer_count&family=exchange_names&vhost=%2F"
    page = scraped(f"/metrics/detailed?{families}")
    ready = {labels["queue"]: value for labels, value in page["rabbitmq_detailed_queue_messages_ready"]}
    equal(ready["work.a"], 4.0)
    assert {labels["vhost"] for labels, _ in page["rabbitmq_detailed_queue_messages_ready"]} == {"/"}
    assert "rabbitmq_detailed_queue_consumers" in page and "rabbitmq_cluster_exchange_name" in page
    assert any(name.startswith("rabbitmq_memory_") for name in scraped("/metrics/memory-breakdown"))


@test()
def prometheus_finds_how_long_messages_took():
    channel = broker().channel()
    channel.queue_declare("timed")
    for _ in range(3):
        channel.basic_publish("", "timed", b"x")
    for got, (method, _, _) in enumerate(channel.consume("timed"), 1):
        if got == 3:
            break
    channel.basic_ack(method.delivery_tag, multiple=True)
    channel.queue_declare("timed", passive=True)  # the acknowledgement came before this
    page = scraped("/metrics/detailed?family=leveret_queue_time_metrics")
    for name in ("in_queue", "to_ack"):
        (count,) = [value for labels, value in page[f"leveret_queue_time_{name}_seconds_count"] if labels["queue"] == "timed"]
        equal(count, 3.0, name)
        buckets = [value for labels, value in page[f"leveret_queue_time_{name}_seconds_bucket"] if labels["queue"] == "timed"]
        equal((len(buckets), buckets[-1], sorted(buckets) == buckets), (15, 3.0, True), name)
        assert scraped("/metrics")[f"leveret_time_{name}_seconds_count"][0][1] >= 3.0


if __name__ == "__main__":
    keeps_its_delivery = prepare()
    sys.exit(run())
