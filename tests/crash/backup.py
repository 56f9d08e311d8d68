#!/usr/bin/env python3
"""Makes backups of a server under mixed load, and starts each of them.

    backup.py [--copies N] [--seed N]

The load is that of kill.py, on two shards. A copy is of one moment while `leveret ctl backup` ran: it has what was
confirmed before that began and whose end nobody asked for until it was over, nothing that was gone before, all in order
and once, and is sound to `leveret store verify`. In the end the server itself is killed, and has lost nothing by it.
LEVERET_BIN is the server to test.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill import QUEUES, Client, finish, together
from server import BINARY, Server


class Moment:
    """What a client that works on knows at one moment."""

    def __init__(self, client):
        # A message may be on its way from the one to the other.
        may = client.may.copy()
        self.must = client.must.copy()
        self.may = may | self.must | client.may.copy()
        self.next = client.next


def check_copy(directory, clients, before, after):
    verified = subprocess.run([BINARY, "store", "verify", directory / "data"], capture_output=True, text=True)
    assert verified.returncode == 0, f"the copy is not sound: {verified.stdout}{verified.stderr}"
    server = Server(directory)
    try:
        listed = server.counts()
        for client, then, now in zip(clients, before, after):
            may = then.may | set(range(then.next, now.next))
            client.found(server.port, listed.get(client.name, 0), then.must & now.must, may)
        server.stop()
    finally:
        server.process.kill()
        server.process.wait()


def run(copies, seed):
    chance = random.Random(seed)
    clients = [Client(*queue) for queue in QUEUES]
    with tempfile.TemporaryDirectory(prefix="leveret-backup-") as directory:
        server = Server(directory, "--shards", "2")
        try:
            finish(clients, together(clients, lambda client: client.check(server.port, 0)))
            loads = {client.name: random.Random(chance.random()) for client in clients}
            threads = together(clients, lambda client: client.work(server.port, loads[client.name]))
            for copy in range(copies):
                time.sleep(chance.random())
                with tempfile.TemporaryDirectory(dir=directory) as copied:
                    before = list(map(Moment, clients))
                    server.ask("backup", Path(copied) / "data")
                    after = list(map(Moment, clients))
                    check_copy(Path(copied), clients, before, after)
            server.kill()
            finish(clients, threads)
            server.start()
            listed = server.counts()
            finish(clients, together(clients, lambda client: client.check(server.port, listed.get(client.name, 0))))
            server.stop()
        except BaseException:
            print(f"failed, seed {seed}", flush=True)
            raise
        finally:
            server.process.kill()
    checked = sum(client.checked for client in clients)
    sent = sum(client.next for client in clients)
    print(f"ok: {copies} copies, {sent:,} messages sent, {checked:,} found as they should be, seed {seed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    flags = parser.parse_args()
    sys.exit(run(flags.copies, flags.seed))
