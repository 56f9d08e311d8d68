"""docs/tutorial-email.md, command by command as a reader would give them, and what it says that they see."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness import PORT, equal, run, test

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "tutorial-email.md"
SECONDS = 40


def sections():
    """The commands of each section, in order."""
    parts = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    blocks = {part.split("\n", 1)[0]: re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for part in parts}
    return {title: [block.strip() for block in found] for title, found in blocks.items() if found}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Terminal:
    """A program that goes on, and the lines that it prints."""

    def __init__(self, command, folder, environment):
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            command.split(), cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip())
                self.changed.notify_all()

    def wait_for(self, words):
        with self.changed:
            shown = lambda: any(words in line for line in self.lines)
            assert self.changed.wait_for(shown, SECONDS), f"{words!r} was never printed, but {self.lines[-5:]}"

    def stop(self):
        self.process.terminate()
        self.process.wait(SECONDS)


class Reader:
    """Somebody who follows the document."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="leveret-tutorial-"))
        shutil.copytree(ROOT / "examples" / "email", self.folder, dirs_exist_ok=True)
        self.app = free_port()
        self.environment = {
            **os.environ, "LEVERET_URL": f"amqp://127.0.0.1:{PORT}", "BROKER": f"http://127.0.0.1:{os.environ['HTTP_PORT']}",
            "APP_PORT": str(self.app), "MAIL_PORT": str(free_port()), "PYTHONUNBUFFERED": "1",
        }
        self.left = sections()
        self.terminals = {}

    def next(self, title, begins):
        command = self.left[title].pop(0)
        assert command.startswith(begins), f"the test expects {begins!r}, the document has {command!r}"
        return command.replace("localhost:8000", f"127.0.0.1:{self.app}").replace("\\\n", " ")

    def start(self, name, command, shows):
        if name in self.terminals:
            self.terminals[name].stop()
        self.terminals[name] = Terminal(command, self.folder, self.environment)
        self.terminals[name].wait_for(shows)

    def do(self, command):
        done = subprocess.run(command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        equal(done.returncode, 0, f"{command}: {done.stderr}")
        return done.stdout

    def until(self, command, words):
        """Again and again, until it shows that."""
        deadline = time.monotonic() + SECONDS
        while words not in (shown := self.do(command)):
            assert time.monotonic() < deadline, f"{command} never shows {words!r}, but {shown!r}"
            time.sleep(0.05)  # what others are to do shows nowhere else

    def end(self):
        for terminal in self.terminals.values():
            terminal.process.kill()
            terminal.process.wait()
        shutil.rmtree(self.folder)


@test(needs="leveret", seconds=150)
def the_tutorial_for_e_mails_works_as_it_says():
    reader = Reader()
    try:
        follow(reader)
        equal({title: left for title, left in reader.left.items() if left}, {}, "commands that nobody tried")
    finally:
        reader.end()


def follow(reader):
    title = "Start"
    reader.next(title, "leveret")  # It runs already.
    reader.start("worker", reader.next(title, "leveret work"), "mails")
    mail = lambda command: reader.start("mail", command, "the mail server is on port")
    letter = lambda words: reader.terminals["mail"].wait_for(f"a letter for {words}")
    mail(reader.next(title, "python3 mail_server.py"))
    reader.start("app", reader.next(title, "python3 app.py"), "the application is on")

    title = "Send a mail"
    assert "On its way to ann@example.org" in reader.do(reader.next(title, "curl"))
    letter("ann@example.org: hello")
    reader.do(reader.next(title, "echo"))
    letter("ann@example.org: by hand")

    title = "The mail server is down"
    reader.terminals["mail"].stop()
    for line in reader.next(title, "curl").splitlines():
        assert "On its way" in reader.do(line)
    reader.until(reader.next(title, "leveret ctl jobs mails"), "the mail server cannot be reached")
    mail(reader.next(title, "python3 mail_server.py"))
    reader.do(reader.next(title, "leveret ctl release_messages"))
    letter("bob@example.org: one")
    letter("cyd@example.org: two")

    title = "A mail that nobody takes"
    reader.do(reader.next(title, "curl"))
    look = reader.next(title, "leveret ctl peek_messages mails.dead")
    reader.until(look, "the mail server refuses the address: 550")
    assert "eve@nowhere.example" in reader.do(look)
    mail(reader.next(title, "python3 mail_server.py --knows-all"))
    reader.do(reader.next(title, "leveret ctl redrive_queue"))
    letter("eve@nowhere.example: lost")

    title = "Many mails"
    for line in reader.next(title, "printf").splitlines():
        reader.do(line)
    for number in range(1, 6):
        letter(f"reader{number}@example.org: news")


run()
