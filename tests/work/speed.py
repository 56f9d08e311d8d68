#!/usr/bin/env python3
"""Measures `leveret work` beside xargs, GNU parallel and Celery, each doing the same with the broker on this machine.

    speed.py [--rounds N] [--processes N] [--jobs N] [--concurrency N] [--celery PYTHON]

Prints a table: the median of the rounds, the least and the most. Contenders take turns, so that what else the machine does
is fair. What is not installed (xargs, parallel, Celery in the Python given) is left out. Times are from the first job that
is handed out to the last one that has ended; programs that stay (Celery, lines) have started before.
"""

import argparse
import datetime
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broker import BINARY, Broker, Worker, wait_for

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".work" / "venv" / "bin" / "python"

CELERY = """
from celery import Celery
app = Celery("speed", broker={url!r})
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=100, broker_connection_retry_on_startup=True,
                task_acks_late=True, worker_hijack_root_logger=False)

@app.task
def job(number):
    pass
"""


def by_leveret(broker, count, command, *options):
    """Jobs a second; idle for 200 ms is the end, which is taken off."""
    queue = f"speed-{time.monotonic_ns()}"
    Worker(broker, queue, ["true"], "--stop-when-idle", "0").ended()
    broker.publish(queue, [str(number) for number in range(count)])
    worker = Worker(broker, queue, command, "--log-jobs", "none", "--stop-when-idle", "200ms", *options)
    wait_for("it has taken some", lambda: worker.of("connected"))
    began = datetime.datetime.fromisoformat(worker.of("connected")[0]["time"].replace("Z", "+00:00"))
    wait_for("it is empty", lambda: broker.counts(queue) == (0, 0, 0), 600)
    ended = datetime.datetime.now(datetime.timezone.utc)
    assert worker.ended() == 0
    return count / (ended - began).total_seconds()


def by_arguments(command, count):
    jobs = "".join(f"{number}\n" for number in range(count)).encode()
    began = time.monotonic()
    subprocess.run(command, input=jobs, check=True, stdout=subprocess.DEVNULL)
    return count / (time.monotonic() - began)


def by_celery(python, broker, count, concurrency):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "speed_tasks.py").write_text(CELERY.format(url=broker.url + "//"))
        publish = f"import speed_tasks as s\nwith s.app.producer_pool.acquire(block=True) as p:\n for n in range({count}): s.job.apply_async((n,), producer=p)"
        subprocess.run([python, "-c", publish], cwd=directory, check=True)
        # The work is measured from half to the end: its start takes seconds.
        worker = subprocess.Popen([python, "-m", "celery", "-A", "speed_tasks", "worker", "-c", str(concurrency), "-l", "error"],
                                  cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for("half is done", lambda: sum(broker.counts("celery")) <= count // 2, 600)
            left, began = sum(broker.counts("celery")), time.monotonic()
            wait_for("all is done", lambda: sum(broker.counts("celery")) == 0, 600)
            return left / (time.monotonic() - began)
        finally:
            worker.terminate()
            worker.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4_000)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--celery", default=str(VENV))
    given = parser.parse_args()
    count, parallel, each = given.processes, str(given.concurrency), ["-c", str(given.concurrency)]
    broker = Broker()
    lines = [sys.executable, str(HERE / "speed_worker.py")]
    contenders = {
        "leveret work -- true": lambda: by_leveret(broker, count, ["true"], *each, "--output", "drop"),
        "leveret work -- true, output passed on": lambda: by_leveret(broker, count, ["true"], *each),
        "xargs -P -n 1 true": lambda: by_arguments(["xargs", "-P", parallel, "-n", "1", "true"], count),
        "parallel -j true": lambda: by_arguments(["parallel", "--will-cite", "-j", parallel, "true"], count // 4),
        "leveret work --mode lines --pipeline 200, Python": lambda: by_leveret(
            broker, given.jobs, lines, *each, "--mode", "lines", "--pipeline", "200"),
        "leveret work --mode lines, Python, one at a time": lambda: by_leveret(
            broker, given.jobs // 4, lines, *each, "--mode", "lines"),
        "celery worker": lambda: by_celery(given.celery, broker, given.jobs // 10, given.concurrency),
    }
    for program, name in [("xargs", "xargs -P -n 1 true"), ("parallel", "parallel -j true")]:
        if not shutil.which(program):
            print(f"{program} is not installed", file=sys.stderr)
            del contenders[name]
    if subprocess.run([given.celery, "-c", "import celery"], capture_output=True).returncode != 0:
        print("Celery is not installed", file=sys.stderr)
        del contenders["celery worker"]
    rates = {name: [] for name in contenders}
    for round_number in range(given.rounds):
        for name, run in contenders.items():
            rates[name].append(run())
            print(f"round {round_number + 1}: {name}: {rates[name][-1]:,.0f}/s", file=sys.stderr, flush=True)
    broker.stop()
    print(f"| {given.concurrency} at a time | jobs a second | least and most |\n| --- | ---: | --- |")
    for name, found in rates.items():
        print(f"| `{name}` | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} |")


main()
