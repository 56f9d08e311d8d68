"""Exchanges definitions with RabbitMQ itself: what it exports loads into Leveret unchanged, and Leveret's export into it.

Both come out again as they went in, and users log in with the passwords whose hashes the file has.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from base64 import b64encode

import pika
from harness import HOST, PORT, equal, run, test
from rabbitmq_peer import RabbitMQ

OURS = int(os.environ["HTTP_PORT"])
PLUGINS = ["rabbitmq_management", "rabbitmq_consistent_hash_exchange", "rabbitmq_random_exchange", "rabbitmq_recent_history_exchange",
           "rabbitmq_federation", "rabbitmq_shovel"]
LISTS = ["users", "vhosts", "permissions", "topic_permissions", "parameters", "global_parameters", "policies", "queues", "exchanges", "bindings"]


def ask(port, method, path, body=None):
    headers = {"Authorization": "Basic " + b64encode(b"guest:guest").decode(), "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {path} on {port}: {error.code} {error.read().decode()}") from None
    return json.loads(text) if text else None


def fill(port):
    """Objects of every kind that a definitions file has, in RabbitMQ's own words."""
    def put(path, body):
        ask(port, "PUT", path, body)

    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    put("/vhosts/shop", {"description": "the shop", "tags": "a,b"})
    put("/vhosts/%C3%BC%2Fber", {})
    put("/users/anna", {"password": "anna's secret", "tags": "administrator"})
    put("/users/ben", {"password": "ben", "tags": "management,policymaker"})
    put("/users/locked", {"password_hash": "", "tags": ""})
    for vhost in ("shop", "%C3%BC%2Fber"):
        for user in ("guest", "anna"):
            put(f"/permissions/{vhost}/{user}", everything)
    put("/permissions/shop/ben", {"configure": "", "write": "^order", "read": "^(order|mail)"})
    put("/topic-permissions/shop/ben", {"exchange": "amq.topic", "write": "^order\\.", "read": ".*"})
    put("/vhost-limits/shop/max-queues", {"value": 500})
    put("/vhost-limits/shop/max-connections", {"value": 60})
    put("/user-limits/ben/max-channels", {"value": 20})
    put("/global-parameters/colours", {"value": {"sky": "blue", "deep": [1, 2.5, None, {"a": True}]}})
    put("/parameters/federation-upstream/shop/up", {"value": {"uri": "amqp://localhost", "expires": 3600000}})
    put("/parameters/shovel/shop/dig", {"value": {"src-protocol": "amqp091", "src-uri": "amqp://", "src-queue": "a", "dest-protocol": "amqp091", "dest-uri": "amqp://", "dest-queue": "b"}})
    put("/policies/shop/long", {"pattern": "^order", "apply-to": "queues", "priority": 4, "definition": {"max-length": 9000, "message-ttl": 86400000, "overflow": "reject-publish"}})
    # Mirrors mean nothing here: the policy is left out, and those keys are of the other.
    put("/policies/shop/mirrors", {"pattern": "^m", "definition": {"ha-mode": "exactly", "ha-params": 2}})
    put("/policies/shop/mirrored.and.more", {"pattern": "^mirrored", "apply-to": "all", "definition": {"ha-mode": "all", "ha-sync-mode": "automatic", "expires": 86400000}})
    put("/operator-policies/shop/cap", {"pattern": ".*", "apply-to": "queues", "definition": {"max-length-bytes": 1000000000}})
    for name, kind, more in (
        ("orders", "topic", {}), ("dead", "fanout", {}), ("heads", "headers", {}), ("plain", "direct", {"auto_delete": True}),
        ("hidden", "direct", {"internal": True}), ("spread", "x-consistent-hash", {"arguments": {"hash-header": "id"}}),
        ("any", "x-random", {}), ("last", "x-recent-history", {"arguments": {"x-recent-history-length": 5}}),
        ("with alternate", "topic", {"arguments": {"alternate-exchange": "dead"}}), ("passing", "fanout", {"durable": False}),
    ):
        put(f"/exchanges/shop/{urllib.request.quote(name)}", {"type": kind, "durable": True, **more})
    for name, arguments, more in (
        ("order.new", {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-dead-letter-exchange": "dead"}, {}),
        ("order.log", {"x-queue-type": "stream", "x-max-age": "7D", "x-max-length-bytes": 1000000000}, {}),
        ("mail", {"x-max-priority": 10, "x-message-ttl": 60000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "mail.dead"}, {}),
        ("mail.dead", {"x-queue-mode": "lazy", "x-max-length": 100, "x-overflow": "reject-publish-dlx"}, {}),
        ("one by one", {"x-single-active-consumer": True, "x-expires": 3600000, "x-queue-version": 2}, {}),
        ("mirrored.q", {"x-queue-master-locator": "min-masters"}, {}),
        ("passing", {}, {"durable": False}), ("gone", {}, {"auto_delete": True}), ("für alle/jeden", {"x-tool": "Zürich"}, {}),
    ):
        put(f"/queues/shop/{urllib.request.quote(name, safe='')}", {"durable": True, "arguments": arguments, **more})
    for path, key, arguments in (
        ("orders/q/order.new", "order.#", {}), ("orders/q/order.log", "#", {}), ("orders/e/dead", "lost.*", {}),
        ("heads/q/mail", "", {"x-match": "any", "kind": "mail", "size": 3, "share": 1.5, "is": True}),
        ("spread/q/mail", "10", {}), ("dead/q/mail.dead", "", {}), ("amq.topic/q/mail", "ö/k", {}),
    ):
        ask(port, "POST", f"/bindings/shop/e/{path}", {"routing_key": key, "arguments": arguments})


def lists(document, drops=()):
    """What a file says, in an order of its own and without what each broker names differently."""
    def plain(kind, one):
        one = {key: value for key, value in one.items() if (kind, key) not in drops}
        return json.dumps(one, sort_keys=True)

    def without_mirrors(policy):
        definition = {key: value for key, value in policy["definition"].items() if not key.startswith("ha-")}
        return {**policy, "definition": definition}

    skipped = ("internal_cluster_id", "cluster_name")
    policies = [policy for policy in map(without_mirrors, document.get("policies", [])) if policy["definition"]]
    document = {**document, "policies": policies}
    return {kind: sorted(plain(kind, one) for one in document.get(kind, []) if one.get("name") not in skipped) for kind in LISTS}


def compare(got, wanted, drops):
    got, wanted = lists(got, drops), lists(wanted, drops)
    for kind in LISTS:
        missing, more = set(wanted[kind]) - set(got[kind]), set(got[kind]) - set(wanted[kind])
        assert not missing and not more, f"{kind}: lost {sorted(missing)}, new {sorted(more)}"


def log_in(port, user, password, vhost="shop"):
    login = pika.PlainCredentials(user, password)
    pika.BlockingConnection(pika.ConnectionParameters(HOST, port, vhost, login)).close()


# RabbitMQ 3.10 tells a queue's type in its arguments only, and of a vhost its name.
DROPS = {("queues", "type")} | {("vhosts", key) for key in ("limits", "metadata", "default_queue_type", "description", "tags", "protected_from_deletion")}


@test(seconds=60)
def what_rabbitmq_exports_loads_unchanged():
    fill(peer.http)
    exported = ask(peer.http, "GET", "/definitions")
    ask(OURS, "POST", "/definitions", exported)
    compare(ask(OURS, "GET", "/definitions"), exported, DROPS)
    # It is taken for what it is when it comes again.
    ask(OURS, "POST", "/definitions", exported)
    equal(ask(OURS, "GET", "/vhost-limits/shop"), [{"vhost": "shop", "value": {"max-connections": 60, "max-queues": 500}}])
    equal(ask(OURS, "GET", "/user-limits/ben"), [{"user": "ben", "value": {"max-channels": 20}}])


@test()
def a_vhosts_definitions_load_unchanged():
    exported = ask(peer.http, "GET", "/definitions/shop")
    ask(OURS, "PUT", "/vhosts/again", {})
    ask(OURS, "POST", "/definitions/again", exported)
    ours = ask(OURS, "GET", "/definitions/again")
    for kind in ("queues", "exchanges", "bindings", "policies"):
        drops = DROPS | {(kind, "vhost")}
        equal(lists(ours, drops)[kind], lists(exported, drops)[kind], kind)


@test()
def users_log_in_by_rabbitmqs_hash():
    log_in(PORT, "anna", "anna's secret")
    log_in(PORT, "ben", "ben")
    for user, password in (("anna", "anna"), ("locked", ""), ("ben", "")):
        try:
            log_in(PORT, user, password)
            raise AssertionError(f"{user} got in")
        except pika.exceptions.ProbableAuthenticationError:
            pass


@test(seconds=90)
def what_we_export_loads_into_rabbitmq():
    ask(OURS, "DELETE", "/vhosts/again")
    ask(OURS, "PUT", "/vhosts/ours", {"description": "ours"})
    ask(OURS, "PUT", "/users/carl", {"password": "carl", "tags": ["monitoring"]})
    for user in ("guest", "carl"):
        ask(OURS, "PUT", f"/permissions/ours/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
    ask(OURS, "PUT", "/queues/ours/q", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    ask(OURS, "PUT", "/policies/ours/p", {"pattern": ".*", "apply-to": "queues", "definition": {"max-length": 5}})
    exported = ask(OURS, "GET", "/definitions")
    for vhost in ("shop", "%C3%BC%2Fber"):
        ask(peer.http, "DELETE", f"/vhosts/{vhost}")
    for user in ("anna", "ben", "locked"):
        ask(peer.http, "DELETE", f"/users/{user}")
    ask(peer.http, "DELETE", "/global-parameters/colours")
    ask(peer.http, "POST", "/definitions", exported)
    compare(ask(peer.http, "GET", "/definitions"), exported, DROPS | {("users", "password_hash"), ("users", "hashing_algorithm")})
    log_in(peer.amqp, "anna", "anna's secret")
    log_in(peer.amqp, "ben", "ben")


if __name__ == "__main__":
    peer = RabbitMQ(PLUGINS)
    try:
        run()
    finally:
        peer.stop()
