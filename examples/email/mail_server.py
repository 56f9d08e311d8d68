"""A mail server for trying things out: it prints what it gets, and knows nobody at nowhere.example."""

import os
import socketserver
import sys

PORT = int(os.environ.get("MAIL_PORT", "1025"))
KNOWS_ALL = "--knows-all" in sys.argv


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 ready")
        recipient, text = "", []
        for line in self.rfile:
            command = line.decode(errors="replace").strip()
            word = command[:4].upper()
            if word == "RCPT" and "@nowhere.example" in command and not KNOWS_ALL:
                self.say("550 nobody of that name here")
            elif word == "RCPT":
                recipient = command.split(":", 1)[1].strip(" <>")
                self.say("250 yes")
            elif word == "DATA":
                self.say("354 go on")
                text = []
                for line in self.rfile:
                    if line == b".\r\n":
                        break
                    text.append(line.decode(errors="replace").rstrip())
                body = " ".join(text[text.index("") + 1 :]) if "" in text else ""
                print(f"a letter for {recipient}: {body}", flush=True)
                self.say("250 taken")
            elif word == "QUIT":
                return self.say("221 bye")
            else:
                self.say("250 yes")

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    print(f"the mail server is on port {PORT}", flush=True)
    Server(("127.0.0.1", PORT), Session).serve_forever()
