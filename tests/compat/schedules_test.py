"""Recurring messages by the clocks of a time zone, over both changes of its summer time and over restarts.

The server's clock is set by these tests (the driver's `clock`); it goes on at its usual pace from there.
"""

import calendar
import json
import os
import time
import urllib.request

import pika
from harness import PORT, equal, restart, run, set_clock, test

API = f"http://127.0.0.1:{os.environ['HTTP_PORT']}/api"


def utc(text):
    """Unix seconds of a time such as 2027-03-28 01:00:00."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def api(method, path, document=None):
    request = urllib.request.Request(f"{API}/{path}", json.dumps(document).encode() if document else None, method=method)
    request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def schedule(name, cron, **more):
    """A schedule of Berlin's clocks, and the queue of its name for its messages."""
    api("PUT", f"queues/%2F/{name}", {"durable": True})
    api("PUT", f"schedules/%2F/{name}", {"cron": cron, "time_zone": "Europe/Berlin", "routing_key": name, **more})


class Inbox:
    """Takes the messages of queues, of which it keeps when they were due, in UTC."""

    def __init__(self):
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(port=PORT))
        self.channel = self.connection.channel()

    def after(self, how, clock):
        """Another one, of a server that was restarted while this was its time."""
        self.connection.close()
        set_clock(utc(clock))
        restart(how)
        return Inbox()

    def take(self, queue):
        """What is there."""
        found = []
        while True:
            _, properties, _ = self.channel.basic_get(queue, auto_ack=True)
            if properties is None:
                return found
            equal(properties.headers["x-schedule"], queue)
            at = properties.headers["x-schedule-time"]
            equal(at % 1000, 0)
            found.append(time.strftime("%m-%d %H:%M:%S", time.gmtime(at // 1000)))

    def wait(self, queue, wanted=1):
        """The same, as soon as there are so many."""
        found, deadline = [], time.monotonic() + 15
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{queue} has got {found}"
            found += self.take(queue)
        return found


def begin(clock):
    """A server without schedules whose clock shows this."""
    for each in api("GET", "schedules"):
        api("DELETE", f"schedules/%2F/{each['name']}")
    for each in api("GET", "queues"):
        api("DELETE", f"queues/%2F/{each['name']}")
    set_clock(utc(clock))


@test("restart", seconds=60)
def the_hour_that_is_skipped_in_spring():
    begin("2027-03-28 00:59:56")  # 01:59:56 in Berlin; at 02:00 it is 03:00
    schedule("nightly", "30 2 * * *")
    schedule("at-three", "0 3 * * *")
    schedule("hourly", "0 * * * *")
    inbox = Inbox()
    for queue in ("nightly", "at-three", "hourly"):
        equal(inbox.wait(queue), ["03-28 01:00:00"], queue)
    set_clock(utc("2027-03-29 00:29:58"))  # 02:29:58 in Berlin, the day after
    equal(inbox.wait("nightly"), ["03-29 00:30:00"])
    equal(inbox.take("at-three"), [])


@test("restart", seconds=90)
def the_hour_that_comes_twice_in_autumn_over_restarts_of_each_kind():
    begin("2027-10-31 00:29:57")  # 02:29:57 in Berlin, for the first time
    schedule("nightly", "30 2 * * *", if_missed="all")
    schedule("hourly", "30 * * * *", if_missed="all")
    inbox = Inbox()
    equal([inbox.wait("nightly"), inbox.wait("hourly")], [["10-31 00:30:00"]] * 2)
    for how, clock, nightly, hourly in (
        ("kill", "2027-10-31 01:29:58", [], ["10-31 01:30:00"]),  # 02:29:58 for the second time
        ("term", "2027-11-01 01:29:58", ["11-01 01:30:00"], [f"10-31 {hour:02}:30:00" for hour in range(2, 24)]
            + ["11-01 00:30:00", "11-01 01:30:00"]),
    ):
        inbox = inbox.after(how, clock)
        equal(inbox.wait("hourly", len(hourly)), hourly, how)
        equal(inbox.wait("nightly", len(nightly)), nightly, how)


@test("restart", seconds=90)
def what_was_missed_while_summer_time_began_and_ended():
    rules = ("skip", "one", "all")
    begin("2027-03-27 01:29:57")  # 02:29:57 in Berlin, in winter
    for rule in rules:
        schedule(rule, "30 2 * * *", if_missed=rule)
    inbox = Inbox()
    equal([inbox.wait(rule) for rule in rules], [["03-27 01:30:00"]] * 3)
    days = [time.strftime("%m-%d", time.gmtime(utc("2027-03-28 12:00:00") + day * 86_400)) for day in range(218)]
    missed = ["03-28 01:00:00"] + [f"{day} 00:30:00" for day in days[1:]]
    equal(missed[-1], "10-31 00:30:00")
    inbox = inbox.after("kill", "2027-11-01 01:29:57")
    for rule, found in (("skip", []), ("one", missed[-1:]), ("all", missed)):
        equal(inbox.wait(rule, len(found) + 1), [*found, "11-01 01:30:00"], rule)
        view = api("GET", f"schedules/%2F/{rule}")
        equal((view["fired"], view["missed"]), (len(found) + 2, len(missed) - len(found)), rule)
    # Another start fires nothing again, and a clock that was put back makes nothing come twice.
    inbox = inbox.after("term", "2027-11-01 01:29:58")
    schedule("witness", "* * * * * *")
    inbox.wait("witness", 4)
    equal([inbox.take(rule) for rule in rules], [[], [], []])


if __name__ == "__main__":
    run()
