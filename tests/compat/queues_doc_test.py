"""Every example of docs/queues.md does what the text around it says.

The examples of a section run as they stand, one after another: the shell's with `leveret` on the path, Python's after the
two lines that the document gives. What a section takes for granted is made first, and what it promises is checked then.
"""

import itertools
import json
import os
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pika
from harness import PORT, equal, run, tests

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "docs" / "queues.md"
HTTP_PORT = os.environ["HTTP_PORT"]
API = f"http://127.0.0.1:{HTTP_PORT}/api"
DURABLE = {"durable": True}


def sections():
    """The examples of each section: (language, text) in order, by the section's title."""
    found = {}
    for part in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        title = part.split("\n", 1)[0].strip()
        found[title] = re.findall(r"^```(\w+)\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
    return {title: examples for title, examples in found.items() if examples}


class Stage:
    """A connection to the server, and what the tests ask of it beside the examples."""

    def __init__(self):
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(port=PORT))
        self.channel = self.connection.channel()
        self.names = {"pika": pika, "connection": self.connection, "channel": self.channel}

    def example(self, language, text):
        if language == "python":
            exec(compile(text, f"{DOCUMENT.name}: an example", "exec"), self.names)
        elif language == "sh":
            shell(text.replace("localhost:15672", f"127.0.0.1:{HTTP_PORT}"))
        elif language == "js":
            self.names["js"] = text
        else:
            raise AssertionError(f"nobody knows how to run an example in {language}")

    def queue(self, name, count=0, headers=None, **arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.channel.queue_declare(name, durable=True, arguments=arguments)
        for number in range(count):
            properties = pika.BasicProperties(delivery_mode=2, headers=headers)
            self.channel.basic_publish("", name, b"timeout %d" % number, properties)

    def get(self, name, **options):
        """The next message of a queue, as (method, properties, body)."""
        return self.channel.basic_get(name, **options)

    def depth(self, name):
        """How many of a queue's messages are ready, unacknowledged and delayed."""
        view = api("queues/%2F/" + urllib.parse.quote(name, safe=""))
        return tuple(view[f"messages_{state}"] for state in ("ready", "unacknowledged", "delayed"))

    def confirm(self):
        """What was published before on the channel is in its queues."""
        self.channel.queue_declare("", exclusive=True)

    def forget(self):
        self.connection.close()
        for view in api("queues"):
            api(f"queues/%2F/{urllib.parse.quote(view['name'], safe='')}", "DELETE")
        for view in api("exchanges"):
            if view["name"] and not view["name"].startswith("amq."):
                api(f"exchanges/%2F/{urllib.parse.quote(view['name'], safe='')}", "DELETE")
        for kind in ("policies", "operator-policies"):
            for view in api(kind):
                api(f"{kind}/%2F/{view['name']}", "DELETE")


def api(path, method="GET"):
    request = urllib.request.Request(f"{API}/{path}", method=method)
    request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def shell(text):
    done = subprocess.run(["bash", "-euc", text], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"status {done.returncode} of {text!r}: {done.stderr or done.stdout}"
    return done.stdout


# --- what each section takes for granted, and what it promises ---------------------------------------------------------

before, after = {}, {}


def given(title):
    return lambda body: before.setdefault(title, body)


def then(title):
    return lambda body: after.setdefault(title, body)


@given("Pause and resume")
def _(stage):
    stage.queue("tasks", 1)


@then("Pause and resume")
def _(stage):
    equal(stage.get("tasks")[2], b"timeout 0")
    shell("leveret ctl pause_queue tasks")
    stage.queue("tasks", 1)
    equal(stage.get("tasks"), (None, None, None), "of a paused queue")


@given("Looking at messages")
def _(stage):
    stage.queue("tasks", 1010, {"tenant": "acme"})


@then("Looking at messages")
def _(stage):
    equal(stage.depth("tasks"), (1010, 0, 0))
    seen = api("queues/%2F/tasks/messages?count=5&header.tenant=acme&body=timeout")["items"]
    equal([item["seq"] for item in seen], [1, 2, 3, 4, 5])


@given("Deleting, moving, requeuing and releasing messages")
def _(stage):
    stage.queue("acme")
    stage.queue("slow")
    stage.channel.exchange_declare("retry")
    stage.channel.queue_bind("slow", "retry", "slow")
    stage.queue("tasks", 3, {"tenant": "acme"})
    stage.queue("tasks", 4710)
    for tenant in ("acme", "acme", "other"):
        stage.queue("reminders", 1, {"tenant": tenant, "x-delay": 600_000})
    stage.confirm()


@then("Deleting, moving, requeuing and releasing messages")
def _(stage):
    equal(stage.depth("acme"), (3, 0, 0))
    equal(stage.depth("slow"), (100, 0, 0))
    equal(stage.depth("tasks"), (4713 - 2 - 3 - 100, 0, 0))
    equal(stage.depth("reminders"), (2, 0, 0), "what was released")


@given("Redriving a dead letter queue")
def _(stage):
    stage.queue("tasks.v2")
    stage.queue("tasks.dead")
    stage.queue("tasks", 3, {"tenant": "acme"}, x_dead_letter_exchange="", x_dead_letter_routing_key="tasks.dead")
    for _ in range(3):
        stage.channel.basic_reject(stage.get("tasks")[0].delivery_tag, requeue=False)
    stage.confirm()


@then("Redriving a dead letter queue")
def _(stage):
    equal((stage.depth("tasks"), stage.depth("tasks.dead")), ((3, 0, 0), (0, 0, 0)))


@given("Leases: the acknowledgement timeout, and more time")
def _(stage):
    stage.queue("tasks", 4711)
    for _ in range(4710):
        stage.get("tasks", auto_ack=True)
    stage.names["held"] = stage.get("tasks")[0]
    equal(stage.names["held"].message_count, 0)


@then("Leases: the acknowledgement timeout, and more time")
def _(stage):
    equal(stage.depth("tasks"), (1, 0, 0), "it was taken from who held it")
    held = stage.get("tasks")[0]
    stage.names["extend"](stage.channel, held.delivery_tag, 7_200_000)
    stage.confirm()
    left = [lease["left_ms"] for lease in api("leases")]
    assert len(left) == 1 and left[0] > 7_000_000, left
    script = f"""
        const amqp = require('amqplib');
        {stage.names["js"]}
        (async () => {{
          const connection = await amqp.connect('amqp://127.0.0.1:{PORT}');
          const channel = await connection.createChannel();
          await channel.checkQueue('other');
          const message = await channel.get('other');
          extend(channel, message, 7200000);
          await channel.checkQueue('other');
          const answer = await fetch('{API}/leases', {{ headers: {{ authorization: 'Basic Z3Vlc3Q6Z3Vlc3Q=' }} }});
          console.log(JSON.stringify(await answer.json()));
          await connection.close();
        }})();
    """
    stage.queue("other", 1)
    stage.confirm()
    done = subprocess.run(["node", "-e", script], cwd=HERE / "node", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = [lease["left_ms"] for lease in json.loads(done.stdout) if lease["queue"]["name"] == "other"]
    assert len(left) == 1 and left[0] > 7_000_000, left


FAILURES = "Failures and progress: what workers say of their jobs"


@given(FAILURES)
def _(stage):
    stage.queue("graves")
    stage.queue("invoices", 1, x_dead_letter_exchange="", x_dead_letter_routing_key="graves")


@then(FAILURES)
def _(stage):
    stage.confirm()
    equal((stage.depth("invoices"), stage.depth("graves")), ((0, 0, 0), (1, 0, 0)))
    told = {"reason": "no such customer", "details": "Traceback (most recent call last): ..."}
    failure = api("queues/%2F/graves/messages")["items"][0]["failure"]
    equal({key: failure[key] for key in told}, told)
    headers = stage.get("graves")[1].headers
    equal((headers["x-failure-reason"], headers["x-last-death-reason"]), (told["reason"], "rejected"))


@then("Delayed messages")
def _(stage):
    stage.confirm()
    equal(stage.depth("reminders"), (0, 0, 1))


@given("Schedules: recurring messages")
def _(stage):
    stage.queue("reports")


@then("Schedules: recurring messages")
def _(stage):
    equal(stage.get("reports", auto_ack=True)[2], b'{"report": "daily"}')
    equal(stage.get("reports"), (None, None, None), "it was fired once")
    equal(api("schedules"), [])


@then("Retries with a pause")
def _(stage):
    stage.queue("tasks", 1, **{
        "x-delayed-retry-type": "all", "x-delayed-retry-min": 1_000, "x-delayed-retry-max": 60_000,
        "x-delayed-retry-backoff": "exponential", "x-delayed-retry-jitter": 20, "x-delivery-limit": 10,
    })
    stage.channel.basic_nack(stage.get("tasks")[0].delivery_tag)
    stage.confirm()
    equal(stage.depth("tasks"), (0, 0, 1), "it waits for its next try")


@then("Lengths, and queues that go by themselves")
def _(stage):
    for number in range(101):
        stage.channel.basic_publish("", "latest", b"%d" % number)
    equal(stage.get("latest")[2], b"1", "the oldest gave way")
    stage.queue("bounded", 100, x_max_length=100, x_overflow="reject-publish")
    confirming = stage.connection.channel()
    confirming.confirm_delivery()
    try:
        confirming.basic_publish("", "bounded", b"one too many")
        raise AssertionError("not refused")
    except pika.exceptions.NackError:
        pass
    equal(stage.depth("bounded"), (100, 0, 0))
    equal(api("queues/%2F/session")["arguments"], {"x-expires": 1_800_000})


@then("Priorities, and who is served first")
def _(stage):
    equal([stage.get("alerts")[2] for _ in range(2)], [b"urgent", b"usual"])
    active = lambda: {one["consumer_tag"]: one["active"] for one in api("consumers/%2F")}
    first, second = stage.names["active"], stage.names["standby"]
    equal(active(), {first: True, second: False})
    stage.channel.basic_cancel(first)
    equal(active(), {second: True})


@then("Dead letters")
def _(stage):
    for number in range(1_000):
        stage.channel.basic_publish("", "failed", b"%d" % number)
    for body in (b"one", b"two"):
        stage.channel.basic_publish("", "mails", body)
        stage.channel.basic_reject(stage.get("mails")[0].delivery_tag, requeue=False)
    stage.confirm()
    view = api("queues/%2F/mails")
    equal((view["messages"], view["messages_dlx"], view["message_bytes_dlx"]), (2, 2, 6))
    equal(stage.depth("mails"), (0, 0, 0))
    consumed = itertools.islice(stage.channel.consume("failed", auto_ack=True), 1_002)
    bodies = [body for _, _, body in consumed]
    equal(bodies[1_000:], [b"one", b"two"], "taken once there is room")


@then("Expiry")
def _(stage):
    stage.queue("witness", 1, x_message_ttl=1_500, x_dead_letter_exchange="", x_dead_letter_routing_key="late")
    stage.queue("late")
    stage.channel.basic_consume("late", lambda *_: stage.channel.stop_consuming(), auto_ack=True)
    stage.channel.start_consuming()  # until something is half a second older than the one that expires
    equal(stage.depth("offers"), (1, 0, 0))
    equal(stage.get("offers")[2], b"stays")


@given("Exchanges that choose one queue")
def _(stage):
    stage.queue("worker-1")
    stage.queue("worker-2")


@then("Exchanges that choose one queue")
def _(stage):
    for number in range(600):
        stage.channel.basic_publish("orders", "", b"", pika.BasicProperties(headers={"customer": str(number)}))
    stage.confirm()
    one, two = stage.depth("worker-1")[0], stage.depth("worker-2")[0]
    assert one + two == 600 and 120 <= one <= 280, f"{one} and {two}: not as 10 to 20"


@given("Policies")
def _(stage):
    stage.queue("jobs.old", 2)


@then("Policies")
def _(stage):
    view = api("queues/%2F/jobs.old")
    equal((view["policy"], view["operator_policy"]), ("deploys", "bounds"))
    equal(view["effective_policy_definition"], {"redeclare": "update", "message-ttl": 604_800_000})
    stage.queue("jobs.old", x_max_length=1)
    equal(stage.depth("jobs.old"), (1, 0, 0), "declared with a limit")


@then("Message groups")
def _(stage):
    for body in (b"one", b"two"):
        stage.channel.basic_publish("", "orders", body, pika.BasicProperties(headers={"customer": "7"}))
    bodies = [stage.get("orders")[2], stage.get("orders")[2]]
    equal(bodies, [b"paid", b"one"], "the first of each customer")
    equal(stage.get("orders"), (None, None, None), "both customers have one in flight")
    tenant = lambda name: pika.BasicProperties(headers={"tenant": name})
    for name in ("big", "big", "big", "small"):
        stage.channel.basic_publish("", "jobs", name.encode(), tenant(name))
    turns = [stage.get("jobs", auto_ack=True)[2] for _ in range(2)]
    equal(sorted(turns), [b"big", b"small"], "they take turns")


@then("Rates and limits")
def _(stage):
    equal(api("queues/%2F/mails")["arguments"]["x-rate-limit"], "600/m")
    for number in range(30):
        properties = pika.BasicProperties(headers={"tenant": str(number)})
        stage.channel.basic_publish("", "mails", b"", properties)
    got = [stage.get("mails")[0] is not None for _ in range(2)]
    equal(got, [True, False], "one each tenth of a second")


@then("Deduplication")
def _(stage):
    stage.confirm()
    equal(stage.depth("unique"), (1, 0, 0))
    equal(api("queues/%2F/unique")["messages_deduplicated"], 1)
    stage.queue("listener")
    stage.channel.queue_bind("listener", "events", "#")
    for _ in range(2):
        stage.channel.basic_publish("events", "a", b"", pika.BasicProperties(message_id="1"))
    stage.confirm()
    equal(stage.depth("listener"), (1, 0, 0))


@then("Recent history")
def _(stage):
    equal(stage.get("newcomer", auto_ack=True)[2], b"hello")


@then("Streams")
def _(stage):
    equal(stage.depth("events"), (1, 0, 0), "it stays")
    stage.channel.basic_publish("", "events", b"sent")
    for reader in (stage.channel, stage.connection.channel()):
        reader.basic_qos(prefetch_count=1)
        found = []
        for method, properties, body in reader.consume("events", arguments={"x-stream-offset": "first"}):
            found.append((properties.headers["x-stream-offset"], body))
            reader.basic_ack(method.delivery_tag)
            if len(found) == 2:
                break
        reader.cancel()
        equal(found, [(0, b"paid"), (1, b"sent")])


def scene(title, examples):
    def body():
        stage = Stage()
        try:
            before.get(title, lambda _: None)(stage)
            for language, text in examples:
                stage.example(language, text)
            after[title](stage)
        finally:
            stage.forget()

    body.__name__ = "".join(letter if letter.isalnum() else "_" for letter in title.lower())
    return body


found = sections()
for title, examples in found.items():
    tests.append((scene(title, examples), "leveret", 60))


def every_section_with_an_example_has_a_check():
    equal(sorted(after), sorted(found))


tests.append((every_section_with_an_example_has_a_check, "leveret", 5))
run()
