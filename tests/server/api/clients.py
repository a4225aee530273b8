"""A plain HTTP client's requests, and what a problem must look like."""

from anytime_protocol.http.problems import Problem
from server.factories import image_file

URL = "/v1/models/street/predict"


def assert_problem(response, code):
    """Checks that a response is a problem of this code; returns it."""
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.parse(response.text)
    assert found.code is code
    assert response.status_code == found.status
    return found


async def ask(live, request_id, url=URL):
    """Asks for the map of an image."""
    lines = {"Content-Type": "image/jpeg", "X-Request-Id": request_id}
    return await live.http.post(url, content=image_file(), headers=lines)
