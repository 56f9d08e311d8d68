#!/usr/bin/env python3
"""Takes the data directory away from a server: before its start, and while it runs.

    directory.py [NAME]...

It may be a file, be forbidden, be read-only, be removed, be moved away, or its filesystem may break down. A server that
does not start, or cannot go on, ends with status 1 and one sentence about it, and what was confirmed is there when the
directory is back. As root, another user runs the server, whom permissions bind; breaking a filesystem needs root, and is
skipped elsewhere. LEVERET_BIN is the server to test.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from full_disk import small_filesystem
from kill import body, number
from server import Server, command
from wire import Gone, Wire

QUEUE = "kept"
BODY = 16_000
# More than a segment has, in messages; and more than stays in memory.
LONG = (80 << 20) // BODY
BACKLOG = (24 << 20) // BODY
# Somebody to whom nothing belongs.
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}

cases = []


class Case:
    """A directory of its own, a server on it, and which messages were confirmed."""

    def __init__(self, root):
        self.root = Path(tempfile.mkdtemp(dir=root))
        self.data = self.root / "data"
        self.shard = self.data / "shard-0"
        self.confirmed, self.next = set(), 0
        self.server = None
        give_away(self.root)

    def start(self):
        self.server = Server(self.root, **NOBODY)

    def fill(self, messages=100):
        """The server has so many messages, all of them confirmed, and runs."""
        self.start()
        Wire(self.server.port).declare(QUEUE)
        confirmed = self.publish(messages)
        assert confirmed == messages, f"{confirmed} of {messages} messages were confirmed"

    def publish(self, messages):
        """As many as the server lives for; returns how many of them were confirmed."""
        first, last = self.next, self.next + messages
        wire = Wire(self.server.port)
        wire.confirm_select()
        with contextlib.suppress(Gone):
            while len(wire.confirmed) < messages:
                if self.next < last and self.next - first - len(wire.confirmed) < 300:
                    wire.publish(QUEUE, [body(self.next, BODY)])
                    self.next += 1
                wire.pump(0 if self.next < last else 1)
        wire.abandon()
        self.confirmed.update(first + publish - 1 for publish in wire.confirmed)
        return len(wire.confirmed)

    def consume(self):
        """What the server still delivers."""
        wire, found, deadline = Wire(self.server.port), set(), time.monotonic() + 60
        counted = wire.declare(QUEUE)
        with contextlib.suppress(Gone):
            # The server reads ahead as soon as somebody consumes, and may have ended before it answers.
            wire.consume(QUEUE)
            while len(found) < counted:
                assert time.monotonic() < deadline, f"{len(found)} of {counted} messages came"
                wire.pump(1)
                found.update(map(number, wire.deliveries))
                wire.deliveries.clear()
        wire.abandon()
        return found

    def has_all(self):
        """The next start finds everything that was confirmed."""
        self.start()
        lost = sorted(self.confirmed - self.consume())
        assert not lost, f"{len(lost)} confirmed messages are lost: {lost[:10]}"
        self.server.stop()

    def refused(self, data, *words):
        """A server does not start there, and says why."""
        done = subprocess.run(command(data), capture_output=True, text=True, timeout=30, **NOBODY)
        assert not done.stdout, f"it printed {done.stdout}"
        self.judge(done.returncode, done.stderr.splitlines(), data, words)

    def ended(self, *words):
        """The server that runs ends by itself, and says why."""
        self.judge(self.server.process.wait(30), self.server.last_words().splitlines(), self.data, words)

    def judge(self, status, said, data, words):
        sentences = [line for line in said if line.startswith("leveret: ")]
        assert status == 1 and len(sentences) == 1 and said[-1] == sentences[0], f"status {status}, and it said: {said}"
        missing = [word for word in (str(data), *words) if word not in sentences[0]]
        assert not missing, f"it does not say {missing}: {sentences[0]}"
        print("   ", sentences[0].replace(str(self.root), "…"), flush=True)

    def end(self):
        if self.server:
            self.server.process.kill()
            self.server.process.wait()
        # Forbidden things are to be removed, too.
        subprocess.run(["chmod", "-R", "u+rwX", self.root], check=True)
        shutil.rmtree(self.root)


def give_away(path):
    if NOBODY:
        os.chown(path, NOBODY["user"], NOBODY["group"])


def case(body):
    cases.append(body)
    return body


# Before the start.


@case
def a_file(case):
    case.data.write_text("no directory")
    for data in (case.data, case.data / "below"):
        case.refused(data, "not a directory", "--data-dir")


@case
def no_permission(case):
    case.data.mkdir(mode=0)
    give_away(case.data)
    case.refused(case.data, "Permission denied", "--data-dir")
    case.data.rmdir()
    case.root.chmod(0o555)
    case.refused(case.data, "Permission denied", "--data-dir")


@case
def read_only(case):
    case.fill()
    case.server.stop()
    case.data.chmod(0o555)
    case.refused(case.data, "Permission denied")
    case.data.chmod(0o700)
    segment = min(case.shard.glob("*.log"))
    for mode in (0o444, 0):
        segment.chmod(mode)
        case.refused(case.data, "Permission denied", segment.name)
    segment.chmod(0o600)
    case.has_all()


# While it runs.


@case
def removed(case):
    case.fill()
    shutil.rmtree(case.data)
    confirmed = case.publish(1000)
    assert not confirmed, f"{confirmed} messages were confirmed that no start will find"
    case.ended("cannot sync", "removed or moved away")


@case
def moved_away(case):
    case.fill()
    case.data.rename(case.root / "elsewhere")
    confirmed = case.publish(1000)
    assert not confirmed, f"{confirmed} messages were confirmed that no start will find"
    case.ended("cannot sync", "put back what was there")
    (case.root / "elsewhere").rename(case.data)
    case.has_all()


@case
def made_read_only(case):
    case.fill()
    case.shard.chmod(0o555)
    confirmed = case.publish(LONG)
    assert 0 < confirmed < LONG, f"{confirmed} messages were confirmed: as many as the open segment had room for?"
    case.ended("cannot create", "Permission denied", "nothing that was confirmed is lost")
    case.shard.chmod(0o700)
    case.has_all()


@case
def made_unreadable(case):
    case.fill(BACKLOG)
    case.shard.chmod(0)
    found = case.consume()
    assert len(found) < BACKLOG, "all of the backlog came from memory"
    case.ended("cannot read", "Permission denied", "nothing that was confirmed is lost")
    case.shard.chmod(0o700)
    case.has_all()


@case
def broken_down(case):
    """The kernel finds an error in the filesystem, and lets nobody write to it any more."""
    with small_filesystem() as mounted:
        if mounted is None:
            return
        data, image = Path(mounted) / "data", Path(mounted).with_name("image")
        Path(mounted).parent.chmod(0o755)
        data.mkdir()
        give_away(data)
        case.data.symlink_to(data)
        case.fill()
        mount("-o", "remount,abort", mounted)
        case.publish(1000)
        case.ended("nothing that was confirmed is lost")
        subprocess.run(["umount", mounted], check=True)
        mount("-o", "loop", image, mounted)
        mount("-o", "remount,ro", mounted)
        case.refused(case.data, "Read-only file system")
        mount("-o", "remount,rw", mounted)
        case.has_all()


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def main():
    with tempfile.TemporaryDirectory(prefix="leveret-directory-") as root:
        os.chmod(root, 0o755)
        for body in cases:
            if sys.argv[1:] and body.__name__ not in sys.argv[1:]:
                continue
            print(f"{body.__name__}:", flush=True)
            case = Case(root)
            try:
                body(case)
            finally:
                case.end()
    print("ok")


if __name__ == "__main__":
    main()
