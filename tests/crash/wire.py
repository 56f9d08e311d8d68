"""One AMQP 0-9-1 connection with one channel, in as little as the crash tests need: a blocking socket, no library.

It writes whole batches of publishes at once, and keeps apart what arrives out of turn: confirms, deliveries, and whether
the broker blocks publishers.
"""

import collections
import socket
import struct
import time

Delivery = collections.namedtuple("Delivery", "tag redelivered body")


class Gone(Exception):
    """The broker closed the connection or died."""


class Wire:
    """Events are taken in by `pump` and `call`; what they say is in the fields."""

    def __init__(self, port, seconds=30):
        self.confirmed = set()  # publish numbers
        self.refused = set()  # and those that were nacked
        self.published = 0
        self._all_before = 1
        self.deliveries = collections.deque()
        self.blocked = False
        self._answer = None
        self._tag = self._redelivered = None
        self._buffer = bytearray()
        self._seconds = seconds
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(b"AMQP\0\0\x09\x01")
        except OSError as error:
            raise Gone(str(error)) from error
        self._await((10, 10))
        flag = lambda name: _short(name) + b"t\x01"
        capabilities = flag("connection.blocked") + flag("publisher_confirms") + flag("basic.nack")
        properties = _short("capabilities") + b"F" + _long(capabilities)
        self._send(10, 11, _long(properties) + _short("PLAIN") + _long(b"\0guest\0guest") + _short("en_US"), channel=0)
        self._await((10, 30))
        self._send(10, 31, struct.pack(">HIH", 2047, 131072, 0), channel=0)
        self.call(10, 40, _short("/") + b"\0\0", (10, 41), channel=0)
        self.call(20, 10, b"\0", (20, 11))

    # What the tests ask for.

    def confirm_select(self):
        self.call(85, 10, b"\0", (85, 11))

    def declare(self, queue, durable=True, passive=False):
        """How many messages are ready in it."""
        flags = bytes([passive | durable << 1])
        answer = self.call(50, 10, b"\0\0" + _short(queue) + flags + _long(b""), (50, 11))
        return struct.unpack_from(">I", answer, 1 + answer[0])[0]

    def purge(self, queue):
        return struct.unpack(">I", self.call(50, 30, b"\0\0" + _short(queue) + b"\0", (50, 31)))[0]

    def delete(self, queue):
        return struct.unpack(">I", self.call(50, 40, b"\0\0" + _short(queue) + b"\0", (50, 41)))[0]

    def prefetch(self, count):
        self.call(60, 10, struct.pack(">IHB", 0, count, 0), (60, 11))

    def consume(self, queue, no_ack=False):
        arguments = b"\0\0" + _short(queue) + _short(queue) + bytes([no_ack << 1]) + _long(b"")
        self.call(60, 20, arguments, (60, 21))

    def cancel(self, queue):
        self.call(60, 30, _short(queue) + b"\0", (60, 31))

    def publish(self, queue, bodies, persistent=True):
        """Writes all at once; returns the publish number of the first."""
        first = self.published + 1
        self.published += len(bodies)
        method = _frame(1, 1, struct.pack(">HH", 60, 40) + b"\0\0\0" + _short(queue) + b"\0")
        mode = b"\x02" if persistent else b"\x01"
        out = []
        for body in bodies:
            header = struct.pack(">HHQH", 60, 0, len(body), 0x1000) + mode
            out.append(method + _frame(2, 1, header))
            if body:
                out.append(_frame(3, 1, body))
        self.write(b"".join(out))
        return first

    def ack(self, tag, multiple=False):
        self._send(60, 80, struct.pack(">QB", tag, multiple))

    def nack(self, tag, requeue=True):
        self._send(60, 120, struct.pack(">QB", tag, requeue << 1))

    def close(self):
        """Returns when the broker has done all that was sent."""
        self.call(10, 50, struct.pack(">H", 200) + _short("done") + b"\0\0\0\0", (10, 51), channel=0)
        self.abandon()

    def abandon(self):
        self._socket.close()

    # The wire.

    def write(self, octets):
        """A broker that reads nothing for a while (it blocks publishers, say) is waited for."""
        view, deadline = memoryview(octets), time.monotonic() + self._seconds
        while view:
            try:
                self._socket.settimeout(0.2)
                view = view[self._socket.send(view) :]
                deadline = time.monotonic() + self._seconds
            except TimeoutError:
                self.pump(0)
                if time.monotonic() > deadline and not self.blocked:
                    raise AssertionError(f"the broker has read nothing for {self._seconds} s") from None
            except OSError as error:
                raise Gone(str(error)) from error

    def pump(self, seconds):
        """Takes in what arrives within the time; True if anything did."""
        try:
            # 0 would make the socket one that never blocks, on which a timeout looks otherwise.
            self._socket.settimeout(seconds or 0.0001)
            octets = self._socket.recv(1 << 18)
        except TimeoutError:
            return False
        except OSError as error:
            raise Gone(str(error)) from error
        if not octets:
            raise Gone("the socket was closed")
        self._buffer += octets
        at, buffer = 0, self._buffer
        while len(buffer) - at >= 7:
            kind, _channel, size = struct.unpack_from(">BHI", buffer, at)
            if len(buffer) - at < size + 8:
                break
            self._take(kind, bytes(buffer[at + 7 : at + 7 + size]))
            at += size + 8
        del buffer[:at]
        return True

    def call(self, class_id, method_id, arguments, answer, channel=1):
        self._send(class_id, method_id, arguments, channel)
        return self._await(answer)

    def _await(self, answer):
        deadline = time.monotonic() + self._seconds
        while self._answer is None or self._answer[0] != answer:
            self.pump(1)
            if time.monotonic() > deadline:
                raise AssertionError(f"the broker has not answered with {answer} for {self._seconds} s")
        arguments, self._answer = self._answer[1], None
        return arguments

    def _send(self, class_id, method_id, arguments, channel=1):
        self.write(_frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments))

    def _take(self, kind, payload):
        if kind == 3:
            self._body += payload
            self._deliver_if_whole()
        elif kind == 2:
            self._missing = struct.unpack_from(">Q", payload, 4)[0]
            self._body = b""
            self._deliver_if_whole()
        elif kind == 1:
            method, arguments = struct.unpack_from(">HH", payload), payload[4:]
            if method == (60, 60):
                self._tag, self._redelivered = struct.unpack_from(">Q?", arguments, 1 + arguments[0])
            elif method in ((60, 80), (60, 120)):
                self._settle(*struct.unpack_from(">QB", arguments), self.confirmed if method[1] == 80 else self.refused)
            elif method in ((10, 60), (10, 61)):
                self.blocked = method == (10, 60)
            elif method in ((10, 50), (20, 40)):
                raise AssertionError(f"the broker closed: {arguments!r}")
            else:
                self._answer = method, arguments

    def _settle(self, tag, flags, into):
        if flags & 1:
            into.update(n for n in range(self._all_before, tag + 1) if n not in self.confirmed and n not in self.refused)
            self._all_before = max(self._all_before, tag + 1)
        else:
            into.add(tag)

    def _deliver_if_whole(self):
        if len(self._body) >= self._missing:
            self.deliveries.append(Delivery(self._tag, self._redelivered, self._body))


def _frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _short(text):
    return bytes([len(text)]) + text.encode()


def _long(octets):
    return struct.pack(">I", len(octets)) + octets
