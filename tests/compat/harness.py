"""What the Python client tests share: a list of tests, a deadline for each, the report, the server's restart.

A test is a function marked @test; its name is the line that is printed, `ok NAME` or `FAIL NAME: why`.
Tests that restart the broker need the driver's control port, and some hold for Leveret alone: both kinds are
left out on a broker that the driver did not start.
"""

import os
import signal
import socket
import sys
import time
import traceback

HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
PORT = int(os.environ.get("AMQP_PORT", "5672"))
CONTROL_PORT = int(os.environ.get("CONTROL_PORT", "0"))
IS_LEVERET = "LEVERET_PID" in os.environ
URL = f"amqp://guest:guest@{HOST}:{PORT}/"

tests = []


def test(needs=None, seconds=30):
    """Marks a test; needs is "restart" or "leveret", seconds its deadline."""

    def mark(body):
        tests.append((body, needs, seconds))
        return body

    return mark


def restart(how, *settings):
    """Restarts the broker, how is "kill" or "term"; settings are KEY=VALUE of its configuration from now on."""
    ask_driver("restart", how, *settings)


def set_clock(unix_seconds):
    """The server's wall clock shows this now, and goes on from there; for the client that the driver lets set it."""
    ask_driver("clock", str(unix_seconds - time.time()))


def limit_free_disk(size):
    """Publishers are blocked from now on while less is free."""
    ask_driver("ctl", "set_disk_free_limit", size)


def ask_driver(*words):
    with socket.create_connection(("127.0.0.1", CONTROL_PORT)) as control:
        control.sendall((" ".join(words) + "\n").encode())
        answer = control.makefile().readline().strip()
    assert answer == "ok", f"the driver answered {answer!r}"


def equal(got, wanted, what="got"):
    """Fails with both values when they differ, shortened."""
    if got != wanted:
        raise AssertionError(f"{what}: {got!r:.400}, expected {wanted!r:.400}")


def run(around=lambda body: body()):
    """Runs the tests named on the command line, or all, each through around; ends the process with the status."""

    def expired(_signal, _frame):
        raise TimeoutError("the deadline passed")

    signal.signal(signal.SIGALRM, expired)
    failed = 0
    for body, needs, seconds in tests:
        if sys.argv[1:] and body.__name__ not in sys.argv[1:]:
            continue
        if (needs == "restart" and not CONTROL_PORT) or (needs == "leveret" and not IS_LEVERET):
            continue
        signal.alarm(seconds)
        try:
            around(body)
            signal.alarm(0)
            print(f"ok {body.__name__}", flush=True)
        except Exception as error:
            signal.alarm(0)
            failed += 1
            line = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(os.path.basename(sys.argv[0]))]
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {body.__name__}: {why} (line {line[-1] if line else '?'})", flush=True)
    sys.exit(1 if failed else 0)
