"""Celery against the broker: real worker processes, and results through the rpc backend."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid

import pika

from celery import group

from celery_tasks import application
from harness import HOST, PORT, equal, restart, run, test

names = []


class Worker:
    """A `celery worker` process on one queue; `until` waits for a line that it prints."""

    def __init__(self, name, *options, queue_type=None):
        self.node = f"{uuid.uuid4().hex[:8]}@localhost"
        self.lines = queue.Queue()
        environment = {**os.environ, "CELERY_QUEUE": name, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
        if queue_type:
            environment["CELERY_QUEUE_TYPE"] = queue_type
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-n", self.node, "-l", "INFO",
             "--without-mingle", "--without-gossip", *options],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        self.printed = []
        threading.Thread(target=self.read, daemon=True).start()
        self.until(" ready.")

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def until(self, text, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the worker did not print {text!r}: {' | '.join(self.printed[-4:])}") from None
            if line is None:
                raise AssertionError(f"the worker ended: {' | '.join(self.printed[-6:])}")
            self.printed.append(line.strip())
            if text in line:
                return

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def worker(*options, queue_type=None):
    """An application and a worker on a queue of their own."""
    name = f"celery-{uuid.uuid4()}"
    names.append(name)
    process = Worker(name, *options, queue_type=queue_type)
    try:
        yield application(name, queue_type), process
    finally:
        process.kill()


def around(body):
    """Removes the queues of a test."""
    try:
        body()
    finally:
        connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@{HOST}:{PORT}/%2f"))
        at = connection.channel()
        for name in names:
            at.queue_delete(name)
        names.clear()
        connection.close()


def send(app, task, *arguments, **options):
    return app.tasks[task].apply_async(arguments, **options)


def results(sent, seconds=20):
    return [result.get(timeout=seconds) for result in sent]


@test(seconds=60)
def results_retries_groups_and_ping():
    with worker("--pool", "prefork", "-c", "2") as (app, process):
        equal(results([send(app, "add", n, 1) for n in range(50)]), list(range(1, 51)))
        equal(send(app, "third_time").get(timeout=10), 2)
        equal(sorted(group(app.tasks["add"].s(n, n) for n in range(10))().get(timeout=10)), list(range(0, 20, 2)))
        ping = subprocess.run(
            [sys.executable, "-m", "celery", "-b", app.conf.broker_url, "inspect", "-d", process.node, "-t", "10", "ping"],
            capture_output=True, text=True,
        )
        equal((ping.returncode, "pong" in ping.stdout), (0, True), ping.stdout + ping.stderr)
        queues = app.control.inspect(destination=[process.node], timeout=10).active_queues()
        equal([q["name"] for q in queues[process.node]], [app.conf.task_default_queue])


@test(seconds=60)
def events_tell_what_happens():
    with worker("--pool", "solo", "-E") as (app, process):
        seen = []
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event)})
            with receiver.consumer_context(wakeup=True):
                sent = send(app, "add", 1, 2)

                def reached():
                    return any(e["type"] == "task-succeeded" and e["uuid"] == sent.id for e in seen)

                deadline = time.monotonic() + 15
                while not reached() and time.monotonic() < deadline:
                    with contextlib.suppress(TimeoutError):
                        connection.drain_events(timeout=1)
        kinds = [event["type"] for event in seen if event.get("uuid") == sent.id]
        equal(sorted(kinds), ["task-received", "task-sent", "task-started", "task-succeeded"])


def countdown_tasks_neither_stall_nor_hog(*options, queue_type=None):
    """Thirty delayed tasks, far over the prefetch, all run when due, and others run while they wait."""
    with worker(*options, queue_type=queue_type) as (app, process):
        began = time.time()
        delayed = [send(app, "finished_at", countdown=12) for _ in range(30)]
        prompt = [send(app, "finished_at") for _ in range(10)]
        # A worker's loop may sleep for 2 s before it asks for the credit it needs, whatever the broker does;
        # a remote control command wakes it.
        while not all(result.ready() for result in prompt):
            app.control.inspect(destination=[process.node], timeout=1).ping()
        promptly = max(results(prompt)) - began
        if promptly > 10:
            raise AssertionError(f"the tasks without a countdown took {promptly:.1f} s")
        times = [done - began for done in results(delayed, seconds=40)]
        if not 11.9 <= min(times) or not max(times) <= 40:
            raise AssertionError(f"tasks with a countdown of 12 s ran after {min(times):.1f} to {max(times):.1f} s")


@test(seconds=90)
def countdowns_in_one_process():
    countdown_tasks_neither_stall_nor_hog("--pool", "solo")


@test(seconds=90)
def countdowns_in_a_pool():
    countdown_tasks_neither_stall_nor_hog("--pool", "prefork", "-c", "2")


@test(seconds=90)
def countdowns_on_quorum_queues():
    countdown_tasks_neither_stall_nor_hog("--pool", "solo", queue_type="quorum")


@test(seconds=60)
def quorum_queues_carry_results_and_retries():
    with worker("--pool", "prefork", "-c", "2", queue_type="quorum") as (app, _process):
        equal(results([send(app, "add", n, 1) for n in range(20)]), list(range(1, 21)))
        equal(send(app, "third_time").get(timeout=15), 2)


@test(seconds=60)
def a_killed_workers_task_runs_elsewhere():
    with worker("--pool", "solo") as (app, first):
        sent = send(app, "hold_once")
        first.until("holding")
        second = Worker(app.conf.task_default_queue, "--pool", "solo")
        try:
            first.kill()
            equal(sent.get(timeout=15), "redelivered")
        finally:
            second.kill()


@test("restart", seconds=90)
def workers_come_back_after_the_server_was_killed():
    with worker("--pool", "solo") as (app, process):
        equal(send(app, "add", 1, 1).get(timeout=10), 2)
        restart("kill")
        process.until("Connected to", seconds=30)
        fresh = application(app.conf.task_default_queue)
        equal(send(fresh, "add", 2, 2).get(timeout=20), 4)


if __name__ == "__main__":
    run(around)
