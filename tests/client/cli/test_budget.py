"""`anytime budget`."""

import json

from client.fakes import fake_http_server

SCHEDULE = {"max_exit": 2, "schedule": [{"at_ms": 60000.0, "max_exit": 4}]}


def test_a_schedule_is_set_and_can_be_read_afterwards(anytime):
    with fake_http_server() as server:
        done = anytime(server.url, "budget", "--set", json.dumps(SCHEDULE), "--json")
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["budget"] == SCHEDULE
        server.budget["budget"]["clock"] = "daily"  # as a server says it
        done = anytime(server.url, "budget", "--json")
        assert json.loads(done.stdout)["budget"] == SCHEDULE | {"clock": "daily"}


def test_load_caps_and_floors_are_sent_as_they_are(anytime):
    caps = {"load_caps": [{"above_s": 4.0, "below_s": 2.0, "max_exit": 1}], "floors": {"0": 4}}
    with fake_http_server() as server:
        assert anytime(server.url, "budget", "--set", json.dumps(caps)).returncode == 0
        assert server.budget["budget"] == caps


def test_the_budget_and_the_load_are_printed_for_people(anytime):
    with fake_http_server() as server:
        assert anytime(server.url, "budget", "--max-exit", 3).stdout.decode().splitlines() == [
            'operator\'s budget: {"max_exit": 3}',
            "in force now:      no limits",
            "load:              1 running, 2 waiting, slow-down 1.25",
        ]
        assert b"operator's budget: no limits" in anytime(server.url, "budget", "--clear").stdout
