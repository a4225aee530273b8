"""Requests that wait after exit 1 until somebody asks for them."""

import json
from pathlib import Path

import httpx

from anytime_client import Budget

STREET = Path(__file__).parents[2] / "client" / "web" / "samples" / "street-1.jpg"
PREDICT = "/v1/models/tiny/predict"
WAITS = {"max_exit": 1, "schedule": [{"at_ms": 60_000, "max_exit": 4}]}
"""A budget that leaves a request at exit 1 for a minute, unless somebody asks for it."""
LONG = Budget.from_json(WAITS)


def long_request(proxy, name, budget=WAITS, silence_s=90):
    """A request that waits after exit 1; its terminal message."""
    headers = {"X-Request-Id": name, "Accept": "application/x-ndjson"}
    parts = {"image": ("street.jpg", STREET.read_bytes(), "image/jpeg")}
    answer = httpx.post(
        proxy + PREDICT,
        files=parts,
        data={"budget": json.dumps(budget)},
        headers=headers,
        timeout=silence_s,
    )
    answer.raise_for_status()
    return json.loads(answer.text.splitlines()[-1])


def until_exit_1(proxy, name):
    """Looks at a request, as anybody may who knows its id, until it has a map."""
    with httpx.Client(timeout=10) as http:
        for _ in range(5000):
            answer = http.get(f"{proxy}/v1/requests/{name}")
            if answer.status_code == 200 and answer.json()["exit"] >= 1:
                return
    raise AssertionError(f"{name} was not found: {answer.status_code} {answer.text}")


def end_of_cancelled(client):
    """Why a stream has ended that waits after exit 1 and is cancelled there."""
    with client.stream(STREET, budget=LONG) as stream:
        for update in stream:
            assert update.exit == 1
            stream.cancel()
        return stream.result.reason
