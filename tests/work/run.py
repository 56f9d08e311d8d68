#!/usr/bin/env python3
"""Runs `leveret work` with real children against a real server.

    run.py [--only NAME]...

LEVERET_BIN is the program to test; without it, the release build. Prints `ok NAME` or `FAIL NAME: why` a test, and
`N passed, N failed` in the end. Every job must end exactly once: done, dead, or back in its queue.
"""

import argparse
import collections
import contextlib
import http.server
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import urllib.request
from pathlib import Path

from broker import BINARY, Broker, Worker, alive, wait_for

HERE = Path(__file__).resolve().parent
LINES = [sys.executable, "-u", str(HERE / "lines_worker.py")]
SCRATCH = tempfile.TemporaryDirectory(prefix="leveret-work-scratch-")
tests = []


def test(function):
    tests.append(function)
    return function


def scratch(name):
    return Path(SCRATCH.name) / name


def lines_of(path):
    return path.read_text().split() if path.exists() else []


def drained(broker, queue):
    """Nothing is in the queue in any state."""
    wait_for(f"{queue} is empty", lambda: broker.counts(queue) == (0, 0, 0))


def dead(broker, queue):
    """Dead letters by body: their headers."""
    return {message["payload"]: message["properties"]["headers"] for message in broker.messages(f"{queue}.dead")}


@test
def ten_thousand_processes_of_every_kind_of_end(broker):
    queue, ledger = "every-kind", scratch("every-kind")
    # Appends of a line are one write, which the system keeps whole.
    script = f"""read -r job; echo "$job" >> {ledger}
    case $job in
        fail-*) echo "no luck with $job" >&2; exit 3;;
        dead-*) exit 65;;
        flaky-*) [ "$LEVERET_ATTEMPT" = 1 ] && exit 75; exit 0;;
        killed-*) kill -9 $$;;
    esac"""
    kinds = ["ok"] * 92 + ["fail", "dead", "flaky", "flaky", "killed", "ok", "ok", "ok"]
    jobs = [f"{kinds[number % 100]}-{number}" for number in range(10_000)]
    Worker(broker, queue, ["true"], "--stop-when-idle", "0").ended()
    # Body and newline: `read` wants a line.
    broker.publish(queue, [f"{job}\n" for job in jobs])
    worker = Worker(broker, queue, ["sh", "-c", script], "--concurrency", "4", "--output", "drop").connected()
    drained(broker, queue)
    wait_for("all dead letters are there", lambda: broker.counts(f"{queue}.dead")[0] == 300)
    assert worker.stop() == 0
    runs = collections.Counter(lines_of(ledger))
    times = {"ok": 1, "fail": 3, "dead": 1, "flaky": 2, "killed": 3}
    wrong = {job: runs[job] for job in jobs if runs[job] != times[job.split("-")[0]]}
    assert not wrong and len(runs) == len(jobs), wrong
    letters = dead(broker, queue)
    assert {job.strip() for job in letters} == {job for job in jobs if job.split("-")[0] in ("fail", "dead", "killed")}
    for job, headers in letters.items():
        kind = job.split("-")[0]
        reason = {"fail": "exit 3", "dead": "exit 65", "killed": "killed by SIGKILL"}[kind]
        assert headers["x-failure-reason"] == reason, headers
        if kind == "fail":
            assert headers["x-failure-details"] == f"no luck with {job.strip()}\n", headers
    results = collections.Counter(event["event"] for event in worker.of("done", "retry", "dead"))
    assert results == {"done": 9_700, "retry": 100 * 3 + 100 * 3 + 200, "dead": 100}, results


@test
def a_job_that_takes_too_long_is_ended_and_tried_again(broker):
    queue = "too-long"
    worker = Worker(broker, queue, ["sleep", "600"], "--timeout", "200ms").connected()
    broker.publish(queue, ["a"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    worker.stop()
    assert [event["why"] for event in worker.of("retry")] == ["timed out after 0.2 s"] * 3
    assert dead(broker, queue)["a"]["x-failure-reason"] == "timed out after 0.2 s"


@test
def who_is_told_to_end_and_ends_well_is_not_done(broker):
    queue = "polite"
    script = "trap 'exit 0' TERM; sleep 600 & wait"
    worker = Worker(broker, queue, ["sh", "-c", script], "--timeout", "200ms").connected()
    broker.publish(queue, ["a"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    worker.stop()
    assert len(worker.of("retry")) == 3 and not worker.of("done")


@test
def sigterm_lets_jobs_end_and_begins_none(broker):
    queue, ledger, gate = "sigterm", scratch("sigterm"), scratch("sigterm-gate")
    script = f"echo $LEVERET_MESSAGE_ID >> {ledger}; while [ ! -e {gate} ]; do sleep 0.05; done"
    worker = Worker(broker, queue, ["sh", "-c", script], "--concurrency", "2", "--prefetch", "4").connected()
    broker.publish(queue, [str(number) for number in range(10)])
    wait_for("two have begun", lambda: len(lines_of(ledger)) == 2)
    worker.process.send_signal(signal.SIGTERM)
    wait_for("what has not begun is back", lambda: broker.counts(queue) == (8, 2, 0))
    gate.touch()
    assert worker.ended() == 0
    assert broker.counts(queue) == (8, 0, 0)
    assert len(lines_of(ledger)) == 2
    # They were never begun: no attempt is counted.
    assert all(message["delivery_count"] == 0 for message in broker.messages(queue)), broker.messages(queue)


@test
def after_the_grace_jobs_are_ended_and_go_back(broker):
    queue, ledger = "grace", scratch("grace")
    script = f"echo $$ >> {ledger}; sleep 600"
    worker = Worker(broker, queue, ["sh", "-c", script], "--concurrency", "2", "--grace", "100ms").connected()
    broker.publish(queue, ["a", "b"])
    wait_for("both have begun", lambda: len(lines_of(ledger)) == 2)
    worker.process.send_signal(signal.SIGINT)
    assert worker.ended() == 75
    assert sum(broker.counts(queue)) == 2 and broker.counts(queue)[1] == 0
    assert not any(alive(pid) for pid in lines_of(ledger))


@test
def who_does_not_listen_to_sigterm_is_killed(broker):
    queue, ledger = "deaf", scratch("deaf")
    script = f"trap '' TERM; echo $$ >> {ledger}; while :; do sleep 0.1; done"
    worker = Worker(broker, queue, ["sh", "-c", script], "--grace", "0").connected()
    broker.publish(queue, ["a"])
    wait_for("it has begun", lambda: lines_of(ledger))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended(20) == 75
    assert not alive(lines_of(ledger)[0])


@test
def a_second_signal_ends_it_at_once(broker):
    queue, ledger = "second", scratch("second")
    worker = Worker(broker, queue, ["sh", "-c", f"echo $$ >> {ledger}; sleep 600"]).connected()
    broker.publish(queue, ["a"])
    wait_for("it has begun", lambda: lines_of(ledger))
    worker.process.send_signal(signal.SIGTERM)
    wait_for("it has heard", lambda: worker.of("stopping"))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended(5) == 143
    assert sum(broker.counts(queue)) == 1 and broker.counts(queue)[1] == 0


@test
def sigkill_of_the_runner_gives_its_jobs_back(broker):
    queue, ledger = "sigkill", scratch("sigkill")
    worker = Worker(broker, queue, ["sh", "-c", f"echo $$ >> {ledger}; sleep 600"], "--concurrency", "3").connected()
    broker.publish(queue, list("abcde"))
    wait_for("three run", lambda: len(lines_of(ledger)) == 3)
    worker.process.kill()
    wait_for("all are back", lambda: broker.counts(queue)[1] == 0 and sum(broker.counts(queue)) == 5)
    # Nobody ends children of a runner that was killed; a service manager does, by their group.
    for pid in lines_of(ledger):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)
    worker.ended()


@test
def jobs_that_run_while_the_broker_is_killed_run_once(_):
    broker = Broker()
    queue, ledger, gate = "once", scratch("once"), scratch("once-gate")
    script = f"echo $LEVERET_MESSAGE_ID >> {ledger}; while [ ! -e {gate}-$LEVERET_MESSAGE_ID ]; do sleep 0.05; done"
    worker = Worker(broker, queue, ["sh", "-c", script], "--concurrency", "4").connected()
    jobs = ["a", "b", "c", "d"]
    broker.publish(queue, jobs)
    wait_for("all run", lambda: len(lines_of(ledger)) == 4)
    broker.kill()
    wait_for("it is noticed", lambda: worker.of("orphaned"))
    # Two end while there is no broker, two afterwards.
    for job in jobs[:2]:
        Path(f"{gate}-{job}").touch()
    wait_for("two have ended", lambda: len(worker.of("unsettled")) == 2)
    broker.start()
    wait_for("it has a connection again", lambda: len(worker.of("connected")) == 2)
    for job in jobs[2:]:
        Path(f"{gate}-{job}").touch()
    drained(broker, queue)
    assert worker.stop() == 0
    assert sorted(lines_of(ledger)) == jobs
    broker.stop()


@test
def a_flood_takes_no_memory_and_its_end_is_kept(broker):
    queue = "flood"
    script = "yes flood & yes flood >&2"
    worker = Worker(broker, queue, ["sh", "-c", script], "--timeout", "1s", "--output-max", "100K").connected()
    broker.publish(queue, ["a"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    with open(f"/proc/{worker.process.pid}/status") as status:
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    worker.stop()
    assert peak_kib < 64 << 10, peak_kib
    assert len(worker.out) == 3 * (100 << 10), len(worker.out)
    details = dead(broker, queue)["a"]["x-failure-details"]
    assert 8_000 < len(details) <= 8_192 and details.endswith("flood\n")


@test
def what_a_job_leaves_running_does_not_hold_it_up_and_ends_with_it(broker):
    queue, ledger = "fork", scratch("fork")
    # One in its group, and one that leaves it; both hold the standard streams.
    script = f"sleep 600 & echo $! >> {ledger}; setsid sh -c 'echo $$ >> {ledger}; exec sleep 600' & sleep 0.3"
    worker = Worker(broker, queue, ["sh", "-c", script]).connected()
    broker.publish(queue, ["a"])
    wait_for("it is done", lambda: worker.of("done"), 20)
    assert worker.of("done")[0]["ms"] < 10_000
    first, second = lines_of(ledger)
    wait_for("the one in its group is gone", lambda: not alive(first) or not alive(second))
    worker.stop()
    for pid in (first, second):
        subprocess.run(["kill", "-9", pid], check=False, stderr=subprocess.DEVNULL)


@test
def limits_of_memory_and_processor_time_hold(broker):
    queue = "limits"
    memory = Worker(broker, queue, [sys.executable, "-c", "x = bytearray(1 << 30)"], "--memory", "100M").connected()
    broker.publish(queue, ["a"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    memory.stop()
    assert "MemoryError" in dead(broker, queue)["a"]["x-failure-details"]
    queue = "cpu"
    cpu = Worker(broker, queue, ["sh", "-c", "while :; do :; done"], "--cpu-time", "1s", "--timeout", "30s").connected()
    broker.publish(queue, ["a"])
    wait_for("it was killed", lambda: cpu.of("retry"))
    assert cpu.of("retry")[0]["why"] == "killed by SIGXCPU", cpu.of("retry")
    cpu.process.send_signal(signal.SIGTERM)
    wait_for("it has heard", lambda: cpu.of("stopping"))
    cpu.stop()


@test
def bodies_of_any_size_come_by_standard_input_and_replies_go_back(broker):
    queue, replies = "replies", "replies-here"
    Worker(broker, replies, ["true"], "--stop-when-idle", "0").ended()
    worker = Worker(broker, queue, ["sh", "-c", "cat; [ $LEVERET_MESSAGE_ID != bad ] || exit 65"], "--reply", "--output", "drop")
    worker.connected()
    big = "x" * 700_000
    for body, name in [("small", "1"), (big, "2"), ("bad", "bad")]:
        subprocess.run([BINARY, "publish", "--queue", queue, "--quiet", "--url", broker.url, "--reply-to", replies,
                        "--correlation-id", name, "--message-id", name], input=body.encode(), check=True)
    wait_for("three replies", lambda: broker.counts(replies)[0] == 3)
    worker.stop()
    found = {message["properties"]["correlation_id"]: message for message in broker.messages(replies)}
    assert found["1"]["payload"] == "small" and found["2"]["payload"] == big
    assert found["1"]["properties"]["headers"] == {"x-job-result": "done"}
    assert found["bad"]["properties"]["headers"] == {"x-job-result": "dead", "x-failure-reason": "exit 65"}


@test
def a_program_that_reads_nothing_does_not_stop_the_next_one(broker):
    queue = "unread"
    worker = Worker(broker, queue, ["true"]).connected()
    broker.publish(queue, ["x" * 500_000 + str(number) for number in range(20)])
    wait_for("all are done", lambda: len(worker.of("done")) == 20)
    assert worker.stop() == 0


@test
def a_lease_is_extended_while_its_job_runs(broker):
    queue, ledger = "lease", scratch("lease")
    script = f"echo $LEVERET_MESSAGE_ID >> {ledger}; sleep 5"
    worker = Worker(broker, queue, ["sh", "-c", script], "--lease", "2s", "--concurrency", "2").connected()
    broker.publish(queue, ["a", "b"])
    wait_for("both are done", lambda: len(worker.of("done")) == 2)
    drained(broker, queue)
    worker.stop()
    assert sorted(lines_of(ledger)) == ["a", "b"]


@test
def queues_get_their_shares(broker):
    for name in ("often", "rarely"):
        Worker(broker, name, ["true"], "--stop-when-idle", "0").ended()
        broker.publish(name, [f"{name}-{number}" for number in range(200)])
    worker = Worker(broker, "often=3", ["true"], "--queue", "rarely", "--concurrency", "1", "--prefetch", "50")
    wait_for("all are done", lambda: len(worker.of("done")) == 400)
    worker.stop()
    middle = [event["queue"] for event in worker.of("done")][40:200]
    assert 30 <= middle.count("rarely") <= 50, middle.count("rarely")


@test
def progress_is_seen_while_the_job_runs(broker):
    queue, gate = "progress", scratch("progress-gate")
    script = f"echo '::progress 40 resizing' >&2; while [ ! -e {gate} ]; do sleep 0.05; done"
    worker = Worker(broker, queue, ["sh", "-c", script]).connected()
    broker.publish(queue, ["a"])

    def told():
        jobs = subprocess.run([BINARY, "ctl", "--url", f"http://guest:guest@127.0.0.1:{broker.http}", "jobs"],
                              capture_output=True).stdout.decode()
        return "40 % resizing" in jobs
    wait_for("leveret ctl jobs shows it", told)
    gate.touch()
    wait_for("it is done", lambda: worker.of("done"))
    worker.stop()
    assert not any(b"::progress" in line for line in worker.text)


@test
def lines_answer_in_every_way(broker):
    queue, ledger = "lines", scratch("lines")
    worker = Worker(broker, queue, LINES, "--mode", "lines", "--pipeline", "10", "--concurrency", "2",
                    env={"LEDGER": str(ledger)}).connected()
    kinds = ["ok"] * 90 + ["retry", "dead", "flaky", "debug", "twice"] * 2
    jobs = [f"{kinds[number % 100]}-{number}" for number in range(10_000)]
    broker.publish(queue, jobs)
    drained(broker, queue)
    wait_for("all dead letters are there", lambda: broker.counts(f"{queue}.dead")[0] == 400)
    assert worker.stop() == 0
    runs = collections.Counter(lines_of(ledger))
    times = {"retry": 3, "flaky": 2}
    wrong = {job: runs[job] for job in jobs if runs[job] != times.get(job.split("-")[0], 1)}
    assert not wrong, wrong
    reasons = collections.Counter(headers["x-failure-reason"] for headers in dead(broker, queue).values())
    assert reasons == {"later": 200, "never": 200}, reasons


@test
def a_program_of_lines_that_dies_is_begun_again_and_its_jobs_are(broker):
    queue, ledger = "dying", scratch("dying")
    worker = Worker(broker, queue, LINES, "--mode", "lines", "--pipeline", "5", "--concurrency", "1",
                    env={"LEDGER": str(ledger)}).connected()
    broker.publish(queue, [f"die-{number}" if number == 7 else f"ok-{number}" for number in range(40)])
    drained(broker, queue)
    wait_for("the one that kills is dead", lambda: broker.counts(f"{queue}.dead")[0] >= 1)
    worker.stop()
    letters = dead(broker, queue)
    assert "die-7" in letters and "ended before it answered" in letters["die-7"]["x-failure-reason"], letters
    assert "last words" in letters["die-7"]["x-failure-details"]
    done = {event["message_id"] for event in worker.of("done")}
    assert done | set(letters) == {f"die-{n}" if n == 7 else f"ok-{n}" for n in range(40)}


@test
def lines_have_a_timeout_too(broker):
    queue, ledger = "slow-lines", scratch("slow-lines")
    worker = Worker(broker, queue, LINES, "--mode", "lines", "--timeout", "300ms", env={"LEDGER": str(ledger)}).connected()
    broker.publish(queue, ["hang-1", "ok-2"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    drained(broker, queue)
    worker.stop()
    assert dead(broker, queue)["hang-1"]["x-failure-reason"] == "timed out"


class Hook(http.server.BaseHTTPRequestHandler):
    """Answers as the body says."""

    protocol_version = "HTTP/1.1"
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).seen.append((body, dict(self.headers), time.monotonic()))
        status, _, rest = body.partition(" ")
        if status == "close":
            self.close_connection = True
            self.connection.close()
            return
        if status == "hang":
            time.sleep(3)
        answer = f"said {rest}".encode()
        self.send_response(int(status) if status.isdigit() else 200)
        if rest == "busy" and len([1 for seen in type(self).seen if seen[0] == body]) == 1:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except OSError:
            pass  # whoever asked has gone

    def log_message(self, *_):
        pass


@test
def a_web_hook_gets_jobs_and_judges_them(broker):
    queue = "hook"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worker = Worker(broker, queue, [f"http://127.0.0.1:{server.server_address[1]}/jobs?x=1"], "--mode", "http",
                    "--timeout", "1s", "--concurrency", "4", "--http-header", "Authorization: Bearer secret").connected()
    subprocess.run([BINARY, "publish", "--queue", queue, "--quiet", "--url", broker.url, "--header", "tenant=acme",
                    "--content-type", "text/plain", "200 one"], check=True)
    wait_for("one is done", lambda: worker.of("done"))
    headers = Hook.seen[0][1]
    expected = {"X-Leveret-Queue": queue, "X-Leveret-Attempt": "1", "X-Leveret-Header-Tenant": "acme",
                "Content-Type": "text/plain", "Authorization": "Bearer secret"}
    lower = {name.lower(): value for name, value in headers.items()}
    assert all(lower[name.lower()] == value for name, value in expected.items()), headers
    broker.publish(queue, ["404 gone", "500 broken", "close", "hang", "418 teapot"])
    wait_for("five are dead", lambda: broker.counts(f"{queue}.dead")[0] == 5)
    found = {job: headers["x-failure-reason"] for job, headers in dead(broker, queue).items()}
    assert found["404 gone"].startswith("status 404") and found["500 broken"].startswith("status 500"), found
    assert found["hang"] == "timed out after 1 s" and "request failed" in found["close"], found
    assert dead(broker, queue)["404 gone"]["x-failure-details"] == "said gone"
    attempts = collections.Counter(body for body, _, _ in Hook.seen)
    assert (attempts["404 gone"], attempts["500 broken"], attempts["418 teapot"]) == (1, 3, 1), attempts
    # Who is busy is left alone for a while.
    broker.publish(queue, ["429 busy"])
    wait_for("it is paused", lambda: worker.of("paused"))
    paused_at = time.monotonic()
    broker.publish(queue, ["200 two"])
    wait_for("the next one is done", lambda: len(worker.of("done")) == 2)
    assert time.monotonic() - paused_at > 0.7
    worker.stop()
    server.shutdown()


@test
def a_web_hook_behind_tls_is_checked(broker):
    queue, folder = "hook-tls", Path(SCRATCH.name)

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hook", "-keyout", "hook.key", "-out", "hook.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "hook.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "hook.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "hook.pem", folder / "hook.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_address[1]}/"
    stranger = Worker(broker, queue, [url], "--mode", "http").connected()
    broker.publish(queue, ["200 one"])
    wait_for("it is dead", lambda: broker.counts(f"{queue}.dead")[0] == 1)
    stranger.stop()
    assert "not to be trusted" in dead(broker, queue)["200 one"]["x-failure-reason"], dead(broker, queue)
    friend = Worker(broker, queue, [url], "--mode", "http", "--ca-file", str(folder / "ca.pem")).connected()
    broker.publish(queue, ["200 two", "200 three"])
    wait_for("both are done", lambda: len(friend.of("done")) == 2)
    friend.stop()
    server.shutdown()


@test
def brokers_are_tried_in_turn(broker):
    nobody = types.SimpleNamespace(url="amqp://127.0.0.1:1")
    worker = Worker(nobody, "turns", ["true"], "--url", broker.url).connected()
    broker.publish("turns", ["a"])
    wait_for("it is done", lambda: worker.of("done"))
    assert worker.stop() == 0


@test
def metrics_are_served(broker):
    queue = "metrics"
    worker = Worker(broker, queue, ["sh", "-c", "exit {}"], "--metrics", "127.0.0.1:0").connected()
    broker.publish(queue, ["0", "65", "1"])
    wait_for("all have ended", lambda: len(worker.of("done", "dead", "retry")) == 5)
    address = worker.of("metrics")[0]["message"].removeprefix("on ")
    text = urllib.request.urlopen(address).read().decode()
    for result, count in [("done", 1), ("dead", 1), ("retry", 3)]:
        assert f'leveret_work_jobs_total{{queue="metrics",result="{result}"}} {count}\n' in text, text
    assert "leveret_work_connected 1\n" in text
    worker.stop()


@test
def what_cannot_work_is_told(broker):
    def refused(*arguments):
        run = subprocess.run([BINARY, "work", *arguments], capture_output=True, timeout=30)
        return run.returncode, run.stderr.decode()
    url = ["--url", broker.url]
    code, text = refused(*url, "--queue", "nobody", "--", "true")
    assert code == 69 and "no queue 'nobody'" in text and "--declare" in text, text
    code, text = refused(*url, "--queue", "nobody", "--", "no-such-program")
    assert code == 64 and "in no directory of PATH" in text, text
    code, text = refused("--url", broker.url.replace("guest:guest", "guest:wrong"), "--queue", "q", "--", "true")
    assert code == 77 and "ACCESS_REFUSED" in text and "wrong" not in text, text
    code, text = refused(*url, "--queue", "q", "--mode", "http", "--", "ftp://x")
    assert code == 64 and "http" in text, text
    assert refused("--", "true")[0] == 64


@test
def ten_thousand_jobs_survive_kills_of_everyone(_):
    broker = Broker()
    queue, ledger = "chaos", scratch("chaos")
    chance = random.Random(7)
    options = ["--mode", "lines", "--pipeline", "20", "--concurrency", "2", "--log-jobs", "none"]
    environment = {"LEDGER": str(ledger), "PIDS": str(scratch("chaos-pids")), "PAUSE": "0.0005"}
    # Kills count as failed deliveries, and none of these jobs is to be blamed for them.
    options += ["--delivery-limit", "1000"]

    def start():
        return Worker(broker, queue, LINES, *options, env=environment)
    worker = start().connected()
    jobs = [f"ok-{number}" for number in range(10_000)]
    broker.publish(queue, jobs)
    kills = collections.Counter()
    while sum(broker.counts(queue)) > 500 and sum(kills.values()) < 25:
        done = len(lines_of(ledger))
        wait_for("some more are done", lambda: len(lines_of(ledger)) > done + 100 or sum(broker.counts(queue)) == 0)
        who = chance.choice(["child", "child", "broker", "runner"])
        kills[who] += 1
        if who == "child":
            pid = lines_of(scratch("chaos-pids"))[-1]
            subprocess.run(["kill", "-9", pid], check=False, stderr=subprocess.DEVNULL)
        elif who == "broker":
            broker.kill()
            broker.start()
        else:
            worker.kill()
            worker = start()
    drained(broker, queue)
    assert worker.stop() == 0
    assert broker.counts(f"{queue}.dead")[0] == 0
    runs = collections.Counter(lines_of(ledger))
    missing = [job for job in jobs if not runs[job]]
    assert not missing and set(runs) == set(jobs), missing[:10]
    assert all(kills[who] for who in ("child", "broker", "runner")), kills
    again = sum(runs.values()) - len(jobs)
    print(f"   {dict(kills)}: {again} jobs were run again", flush=True)
    # At most what was in hand at each kill.
    assert again <= sum(kills.values()) * 2 * 20, again
    broker.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[])
    only = parser.parse_args().only
    failed = passed = 0
    broker = Broker()
    for function in tests:
        name = function.__name__
        if only and not any(part in name for part in only):
            continue
        began = time.monotonic()
        try:
            function(broker)
            passed += 1
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: whatever it is, the others are run
            failed += 1
            print(f"FAIL {name}: {error}\n{traceback.format_exc()}", flush=True)
    broker.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
