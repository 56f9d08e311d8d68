"""A server to be killed: started on free loopback ports, asked through `leveret ctl`, and watched for deaths of its own."""

import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("LEVERET_BIN") or str(ROOT / "target" / "release" / "leveret")


def command(data, *settings):
    """What starts a server on that directory and on free ports."""
    ports = [word for service in ("--amqp", "--http", "--metrics") for word in (service, "127.0.0.1:0")]
    return [BINARY, "serve", "--data-dir", data, *ports, *settings]


class Server:
    def __init__(self, directory, *settings, **how):
        """`how` is for the process, as Popen takes it."""
        self.directory, self.settings, self.how = Path(directory), settings, how
        self.start()

    def start(self):
        """Returns when it is ready; AssertionError with its last words if it is not."""
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command(self.directory / "data", *self.settings), stdout=subprocess.PIPE, stderr=log, **self.how
            )
        line = self.process.stdout.readline().decode()
        found = re.search(r"AMQP on 127\.0\.0\.1:(\d+).*\((.*)\)", line)
        if not found:
            raise AssertionError(f"the server did not start (status {self.process.wait()}): {self.last_words()}")
        self.port, self.found = int(found[1]), found[2]

    def kill(self):
        """SIGKILL, to a server that is alive."""
        self.must_live()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.must_live()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.process.stdout.close()
        assert status == 0, f"a stop ended with status {status}: {self.last_words()}"

    def must_live(self):
        assert self.process.poll() is None, f"the server died (status {self.process.returncode}): {self.last_words()}"

    def counts(self):
        """Queues and how many messages `list_queues` says each has."""
        rows = [line.split("\t") for line in self.ask("list_queues", "name", "messages").splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def ask(self, *words):
        """What `leveret ctl` says."""
        asked = [BINARY, "ctl", "--data-dir", self.directory / "data", "-q", *words]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"ctl {words} ended with status {done.returncode}: {done.stderr}"
        return done.stdout

    def last_words(self):
        return (self.directory / "server.log").read_text(errors="replace")[-600:]
