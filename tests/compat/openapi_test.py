"""Lets schemathesis ask everything that /api/openapi.json describes: each operation at the corners of what the document
allows and beyond, and a few random ones. Whatever is asked, no answer may be a fault of the server (5xx), as an
administrator and as a user who may only manage what is theirs; and the server is well afterwards.

Health checks say 503 where what they check is not so: that is their meaning.
"""

import json
import os
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path

from harness import run, test

URL = f"http://127.0.0.1:{os.environ['HTTP_PORT']}"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# A third of that on a machine with nothing else to do: what is asked is always the same.
SECONDS = 300
# What would not end (a stream), or end the test's own users: schemathesis asks with names that it has been told.
LEFT_OUT = ["/api/page/events", "/api/users/{user}", "/api/users/bulk-delete"]
CONFIG = """
[[operations]]
include-path-regex = "^/api/health"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""


def ask(method, path, user="guest", password="guest", body=None):
    login = b64encode(f"{user}:{password}".encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Authorization": f"Basic {login}"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def look_for_faults(user, tags, phases):
    ask("PUT", f"/api/users/{user}", body={"password": "s3cret", "tags": tags})
    ask("PUT", f"/api/permissions/%2F/{user}", body={"configure": ".*", "write": ".*", "read": ".*"})
    document = json.loads(ask("GET", "/api/openapi.json"))
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"leveret-openapi-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    config, schema = folder / "schemathesis.toml", folder / "openapi.json"
    config.write_text(CONFIG)
    schema.write_text(json.dumps(document))
    command = [SCHEMATHESIS, "--config-file", config, "run", schema, "--url", URL, "--auth", f"{user}:s3cret",
               "--checks", "not_a_server_error", "--phases", phases, "--max-examples", "2",
               "--seed", "1", "--workers", "1", "--no-shrink", "--warnings", "off", "--request-timeout", "10"]
    for path in LEFT_OUT:
        command += ["--exclude-path", path]
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=SECONDS)
    finally:
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        folder.rmdir()
    print(done.stdout[-800:])
    assert done.returncode == 0, f"schemathesis ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-500:]}"
    assert len(document["paths"]) > 90, "the document has the API's paths"
    assert json.loads(ask("GET", "/api/whoami", user, "s3cret"))["name"] == user, "every request was one of this user"
    assert json.loads(ask("GET", "/api/overview"))["node"], "the server is well"


@test(needs="leveret", seconds=SECONDS + 10)
def nothing_that_a_manager_asks_is_a_fault_of_the_server():
    look_for_faults("manager", "management", "coverage")


@test(needs="leveret", seconds=SECONDS + 10)
def nothing_that_an_administrator_asks_is_a_fault_of_the_server():
    look_for_faults("chief", "administrator", "coverage,fuzzing")


if __name__ == "__main__":
    run()
