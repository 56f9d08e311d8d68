"""Runs commands of rabbitmqadmin (v2) of every group, as users of each tag: who may, and what comes out.

The program's own suite runs as an administrator only; this one is about exit codes and outputs for everyone else.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from harness import equal, run, test

PROGRAM = Path(os.environ["COMPAT_WORK"]) / "target" / "debug" / "rabbitmqadmin"
# What rabbitmqadmin ends with.
OK, MISUSED, REFUSED, FAILED_CHECK = 0, 2, 65, 69
TAGS = ["administrator", "monitoring", "policymaker", "management", ""]


def admin(*words, user="guest", password=None, status=OK, port=None, stdin=None):
    """Runs it; what it printed on success, else what it complained of."""
    command = [
        PROGRAM, "--port", port or os.environ["HTTP_PORT"], "--username", user, "--password", password or user,
        "--non-interactive", *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin)
    if done.returncode != status:
        raise AssertionError(f"{' '.join(words)} as {user}: status {done.returncode}, expected {status}: {done.stdout}{done.stderr}")
    return done.stdout if status == OK else done.stderr


def rows(output):
    return [line.split() for line in output.splitlines() if line.strip()]


def make_users():
    """A user of each tag with all permissions in /, named like the tag; the one without a tag is `plain`."""
    for tag in TAGS:
        name = tag or "plain"
        admin("declare", "user", "--name", name, "--password", name, "--tags", tag)
        admin("declare", "permissions", "--username", name, "--configure", ".*", "--read", ".*", "--write", ".*")
    admin("declare", "queue", "--name", "seen", "--type", "quorum", "--durable", "true")
    admin("declare", "vhost", "--name", "closed")
    admin("-V", "closed", "declare", "queue", "--name", "unseen", "--type", "classic", "--durable", "true")


# Who may: the tags for which each command succeeds. Users of other tags are refused, and so is the one without a tag.
ANYONE = ["administrator", "monitoring", "policymaker", "management"]
MONITORS = ["administrator", "monitoring"]
POLICYMAKERS = ["administrator", "policymaker"]
ADMINISTRATORS = ["administrator"]
COMMANDS = [
    (ANYONE, "show overview"),
    (ANYONE, "show churn"),
    (ANYONE, "list queues"),
    (ANYONE, "list exchanges"),
    (ANYONE, "list bindings"),
    (ANYONE, "list channels"),
    (ANYONE, "list connections"),
    (ANYONE, "list consumers"),
    (ANYONE, "list vhosts"),
    (ANYONE, "list feature_flags"),
    (ANYONE, "list deprecated_features"),
    (ANYONE, "queues list"),
    (ANYONE, "queues show --name seen"),
    (ANYONE, "queues declare --name mine --type classic --durable true"),
    (ANYONE, "queues purge --name mine"),
    (ANYONE, "publish message --routing-key mine --payload p"),
    (ANYONE, "get messages --queue mine"),
    (ANYONE, "exchanges declare --name x --type fanout --durable true"),
    (ANYONE, "exchanges bind --source x --destination-type queue --destination mine --routing-key k"),
    (ANYONE, "bindings list"),
    (ANYONE, "bindings delete --source x --destination-type queue --destination mine --routing-key k --idempotently"),
    (ANYONE, "exchanges delete --name x --idempotently"),
    (ANYONE, "queues delete --name mine --idempotently"),
    (ANYONE, "streams declare --name stream --expiration 1D"),
    (ANYONE, "delete stream --name stream --idempotently"),
    (ANYONE, "health_check local_alarms"),
    (ANYONE, "health_check cluster_wide_alarms"),
    (ANYONE, "health_check node_is_quorum_critical"),
    (ANYONE, "health_check protocol_listener --protocol amqp"),
    (MONITORS, "list nodes"),
    (MONITORS, "nodes list"),
    (MONITORS, "plugins list_all"),
    (POLICYMAKERS, "policies declare --name p --pattern ^p --apply-to queues --definition {\"max-length\":7}"),
    (POLICYMAKERS, "policies patch --name p --definition {\"message-ttl\":9}"),
    (ANYONE, "policies list"),
    (POLICYMAKERS, "policies delete --name p --idempotently"),
    (POLICYMAKERS, "parameters set --component c --name n --value {\"a\":1}"),
    (POLICYMAKERS, "parameters list_all"),
    (POLICYMAKERS, "parameters clear --component c --name n --idempotently"),
    (POLICYMAKERS, "global_parameters list"),
    (ANYONE, "list operator_policies"),
    (ADMINISTRATORS, "operator_policies declare --name o --pattern ^o --apply-to queues --definition {\"max-length\":7}"),
    (ADMINISTRATORS, "operator_policies delete --name o --idempotently"),
    (POLICYMAKERS, "global_parameters set --name g --value {\"a\":1}"),
    (POLICYMAKERS, "global_parameters clear --name g --idempotently"),
    (ADMINISTRATORS, "list users"),
    (ADMINISTRATORS, "list permissions"),
    (ADMINISTRATORS, "users permissions"),
    (ADMINISTRATORS, "declare vhost --name v"),
    (ADMINISTRATORS, "vhosts enable_deletion_protection --name v"),
    (ADMINISTRATORS, "vhosts disable_deletion_protection --name v"),
    (ADMINISTRATORS, "vhost_limits declare --name max-queues --value 1000"),
    (ANYONE, "vhost_limits list"),
    (ADMINISTRATORS, "vhost_limits delete --name max-queues"),
    (ADMINISTRATORS, "user_limits declare --username plain --name max-connections --value 9"),
    (ADMINISTRATORS, "user_limits list"),
    (ADMINISTRATORS, "user_limits delete --username plain --name max-connections"),
    (ADMINISTRATORS, "vhosts delete --name v"),
    (ADMINISTRATORS, "declare user --name u --password pppppppppp --tags management"),
    (ADMINISTRATORS, "delete user --name u"),
    (ADMINISTRATORS, "definitions export --stdout"),
    (ADMINISTRATORS, "feature_flags enable --name quorum_queue"),
    (ADMINISTRATORS, "rebalance queues"),
]


@test(seconds=300)
def each_command_is_for_those_whom_their_tags_let():
    wrong = []
    for may, command in COMMANDS:
        for tag in reversed(TAGS):
            refused = FAILED_CHECK if command.startswith("health_check") else REFUSED
            try:
                said = admin(*command.split(" "), user=tag or "plain", status=OK if tag in may else refused)
                if tag not in may and not re.search("^Not (management|monitor|administrator) user|not authorised", said):
                    wrong.append(f"{command} as {tag or 'plain'}: {said}")
            except AssertionError as error:
                wrong.append(str(error))
    assert not wrong, " || ".join(wrong)


@test()
def lists_show_a_user_its_own_vhosts_and_a_monitor_all():
    assert "unseen" in admin("-V", "closed", "list", "queues", user="monitoring")
    admin("-V", "closed", "list", "queues", user="management", status=REFUSED)
    equal([row[0] for row in rows(admin("list", "vhosts", user="management")) if row[0] in ("/", "closed")], ["/"])
    admin("-V", "closed", "queues", "show", "--name", "unseen", user="management", status=REFUSED)


@test()
def a_message_goes_round():
    admin("declare", "queue", "--name", "round", "--type", "classic", "--durable", "true")
    published = json.loads('{"message_id": "m-1", "headers": {"a": 1}}')
    admin("publish", "message", "--routing-key", "round", "--payload", "hare", "--properties", json.dumps(published))
    got = admin("get", "messages", "--queue", "round", "--ack-mode", "ack_requeue_true")
    assert "hare" in got and "m-1" in got, got
    assert "hare" in admin("get", "messages", "--queue", "round"), "it was put back"
    assert "hare" not in admin("get", "messages", "--queue", "round"), "it was taken"


@test()
def definitions_come_back_as_they_left():
    admin("declare", "vhost", "--name", "copied")
    admin("-V", "copied", "declare", "queue", "--name", "q", "--type", "quorum", "--durable", "true", "--arguments", '{"x-max-length": 5}')
    document = admin("definitions", "export", "--stdout")
    names = {(queue["vhost"], queue["name"]) for queue in json.loads(document)["queues"]}
    assert ("copied", "q") in names, names
    admin("vhosts", "delete", "--name", "copied")
    admin("definitions", "import", "--stdin", stdin=document)
    equal(json.loads(admin("definitions", "export", "--stdout"))["queues"], json.loads(document)["queues"])


@test()
def exit_codes_tell_what_was_wrong():
    assert "Login failed" in admin("show", "overview", password="wrong", status=REFUSED)
    assert "404" in admin("queues", "show", "--name", "nope", status=REFUSED)
    admin("queues", "delete", "--name", "nope", status=REFUSED)
    admin("queues", "delete", "--name", "nope", "--idempotently")
    said = admin("declare", "queue", "--name", "seen", "--type", "classic", "--durable", "true", status=REFUSED)
    assert "inequivalent arg 'x-queue-type'" in said, said
    admin("hop", status=MISUSED)
    admin("show", "overview", port="1", status=REFUSED)


@test()
def connections_are_closed_by_name_and_by_user():
    import pika

    def connect(user):
        login = pika.PlainCredentials(user, user)
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["AMQP_PORT"]), credentials=login))

    connection = connect("plain")
    (listed,) = [row for row in rows(admin("users", "connections", "--username", "plain")) if "->" in row]
    admin("close", "user_connections", "--username", "plain", user="management", status=REFUSED)
    admin("close", "user_connections", "--username", "plain")
    try:
        connection.process_data_events(5)
        connection.process_data_events(5)
        raise AssertionError(f"it was not closed: {listed}")
    except pika.exceptions.AMQPConnectionError:
        pass


if __name__ == "__main__":
    make_users()
    sys.exit(run())
