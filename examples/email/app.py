"""A web application that sends e-mails, and does not wait for them: it hands each off to a queue and answers at once."""

import base64
import html
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("APP_PORT", "8000"))
BROKER = os.environ.get("BROKER", "http://localhost:15672")
LOGIN = base64.b64encode(b"guest:guest").decode()

FORM = """<!doctype html><title>Post office</title><h1>Post office</h1>
<form method="post"><p><input name="to" type="email" placeholder="to" required>
<p><textarea name="text" placeholder="text"></textarea><p><button>Send</button></form>"""


def hand_off(mail):
    """Puts a job into the queue. When this returns it is on disk, and will be done."""
    message = {
        "routing_key": "mails",
        "payload": json.dumps(mail),
        "payload_encoding": "string",
        "properties": {"delivery_mode": 2, "message_id": str(uuid.uuid4()), "content_type": "application/json"},
    }
    request = urllib.request.Request(f"{BROKER}/api/exchanges/%2F/amq.default/publish", json.dumps(message).encode())
    request.add_header("authorization", f"Basic {LOGIN}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        if not json.load(answer)["routed"]:
            raise OSError("there is no queue 'mails' yet")


class Application(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, FORM)

    def do_POST(self):
        length = min(int(self.headers.get("content-length", 0)), 1 << 20)
        fields = urllib.parse.parse_qs(self.rfile.read(length).decode())
        mail = {key: fields.get(key, [""])[0] for key in ("to", "text")}
        try:
            hand_off(mail)
        except OSError as error:
            return self.answer(503, f"Not sent, please try again: {html.escape(str(error))}\n")
        self.answer(202, f"On its way to {html.escape(mail['to'])}.\n")

    def answer(self, status, page):
        body = page.encode()
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print(f"the application is on http://localhost:{PORT}", file=sys.stderr)
    ThreadingHTTPServer(("127.0.0.1", PORT), Application).serve_forever()
