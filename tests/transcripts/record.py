"""Writes down what a client says to RabbitMQ and what RabbitMQ answers.

    python3 record.py UPSTREAM_PORT LISTEN_PORT TRANSCRIPT -- COMMAND...

listens on 127.0.0.1:LISTEN_PORT, runs COMMAND (its words LISTEN_PORT are replaced by that port), and writes every frame
that passes between it and the server on 127.0.0.1:UPSTREAM_PORT to TRANSCRIPT, one a line:

    12 1> 0 connection.start-ok client_properties={...} ... | 0100...

the milliseconds since the first connection, the connection's number, `>` from the client or `<` from the server, the
channel, the frame in words for people, and after `|` its bytes in hex for the test. `END` is a closed socket.
README.md beside this file tells how to record all sessions.
"""

import selectors
import socket
import struct
import subprocess
import sys
import time
import tomllib
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "crates/amqp/spec/methods.toml"
PROPERTIES = [
    ("content_type", "shortstr"), ("content_encoding", "shortstr"), ("headers", "table"), ("delivery_mode", "octet"),
    ("priority", "octet"), ("correlation_id", "shortstr"), ("reply_to", "shortstr"), ("expiration", "shortstr"),
    ("message_id", "shortstr"), ("timestamp", "longlong"), ("type", "shortstr"), ("user_id", "shortstr"),
    ("app_id", "shortstr"), ("cluster_id", "shortstr"),
]
NUMBERS = {"octet": "B", "short": "H", "long": "I", "longlong": "Q"}
CONNECTION_START = b"\0\x0a\0\x0a"
SCALARS = {"b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q", "f": "f", "d": "d", "T": "Q"}


def methods():
    named = {}
    for group in tomllib.loads(SPEC.read_text())["class"]:
        for method in group["method"]:
            named[group["id"], method["id"]] = (f"{group['name']}.{method['name']}", method.get("fields", []))
    return named


class Reader:
    """Takes values off the front of some bytes."""

    def __init__(self, octets):
        self.octets, self.at = octets, 0

    def take(self, count):
        self.at += count
        return self.octets[self.at - count:self.at]

    def number(self, code):
        return struct.unpack(">" + code, self.take(struct.calcsize(">" + code)))[0]

    def value(self, kind):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == "shortstr":
            return text(self.take(self.number("B")))
        octets = self.take(self.number("I"))
        return table(octets) if kind == "table" else text(octets)

    def tagged(self):
        tag = chr(self.number("B"))
        if tag in SCALARS:
            return f"{tag}:{self.number(SCALARS[tag])}"
        if tag == "t":
            return str(bool(self.number("B"))).lower()
        if tag == "V":
            return "void"
        if tag == "D":
            return f"D:{self.number('B')}/{self.number('i')}"
        octets = self.take(self.number("I"))
        if tag == "F":
            return table(octets)
        if tag == "A":
            inner = Reader(octets)
            return "[" + ", ".join(iter_while(inner)) + "]"
        return text(octets) if tag == "S" else f"x:{octets.hex()}"


def iter_while(reader):
    while reader.at < len(reader.octets):
        yield reader.tagged()


def text(octets):
    return '"' + octets.decode("utf-8", "backslashreplace").translate({c: f"\\x{c:02x}" for c in range(32)}) + '"'


def table(octets):
    reader, entries = Reader(octets), []
    while reader.at < len(octets):
        name = reader.take(reader.number("B")).decode()
        entries.append(f"{name}={reader.tagged()}")
    return "{" + ", ".join(entries) + "}"


def describe_method(payload, named):
    reader = Reader(payload)
    name, fields = named[reader.number("H"), reader.number("H")]
    words, bit, flags = [name], 8, 0
    for field in fields:
        if field["type"] == "bit":
            if bit == 8:
                bit, flags = 0, reader.number("B")
            value, bit = flags >> bit & 1, bit + 1
        else:
            bit, value = 8, reader.value(field["type"])
        if not field.get("reserved"):
            words.append(f"{field['name']}={value}")
    return " ".join(words)


def describe_header(payload):
    reader = Reader(payload)
    reader.take(4)
    words = [f"header body={reader.number('Q')}"]
    flags = reader.number("H")
    for at, (name, kind) in enumerate(PROPERTIES):
        if flags & 1 << 15 - at:
            words.append(f"{name}={reader.value(kind)}")
    return " ".join(words)


def describe(kind, payload, named):
    if kind == 1:
        return describe_method(payload, named)
    if kind == 2:
        return describe_header(payload)
    if kind == 3:
        return "body " + text(payload if len(payload) <= 60 else payload[:60] + b"...")
    return "heartbeat"


def without_properties(frame):
    """connection.start without the server's properties, which name the machine."""
    (length,) = struct.unpack(">I", frame[13:17])
    payload = frame[7:13] + bytes(4) + frame[17 + length:-1]
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + frame[-1:]


class Direction:
    """The bytes that flow one way, cut into frames."""

    def __init__(self, number, arrow, source, target):
        self.label, self.source, self.target = f"{number}{arrow}", source, target
        self.octets, self.greets = b"", arrow == ">"

    def frames(self, octets, named):
        self.octets += octets
        if self.greets and len(self.octets) >= 8:
            header, self.octets, self.greets = self.octets[:8], self.octets[8:], False
            yield f"- protocol-header | {header.hex()}"
        while not self.greets and len(self.octets) >= 7:
            kind, channel, size = struct.unpack(">BHI", self.octets[:7])
            if len(self.octets) < size + 8:
                return
            frame, self.octets = self.octets[:size + 8], self.octets[size + 8:]
            if frame.startswith(CONNECTION_START, 7):
                frame = without_properties(frame)
            yield f"{channel} {describe(kind, frame[7:-1], named)} | {frame.hex()}"


def relay(listener, upstream_port, client, write):
    """Passes bytes on until the client program is done and all sockets are closed."""
    named, sockets, began, number = methods(), selectors.DefaultSelector(), None, 0
    sockets.register(listener, selectors.EVENT_READ)
    open_directions = 0
    while open_directions or client.poll() is None:
        for key, _ in sockets.select(timeout=0.1):
            if key.data is None:
                accepted, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", upstream_port))
                number, began = number + 1, began or time.monotonic()
                for direction in (Direction(number, ">", accepted, server), Direction(number, "<", server, accepted)):
                    direction.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sockets.register(direction.source, selectors.EVENT_READ, direction)
                    open_directions += 1
                continue
            direction = key.data
            try:
                octets = direction.source.recv(1 << 16)
            except ConnectionResetError:
                octets = b""
            ms = int((time.monotonic() - began) * 1000)
            for line in direction.frames(octets, named):
                write(f"{ms} {direction.label} {line}")
            try:
                if octets:
                    direction.target.sendall(octets)
                else:
                    write(f"{ms} {direction.label} - END |")
                    direction.target.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            if not octets:
                sockets.unregister(direction.source)
                open_directions -= 1


def main():
    upstream_port, port, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    command = [str(port) if word == "LISTEN_PORT" else word for word in sys.argv[5:]]
    with socket.create_server(("127.0.0.1", port)) as listener, path.open("w") as out:
        client = subprocess.Popen(command)
        try:
            relay(listener, upstream_port, client, lambda line: print(line, file=out))
        finally:
            client.kill()
    sys.exit(client.wait())


if __name__ == "__main__":
    main()
