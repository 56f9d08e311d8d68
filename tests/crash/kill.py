#!/usr/bin/env python3
"""Kills a server at random moments under mixed load, starts it again, and holds what is there against what it confirmed.

    kill.py [--rounds N] [--seconds S] [--seed N]

Each queue has one client, which publishes (persistent and transient), acknowledges one or many, gives back, purges,
deletes and declares anew, and knows of each message what may be asked for after a crash:

  must   it is there: persistent, confirmed, and nobody asked for its end
  may    it may be there: not confirmed yet, or its end was asked for and nothing later was confirmed
  gone   it never comes back: its end was asked for before something that was confirmed since, it was transient when
         the server was killed, or it was missing after an earlier start

After each start every queue is drained: what is there must be in order and once, contain all that must, nothing that
is gone, and be as many as `list_queues` said. It then goes back, to be there after the next crash. LEVERET_BIN is the
server to test.
"""

import argparse
import random
import struct
import sys
import tempfile
import threading
import time

from server import Server
from wire import Gone, Wire

# (name, the largest body, how many messages to hold at most): the second is more than stays in memory.
QUEUES = [("small", 200, 3000), ("large", 12_000, 3000), ("mixed", 3000, 1500)]
PADDING = random.Random(0).randbytes(16_384)


class Client:
    """The one client of a queue, and what it may ask for after a crash. Lives longer than its connections."""

    def __init__(self, name, body_max, messages_max):
        self.name, self.body_max, self.messages_max = name, body_max, messages_max
        self.next = 0  # the number of the next message
        self.must, self.may = set(), set()
        self.failure = None
        self.checked = 0
        self.transient = set()

    def known(self, n):
        return n in self.must or n in self.may or n in self.transient

    # After a start.

    def check(self, port, listed):
        self.must, self.may = self.found(port, listed, self.must, self.must | self.may), set()

    def found(self, port, listed, must, may):
        """The numbers of all messages that are there, of which some must be, and no others than these may be."""
        wire = Wire(port)
        counted = wire.declare(self.name)
        assert listed == counted, f"{self.name}: list_queues says {listed}, queue.declare {counted}"
        wire.consume(self.name)
        found, quiet_since = [], time.monotonic()
        # A while longer than until all have come: there may be more than were counted.
        while len(found) < counted or time.monotonic() - quiet_since < 0.1:
            if wire.pump(0.05):
                quiet_since = time.monotonic()
            while wire.deliveries:
                found.append(number(wire.deliveries.popleft()))
            assert time.monotonic() - quiet_since < 20, f"{self.name}: {len(found)} of {counted} messages came"
        assert len(found) == counted, f"{self.name}: {counted} messages counted, {len(found)} came"
        unordered = [pair for pair in zip(found, found[1:]) if pair[0] >= pair[1]]
        assert not unordered, f"{self.name}: out of order or twice: {unordered[:5]}"
        lost, back = sorted(must.difference(found)), sorted(set(found).difference(may))
        assert not lost, f"{self.name}: {len(lost)} confirmed messages are lost: {lost[:10]}"
        assert not back, f"{self.name}: {len(back)} messages are back: {back[:10]} of {self.next}"
        self.checked += len(found)
        # A connection that is gone gives back what it held.
        wire.abandon()
        return set(found)

    # Until the crash.

    def work(self, port, chance):
        try:
            self._work(port, chance)
        except Gone:
            pass
        except Exception as error:  # told by the main thread
            self.failure = error
        # What was transient does not survive the kill that comes now, or has.
        self.transient = set()

    def _work(self, port, chance):
        self.transient = set()
        self.held = {}  # delivery tag: number
        self.publishes = {}  # publish number: (message, persistent)
        self.ended = set()  # numbers whose end was asked for
        self.barriers = []  # (publish number, what is gone when it is confirmed)
        self.unbarred = []
        wire = Wire(port)
        wire.confirm_select()
        wire.prefetch(chance.choice([10, 300, 2000]))
        wire.consume(self.name)
        while True:
            what = chance.random()
            crowded = len(self.must) > self.messages_max
            if what < 0.003:
                self._purge(wire)
            elif what < 0.004:
                self._delete(wire)
            elif what < 0.4 and not crowded:
                self._publish(wire, chance)
            self._take_in(wire, 0.0002 if what < 0.9 else 0.01)
            self._settle(wire, chance, 0.9 if crowded else 0.3)

    def _publish(self, wire, chance):
        persistent = chance.random() < 0.8
        numbers = range(self.next, self.next + chance.choice([1, 10, 100]))
        self.next = numbers.stop
        (self.may if persistent else self.transient).update(numbers)
        if persistent and self.unbarred:
            self.barriers.append((wire.published + 1, self.unbarred))
            self.unbarred = []
        first = wire.published + 1
        self.publishes.update((first + at, (n, persistent)) for at, n in enumerate(numbers))
        wire.publish(self.name, [body(n, chance.randrange(self.body_max)) for n in numbers], persistent)

    def _take_in(self, wire, seconds):
        wire.pump(seconds)
        assert not wire.refused, f"{self.name}: a publish was refused"
        confirmed, wire.confirmed = wire.confirmed, set()
        for publish in confirmed:
            n, persistent = self.publishes.pop(publish, (None, False))
            if persistent and n in self.may and n not in self.ended:
                self.may.discard(n)
                self.must.add(n)
        while self.barriers and self.barriers[0][0] not in self.publishes:
            self.may.difference_update(self.barriers.pop(0)[1])
        while wire.deliveries:
            delivery = wire.deliveries.popleft()
            n = number(delivery)
            assert self.known(n), f"{self.name}: message {n} was delivered, which is gone"
            assert n not in self.ended, f"{self.name}: message {n} was delivered after its ack"
            self.held[delivery.tag] = n

    def _settle(self, wire, chance, share):
        if not self.held or chance.random() > share:
            return
        tags = sorted(self.held)
        if chance.random() < 0.3:
            tag = chance.choice(tags)
            self._end([self.held.pop(other) for other in tags if other <= tag])
            wire.ack(tag, multiple=True)
        else:
            for tag in chance.sample(tags, min(len(tags), 20)):
                n = self.held.pop(tag)
                if chance.random() < 0.2:
                    wire.nack(tag)
                else:
                    self._end([n])
                    wire.ack(tag)

    def _end(self, numbers):
        """Their end is about to be asked for."""
        self.ended.update(numbers)
        self.may.update(self.must.intersection(numbers))
        self.must.difference_update(numbers)
        self.transient.difference_update(numbers)
        self.unbarred += numbers

    def _purge(self, wire):
        # With a consumer, what is on its way to it would be purged or not.
        wire.cancel(self.name)
        self._take_in(wire, 0.0002)
        held = set(self.held.values())
        self._end([n for n in self.must | self.may | self.transient if n not in held and n not in self.ended])
        wire.purge(self.name)
        wire.consume(self.name)

    def _delete(self, wire):
        self._take_in(wire, 0.0002)
        # Until there is an answer, it can have happened or not; from then on it has for good.
        self._end(list(self.must))
        wire.delete(self.name)
        wire.deliveries.clear()
        self.held.clear()
        self.must, self.may, self.transient, self.unbarred, self.barriers = set(), set(), set(), [], []
        self.ended = set(range(self.next))
        wire.declare(self.name)
        wire.consume(self.name)


def body(n, padding):
    return struct.pack(">Q", n) + PADDING[:padding]


def number(delivery):
    n = struct.unpack_from(">Q", delivery.body)[0]
    assert delivery.body[8:] == PADDING[: len(delivery.body) - 8], f"the body of message {n} is damaged"
    return n


def together(clients, do):
    """Runs it for each client in a thread; the first failure is raised."""

    def run(client):
        try:
            do(client)
        except Exception as error:
            client.failure = error

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    return threads


def finish(clients, threads):
    for thread in threads:
        thread.join()
    for client in clients:
        if client.failure:
            raise client.failure


def run(rounds, seconds, seed):
    chance = random.Random(seed)
    clients = [Client(*queue) for queue in QUEUES]
    began, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="leveret-crash-") as directory:
        server = Server(directory)
        try:
            while done < rounds and (not seconds or time.monotonic() - began < seconds):
                listed = server.counts()
                finish(clients, together(clients, lambda client: client.check(server.port, listed.get(client.name, 0))))
                # The connections of the check may still be about to give back what they held.
                loads = {client.name: random.Random(chance.random()) for client in clients}
                threads = together(clients, lambda client: client.work(server.port, loads[client.name]))
                time.sleep(chance.choice([0.05, 0.3, 1, 2]) * chance.random() + 0.05)
                server.kill()
                finish(clients, threads)
                server.start()
                done += 1
                if done % 10 == 0 or sys.stdout.isatty():
                    checked = sum(client.checked for client in clients)
                    print(f"{done} crashes, {checked:,} messages found as they should be", flush=True)
            listed = server.counts()
            finish(clients, together(clients, lambda client: client.check(server.port, listed.get(client.name, 0))))
            server.stop()
        except BaseException:
            print(f"failed in round {done + 1}, seed {seed}", flush=True)
            raise
        finally:
            server.process.kill()
    checked = sum(client.checked for client in clients)
    sent = sum(client.next for client in clients)
    print(f"ok: {done} crashes, {sent:,} messages sent, {checked:,} found as they should be, seed {seed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long; 0 = when the rounds are done")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    flags = parser.parse_args()
    run(flags.rounds, flags.seconds, flags.seed)
