"""A worker for `--mode lines` that does to a job what its body says, and notes each in a ledger."""

import json
import os
import sys
import time

ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
if "PIDS" in os.environ:
    with open(os.environ["PIDS"], "a") as pids:
        pids.write(f"{os.getpid()}\n")
pause = float(os.environ.get("PAUSE", "0"))


def answer(job, **more):
    sys.stdout.write(json.dumps({"id": job["id"], **more}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    job = json.loads(line)
    os.write(ledger, f"{job['body']}\n".encode())
    kind = job["body"].split("-")[0]
    if pause:
        time.sleep(pause)
    if kind == "retry" or (kind == "flaky" and job["attempt"] == 1):
        answer(job, retry="later")
    elif kind == "dead":
        answer(job, dead="never")
    elif kind == "die":
        print("last words", file=sys.stderr, flush=True)
        os._exit(1)
    elif kind == "hang":
        time.sleep(600)
    else:
        if kind == "debug":
            print("something for people")
        answer(job, progress=50)
        answer(job, ok=True)
        if kind == "twice":
            answer(job, ok=True)
