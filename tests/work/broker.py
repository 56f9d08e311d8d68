"""A Leveret server of the tests' own, and `leveret work` as a process."""

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = Path(os.environ.get("LEVERET_BIN", ROOT / "target" / "release" / "leveret"))
PATIENCE = 60


def wait_for(what, condition, patience=PATIENCE):
    """Polls what gives no event of its own. Fails with `what` when it does not come true."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.02)


class Broker:
    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="leveret-work-")
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.amqp, self.http, self.metrics = [s.getsockname()[1] for s in sockets]
        for s in sockets:
            s.close()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.amqp}"
        self.log = open(Path(self.directory.name) / "log", "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BINARY, "serve", "--data-dir", f"{self.directory.name}/data", "--amqp", f"127.0.0.1:{self.amqp}",
             "--http", f"127.0.0.1:{self.http}", "--metrics", f"127.0.0.1:{self.metrics}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

        def listens():
            assert self.process.poll() is None, "the server did not start"
            try:
                socket.create_connection(("127.0.0.1", self.amqp)).close()
                return True
            except OSError:
                return False
        wait_for("the server listens", listens)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()
        self.directory.cleanup()

    def api(self, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/api{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def counts(self, queue):
        """Ready, unacknowledged and delayed."""
        try:
            found = self.api(f"/queues/%2F/{urllib.parse.quote(queue, safe='')}")
        except urllib.error.HTTPError:
            return (0, 0, 0)
        return tuple(found.get(key, 0) for key in ("messages_ready", "messages_unacknowledged", "messages_delayed"))

    def messages(self, queue, state="ready"):
        """All that is in a queue in that state."""
        path = f"/queues/%2F/{urllib.parse.quote(queue, safe='')}/messages?count=10000&encoding=auto&state={state}"
        found, more = [], ""
        while True:
            page = self.api(path + more)
            found += page["items"]
            if page["next"] is None:
                return found
            more = f"&from={urllib.parse.quote(str(page['next']))}"

    def publish(self, queue, bodies, *options):
        """Each with its body as its message id."""
        jobs = "".join(json.dumps({"body": body, "message_id": body[:200]}) + "\n" for body in bodies)
        run = subprocess.run([BINARY, "publish", "--queue", queue, "--json-lines", "--quiet", *options, "--url", self.url],
                             input=jobs.encode(), capture_output=True)
        assert run.returncode == 0, run.stderr.decode()


class Worker:
    """A runner, whose log is read as it comes."""

    def __init__(self, broker, queue, command, *options, env=None):
        self.process = subprocess.Popen(
            [BINARY, "work", "--url", broker.url, "--queue", queue, "--declare", "--retry-min", "50ms", "--retry-max", "50ms",
             *([] if "--delivery-limit" in options else ["--delivery-limit", "2"]), "--log", "json", *options, "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.events, self.text, self.out = [], [], b""
        self.readers = [threading.Thread(target=self.read_log), threading.Thread(target=self.read_out)]
        for reader in self.readers:
            reader.start()

    def read_log(self):
        for line in self.process.stderr:
            try:
                event = json.loads(line)
                self.events.append(event) if isinstance(event, dict) else self.text.append(line)
            except ValueError:
                self.text.append(line)

    def read_out(self):
        while piece := self.process.stdout.read1():
            self.out = (self.out + piece)[-4_000_000:]

    def of(self, *names):
        return [event for event in self.events if event["event"] in names]

    def connected(self):
        wait_for("the worker has a connection", lambda: self.of("connected"))
        return self

    def ended(self, patience=PATIENCE):
        code = self.process.wait(patience)
        for reader in self.readers:
            reader.join(10)
        return code

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self):
        self.process.kill()
        self.ended()


def alive(pid):
    """A process that is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
