"""Runs the integration suite of the crate rabbitmq_http_client or rabbitmqadmin, as its authors wrote it, against the
server that the driver started on the suite's ports.

    rabbitmq_tools_test.py SUITE CARGO-ARGUMENT...

What cannot pass is listed by name, with its reason, in rabbitmq_tools/cannot_pass.txt. A test that is listed there and
passes is a failure, too, and so is a name that the suite does not have: the list says what is true. Tests that their
authors leave out by default (of TLS, with certificates of their own making) are left out here.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
API = f"http://127.0.0.1:{os.environ['HTTP_PORT']}/api"
RESULT = re.compile(r"^test (\S+) \.\.\. (?:.* )?(ok|FAILED|ignored.*)$")
# How many tests run at once that are not expected to pass: most of them wait for something in vain.
VAIN_AT_ONCE = "16"


def api(method, path, body):
    """Asks the HTTP API as guest."""
    login = b64encode(b"guest:guest").decode()
    headers = {"Authorization": f"Basic {login}"}
    request = urllib.request.Request(API + path, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request) as answer:
        answer.read()


def prepare():
    """What the suites find on their authors' machines: a user, a vhost and the cluster's name."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    vhost = quote("rust/http/api/client", safe="")
    api("PUT", "/users/rust3", {"password": "rust3", "tags": ""})
    api("PUT", "/permissions/%2F/rust3", everything)
    api("PUT", f"/vhosts/{vhost}", {})
    api("PUT", f"/permissions/{vhost}/guest", everything)
    api("PUT", "/cluster-name", {"name": "rabbitmq@localhost"})


def cannot_pass(suite):
    """The listed tests of the suite with their reasons. A line that ends with a colon is the reason of what follows."""
    reasons, reason = {}, None
    for line in (HERE / "rabbitmq_tools" / "cannot_pass.txt").read_text().splitlines():
        if line.endswith(":"):
            reason = line[:-1]
        elif line.startswith(f"{suite}::"):
            reasons[line.removeprefix(f"{suite}::")] = reason
    return reasons


def program(suite, cargo):
    """The suite's executable, which is built already."""
    command = ["cargo", "test", *cargo, "-p", suite, "--no-run", "--message-format", "json"]
    built = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    tests = [m for m in messages if m["reason"] == "compiler-artifact" and m["target"]["kind"] == ["test"]]
    (executable,) = [test["executable"] for test in tests if test["executable"]]
    return executable


def run(executable, directory, arguments):
    """Runs tests; what came of each, by name, and what the failed ones said."""
    done = subprocess.run(
        [executable, *arguments], cwd=directory, env={**os.environ, "TEST_STATS_DELAY": "10", "RUST_BACKTRACE": "0"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    print(done.stdout, file=sys.stderr)
    outcomes = {m[1]: m[2] for m in map(RESULT.match, done.stdout.splitlines()) if m}
    said = {}
    for part in done.stdout.split("\n---- ")[1:]:
        name, _, text = part.partition(" stdout ----\n")
        said[name] = " ".join(text.split())[:600]
    return outcomes, said


def main():
    suite, *cargo = sys.argv[1:]
    executable = program(suite, cargo)
    directory = Path(os.environ["COMPAT_WORK"]) / "rabbitmq-tools" / suite
    reasons = cannot_pass(suite)
    prepare()
    skips = [word for name in reasons for word in ("--skip", name)]
    outcomes, said = run(executable, directory, ["--exact", "--test-threads", "1", *skips])
    if not outcomes:
        print(f"FAIL {suite}: it ran no test: {said}")
    for name, outcome in outcomes.items():
        if outcome == "ok":
            print(f"ok {name}")
        elif outcome == "FAILED":
            print(f"FAIL {name}: {said.get(name, 'it said nothing')}")
    if reasons:
        outcomes, _ = run(executable, directory, ["--exact", "--test-threads", VAIN_AT_ONCE, *reasons])
        for name, reason in reasons.items():
            match outcomes.get(name):
                case "FAILED":
                    print(f"ok {name} cannot pass")
                case "ok":
                    print(f"FAIL {name}: it passes, take it off the list ({reason})")
                case _:
                    print(f"FAIL {name}: cannot_pass.txt names it, and there is no such test")


if __name__ == "__main__":
    main()
