#!/usr/bin/env python3
"""Fills the disk under a server: a small filesystem in a loop-mounted image.

    full_disk.py [--rounds N]

With a limit for free disk space, and with none until there is no space at all: publishers are blocked, what was
confirmed stays, across SIGKILL while the disk is full too; consumers drain it, in order, publishers are let on again,
and the server never dies of it. Mounting needs root. Elsewhere the test is skipped, and says so; as root in CI (the
variable CI is set) it fails instead. LEVERET_BIN is the server to test.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time

from kill import body, number
from server import Server
from wire import Gone, Wire

IMAGE_BYTES = 256 << 20
QUEUE = "full"


@contextlib.contextmanager
def small_filesystem():
    """A mounted directory; None if this machine mounts nothing for us."""
    with tempfile.TemporaryDirectory(prefix="leveret-full-") as directory:
        image, mounted = os.path.join(directory, "image"), os.path.join(directory, "mounted")
        os.mkdir(mounted)
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        make = ["mkfs.ext4", "-q", "-F", "-m", "0", image]
        for command in (make, ["mount", "-o", "loop", image, mounted]):
            try:
                done = subprocess.run(command, capture_output=True, text=True)
                failure = done.stderr.strip() if done.returncode else None
            except OSError as error:
                failure = str(error)
            if failure:
                print(f"SKIPPED: no filesystem to fill up, as {command[0]} failed: {failure}", flush=True)
                yield None
                return
        try:
            yield mounted
        finally:
            subprocess.run(["umount", mounted], check=True)


class Publisher:
    """Publishes until it is told that it is blocked, and knows what was confirmed."""

    def __init__(self, port, first):
        self.wire = Wire(port)
        self.wire.confirm_select()
        self.first = self.next = first

    def fill(self, chance, seconds=60):
        """Until blocked; returns which messages were confirmed."""
        deadline = time.monotonic() + seconds
        while not self.wire.blocked:
            assert time.monotonic() < deadline, f"nobody blocked the publisher in {seconds} s"
            if self.next - self.first - len(self.wire.confirmed) < 200:
                # What blocks in the middle of a batch stays unread for as long as that lasts.
                self.publish(chance)
            self.wire.pump(0.0002)
        return self.confirmed()

    def publish(self, chance):
        # Not more than the buffers of the sockets hold, so that a blocked server does not stop the write.
        self.wire.publish(QUEUE, [body(self.next, chance.randrange(16_000))])
        self.next += 1

    def confirmed(self):
        return {self.first - 1 + publish for publish in self.wire.confirmed}


def drain(server, must, sent):
    """Takes out all there is, and holds it against what must be there."""
    wire = Wire(server.port)
    counted, listed = wire.declare(QUEUE), server.counts()[QUEUE]
    assert counted >= len(must), f"{counted} messages are there, {len(must)} were confirmed"
    assert listed >= counted, f"list_queues says {listed}, queue.declare {counted}"
    wire.consume(QUEUE)
    found, heard_at = [], time.monotonic()
    while len(found) < counted or time.monotonic() - heard_at < 0.5:
        if wire.pump(0.05):
            heard_at = time.monotonic()
        while wire.deliveries:
            delivery = wire.deliveries.popleft()
            found.append(number(delivery))
            wire.ack(delivery.tag)
        assert time.monotonic() - heard_at < 30, f"{len(found)} of {counted} messages came"
    wire.close()
    assert all(one < other for one, other in zip(found, found[1:])), "messages came out of order or twice"
    lost = sorted(must.difference(found))
    assert not lost, f"{len(lost)} confirmed messages are lost: {lost[:10]}"
    assert not found or found[-1] < sent, "a message came that was never sent"
    return len(found)


def round_trip(mounted, limit, kills, chance):
    """Fill, crash perhaps, drain, go on."""
    directory = tempfile.mkdtemp(dir=mounted)
    server = Server(directory, "--disk-free-limit", limit)
    try:
        Wire(server.port).declare(QUEUE)
        publisher = Publisher(server.port, 0)
        must, sent = publisher.fill(chance), publisher.next
        free = os.statvfs(mounted)
        server.must_live()
        for _ in range(kills):
            server.kill()
            publisher.wire.abandon()
            server.start()
            # Full still: whoever publishes is told again.
            publisher = Publisher(server.port, sent)
            must |= publisher.fill(chance)
            sent = publisher.next
        server.must_live()
        drained = drain(server, must, sent)
        deadline = time.monotonic() + 60
        while publisher.wire.blocked:
            publisher.wire.pump(0.1)
            assert time.monotonic() < deadline, "the publisher is still blocked, 60 s after the queue was drained"
        confirmed_before = len(publisher.confirmed())
        publisher.publish(chance)
        while len(publisher.confirmed()) <= confirmed_before:
            publisher.wire.pump(0.1)
            assert time.monotonic() < deadline, "nothing is confirmed although the disk has room again"
        publisher.wire.close()
        server.must_live()
        server.stop()
        print(f"ok: limit {limit}, {free.f_bavail * free.f_frsize >> 20} MiB were free when blocked, {kills} kills, "
              f"{len(must):,} confirmed, {drained:,} drained", flush=True)
    except Gone as error:
        # Its own words are worth more than a socket's.
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(5)
        raise AssertionError(f"a connection was lost ({error}), server status {server.process.poll()}: {server.last_words()}") from error
    finally:
        server.process.kill()
        server.process.wait()
        subprocess.run(["rm", "-rf", directory], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    flags = parser.parse_args()
    chance = random.Random(flags.seed)
    with small_filesystem() as mounted:
        if mounted is None:
            return 1 if os.geteuid() == 0 and os.environ.get("CI") else 0
        for number_of_round in range(flags.rounds):
            for limit in ("20MB", "0"):
                print(f"round {number_of_round + 1}, limit {limit}, seed {flags.seed}", flush=True)
                round_trip(mounted, limit, number_of_round % 3, chance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
