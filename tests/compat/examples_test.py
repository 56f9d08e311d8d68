"""The example programs of every language: each one's worker does what each one's new_task asks."""

import os
import subprocess
import threading
from pathlib import Path

import pika

from harness import HOST, PORT, equal, run, test

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
WORK = Path(os.environ["COMPAT_WORK"])
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-cp", os.environ.get("JARS", "")]
PROGRAMS = {
    "python": [[WORK / "venv/bin/python", EXAMPLES / "python" / f"{name}.py"] for name in ("new_task", "worker")],
    "go": [[WORK / f"example-go-{name}"] for name in ("new_task", "worker")],
    "java": [[*JAVA, EXAMPLES / "java" / f"{name}.java"] for name in ("NewTask", "Worker")],
    "javascript": [["node", EXAMPLES / "javascript" / f"{name}.js"] for name in ("new_task", "worker")],
    "rust": [[WORK / "target/debug" / name] for name in ("new_task", "worker")],
}
ENVIRONMENT = {**os.environ, "AMQP_URL": f"amqp://guest:guest@{HOST}:{PORT}/%2f"}


def send(language, *words):
    done = subprocess.run([*PROGRAMS[language][0], *words], env=ENVIRONMENT, capture_output=True, text=True)
    equal((done.returncode, done.stdout), (0, f" [x] Sent '{' '.join(words) or 'Hello World!'}'\n"), done.stderr)


def forget():
    """Removes the queue: a worker that is killed after it printed Done may not have acknowledged yet."""
    connection = pika.BlockingConnection(pika.URLParameters(ENVIRONMENT["AMQP_URL"]))
    connection.channel().queue_delete("task_queue")
    connection.close()


def around(body):
    forget()
    try:
        body()
    finally:
        forget()


class Worker:
    def __init__(self, language):
        self.process = subprocess.Popen(
            PROGRAMS[language][1], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        equal(self.line(), " [*] Waiting for tasks. To exit press CTRL+C")

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the worker ended: {self.process.stderr.read()[-300:]}")
        return line.rstrip("\n")

    def does(self, task):
        equal([self.line(), self.line()], [f" [x] Received '{task}'", " [x] Done"])

    def end(self):
        self.process.kill()
        self.process.communicate()


def within(language):
    def body():
        worker = Worker(language)
        try:
            send(language)
            worker.does("Hello World!")
            send(language, "First", "task.")
            worker.does("First task.")  # given only after the one before was acknowledged: prefetch is 1
        finally:
            worker.end()

    body.__name__ = f"{language}_new_task_and_worker"
    test(seconds=60)(body)


for each in PROGRAMS:
    within(each)


@test(seconds=60)
def every_language_works_for_every_other():
    """Each worker in turn gets a task from each language, sent before it starts."""
    for worker_language in PROGRAMS:
        sent = [f"{sender} for {worker_language}" for sender in PROGRAMS]
        senders = [threading.Thread(target=send, args=(sender, task)) for sender, task in zip(PROGRAMS, sent)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        worker = Worker(worker_language)
        try:
            done = [(worker.line(), worker.line()) for _ in sent]
        finally:
            worker.end()
            forget()
        equal(sorted(done), sorted((f" [x] Received '{task}'", " [x] Done") for task in sent))


@test(seconds=60)
def a_killed_workers_task_goes_to_the_next():
    first, second = Worker("python"), Worker("go")
    try:
        send("javascript", "long", "." * 30)
        equal(first.line(), f" [x] Received 'long {'.' * 30}'")
        send("rust", "short")
        second.does("short")
        first.end()
        equal(second.line(), f" [x] Received 'long {'.' * 30}'")
    finally:
        first.end()
        second.end()


if __name__ == "__main__":
    run(around)
