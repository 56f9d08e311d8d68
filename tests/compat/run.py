#!/usr/bin/env python3
"""Runs the tests of real clients against Leveret: a fresh server for each client, two clients at a time.

    run.py [--only NAME]... [--jobs N] [--amqp HOST:PORT]

LEVERET_BIN is the server to test; without it the release build is made. --amqp tests a broker that already
runs; the tests that restart the server, or that hold for Leveret alone, are then left out.
Each server is on free ports but those of the clients that have their ports written into them.
A client's script gets AMQP_HOST, AMQP_PORT, HTTP_PORT, METRICS_PORT, LEVERET_PID and CONTROL_PORT, and prints `ok NAME` or
`FAIL NAME: why` a test. On CONTROL_PORT it may send `restart kill|term [KEY=VALUE]...`, answered `ok` when the
server listens again with the same data and those settings in its configuration file, and `ctl ARGUMENT...`,
answered `ok` when `leveret ctl` has done that. A client of CLOCKED may send `clock SECONDS`, too: the server's wall clock
is so far ahead of this machine's from then on.
What server and client printed is kept in tests/.work, in NAME.server.log and NAME.client.log.
The last line printed is `N passed, N failed, 0 skipped`; a client that cannot be run is a failure.
"""

import argparse
import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rabbitmq_tools.sources import PORTS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = HERE.parent / ".work"
PYTHON = WORK / "venv" / "bin" / "python"
GO_ENV = {"GO111MODULE": "off", "GOPATH": f"{WORK}/go:/usr/share/gocode", "GOFLAGS": ""}
JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("amqp-client", "slf4j-api", "slf4j-nop"))
TARGET = WORK / "target"  # the Rust programs of the tests, apart from the workspace's
CLIENT_SECONDS = 360
START_SECONDS = 30
# How cargo builds the suites of RabbitMQ's crates: both with the same, so that what they share is compiled once.
TOOLS = ["-q", "--locked", "--manifest-path", WORK / "rabbitmq-tools" / "Cargo.toml", "--target-dir", TARGET,
         "--test", "integration"]


# Each client: the commands that build it, then the one that runs it.
CLIENTS = {
    "pika": ([], [PYTHON, HERE / "pika_test.py"]),
    "aio-pika": ([], [PYTHON, HERE / "aio_pika_test.py"]),
    "opentelemetry": ([], [PYTHON, HERE / "opentelemetry_test.py"]),
    "celery": ([], [PYTHON, HERE / "celery_test.py"]),
    "queues.md": ([], [PYTHON, HERE / "queues_doc_test.py"]),
    "tools": ([], [PYTHON, HERE / "tools_requests_test.py"]),
    "openapi": ([], [PYTHON, HERE / "openapi_test.py"]),
    "definitions": ([], [PYTHON, HERE / "definitions_test.py"]),
    "schedules": ([], [PYTHON, HERE / "schedules_test.py"]),
    "tutorial": ([], [PYTHON, HERE / "tutorial_test.py"]),
    "go": ([["go", "build", "-o", WORK / "compat-go", HERE / "go" / "main.go"]], [WORK / "compat-go"]),
    "java": (
        [["javac", "-cp", JARS, "-d", WORK / "java", HERE / "java" / "CompatTest.java"]],
        ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}:{WORK}/java", "CompatTest"],
    ),
    "node": ([], ["node", HERE / "node" / "compat.test.mjs"]),
    "php": ([], ["php", HERE / "php" / "compat_test.php"]),
    "lapin": (
        [["cargo", "build", "-q", "--locked", "--manifest-path", HERE / "lapin" / "Cargo.toml",
          "--target-dir", TARGET]],
        [TARGET / "debug" / "leveret-compat-lapin"],
    ),
    "examples": (
        [["cargo", "build", "-q", "--locked", "--manifest-path", ROOT / "examples" / "rust" / "Cargo.toml",
          "--target-dir", TARGET]]
        + [["go", "build", "-o", WORK / f"example-go-{name}", ROOT / "examples" / "go" / f"{name}.go"]
           for name in ("new_task", "worker")],
        [PYTHON, HERE / "examples_test.py"],
    ),
    "rabbitmq_http_client": (
        [["cargo", "test", *TOOLS, "-p", "rabbitmq_http_client", "--features", "async,tabled,zeroize", "--no-run"]],
        [PYTHON, HERE / "rabbitmq_tools_test.py", "rabbitmq_http_client", *TOOLS, "--features", "async,tabled,zeroize"],
    ),
    "rabbitmqadmin": (
        [["cargo", "test", *TOOLS, "-p", "rabbitmqadmin", "--no-run"]],
        [PYTHON, HERE / "rabbitmq_tools_test.py", "rabbitmqadmin", *TOOLS],
    ),
    "rabbitmqadmin-users": (
        [["cargo", "test", *TOOLS, "-p", "rabbitmqadmin", "--no-run"]],
        [PYTHON, HERE / "rabbitmqadmin_test.py"],
    ),
}


CLOCKED = {"schedules"}  # clients that set their server's wall clock


def faketime():
    """The library that gives a process a wall clock of its own."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise RuntimeError("libfaketime is missing: tests/install.sh installs it")
    return found[0]


def free_ports(count):
    """Loopback ports that nothing listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Server:
    """One Leveret process on its own ports and directory, restarted on demand."""

    def __init__(self, binary, name):
        self.binary = binary
        self.directory = Path(tempfile.mkdtemp(prefix=f"leveret-{name}-"))
        self.settings = {}
        self.amqp, self.http, self.metrics = free_ports(3)
        self.amqp, self.http = PORTS.get(name, (self.amqp, self.http))
        self.environment = dict(os.environ)
        if name in CLOCKED:
            self.turn_clock(0)
            self.environment.update(
                LD_PRELOAD=str(faketime()), FAKETIME_TIMESTAMP_FILE=str(self.directory / "clock"), FAKETIME_NO_CACHE="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
            )
        self.log_path = WORK / f"{name}.server.log"
        self.log = open(self.log_path, "wb")
        try:
            self.start()
        except RuntimeError:
            self.remove()
            raise
        self.control = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.obey, daemon=True).start()

    def start(self):
        config = self.directory / "leveret.toml"
        config.write_text("".join(f"{key} = {value}\n" for key, value in self.settings.items()))
        self.process = subprocess.Popen(
            [self.binary, "serve", "--config", config, "--data-dir", self.directory / "data",
             "--amqp", f"127.0.0.1:{self.amqp}", "--http", f"127.0.0.1:{self.http}",
             "--metrics", f"127.0.0.1:{self.metrics}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.environment,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.amqp)).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    self.process.wait()
                    raise RuntimeError(f"the server did not start: {self.last_lines()}") from None
                time.sleep(0.005)  # the port is polled: the one event it gives is that it accepts

    def stop(self, how):
        self.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        status = self.process.wait(START_SECONDS)
        if how == "term" and status != 0:
            raise RuntimeError(f"the server ended with status {status}: {self.last_lines()}")

    def ctl(self, arguments):
        command = [self.binary, "ctl", "--data-dir", self.directory / "data", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"ctl ended with status {done.returncode}: {done.stderr}")

    def turn_clock(self, ahead):
        """The server reads the file each time that it reads the clock."""
        written = self.directory / "clock.new"
        written.write_text(f"{ahead:+.6f}\n")
        written.rename(self.directory / "clock")

    def obey(self):
        """Serves the control port, a request a connection."""
        while True:
            peer, _ = self.control.accept()
            with peer:
                words = peer.makefile().readline().split()
                try:
                    match words:
                        case ["restart", "kill" | "term" as how, *settings]:
                            self.stop(how)
                            self.settings.update(word.split("=", 1) for word in settings)
                            self.start()
                        case ["ctl", *arguments]:
                            self.ctl(arguments)
                        case ["clock", ahead]:
                            self.turn_clock(float(ahead))
                        case _:
                            raise RuntimeError(f"not a request: {words}")
                    answer = "ok"
                except Exception as error:
                    answer = f"error {error}"
                peer.sendall(" ".join(answer.split()).encode() + b"\n")

    def last_lines(self):
        return " | ".join(self.log_path.read_text(errors="replace").splitlines()[-5:]) or "(it printed nothing)"

    def end(self):
        """Ends the process and removes its directory; what was wrong with its end, or None."""
        wrong = None
        if self.process.poll() is not None:
            wrong = f"it had ended with status {self.process.returncode}: {self.last_lines()}"
        else:
            try:
                self.stop("term")
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                wrong = str(error)
                self.process.kill()
                self.process.wait()
        self.remove()
        return wrong

    def remove(self):
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def run_client(name, binary, broker):
    """Builds and runs one client; returns its result lines and how long it took."""
    began = time.monotonic()
    build, command = CLIENTS[name]
    environment = {**os.environ, **GO_ENV, "JARS": JARS, "COMPAT_WORK": str(WORK), "PYTHONUNBUFFERED": "1"}
    WORK.mkdir(exist_ok=True)
    for step in build:
        try:
            done = subprocess.run(step, env=environment, capture_output=True, text=True)
            problem = done.stderr.strip() if done.returncode else None
        except OSError as error:
            problem = str(error)
        if problem:
            return [f"FAIL build: {problem}"], 0.0

    server = None
    if broker:
        host, _, port = broker.rpartition(":")
        environment.update(AMQP_HOST=host, AMQP_PORT=port)
        for absent in ("LEVERET_PID", "CONTROL_PORT"):
            environment.pop(absent, None)
    else:
        try:
            server = Server(binary, name)
        except (OSError, RuntimeError) as error:
            return [f"FAIL start: {error}"], 0.0
        environment.update(
            AMQP_HOST="127.0.0.1", AMQP_PORT=str(server.amqp), HTTP_PORT=str(server.http),
            METRICS_PORT=str(server.metrics),
            LEVERET_PID=str(server.process.pid), CONTROL_PORT=str(server.control.getsockname()[1]),
            LEVERET_DATA_DIR=str(server.directory / "data"), PATH=f"{binary.parent}:{os.environ['PATH']}",
        )
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=CLIENT_SECONDS)
            problem = None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            problem = f"not done after {CLIENT_SECONDS} s"
    except OSError as error:
        output, errors, problem = "", "", str(error)
    (WORK / f"{name}.client.log").write_text(output + errors)
    lines = [line for line in output.splitlines() if line.startswith(("ok ", "FAIL "))]
    failed = any(line.startswith("FAIL ") for line in lines)
    if problem is None and (not lines or (process.returncode != 0 and not failed)):
        problem = f"status {process.returncode}: {' | '.join(errors.strip().splitlines()[-8:])}"
    if problem:
        lines.append(f"FAIL the script: {problem}")
    if server:
        wrong = server.end()
        if wrong:
            lines.append(f"FAIL the server's end: {wrong}")
    return lines, time.monotonic() - began


def built_server():
    """LEVERET_BIN, or the release build, made now."""
    named = os.environ.get("LEVERET_BIN")
    if named:
        return Path(named).resolve()
    subprocess.run(["cargo", "build", "-q", "--release"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "leveret"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CLIENTS), metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--amqp", metavar="HOST:PORT", help="a broker that already runs")
    parser.add_argument("--jobs", type=int, default=2, help="clients at a time (2; 1 with --amqp)")
    arguments = parser.parse_args()
    binary = None if arguments.amqp else built_server()
    jobs = 1 if arguments.amqp else arguments.jobs
    names = arguments.only or list(CLIENTS)

    passed, failures = 0, []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_client, name, binary, arguments.amqp): name for name in names}
        for done in concurrent.futures.as_completed(running):
            name = running[done]
            lines, seconds = done.result()
            failed = [f"{name}: {line}" for line in lines if line.startswith("FAIL ")]
            passed += len(lines) - len(failed)
            failures += failed
            print(f"{name}: {len(lines) - len(failed)} passed, {len(failed)} failed, {seconds:.0f} s", flush=True)
    for line in failures:
        print(line)
    print(f"{passed} passed, {len(failures)} failed, 0 skipped")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
