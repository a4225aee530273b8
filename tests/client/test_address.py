"""URLs of a server, close codes, error responses and delays between attempts."""

import pytest

from anytime_client.address import (
    Address,
    describe_close_code,
    error_of_response,
    retry_delays,
)
from anytime_client.errors import AnswerError, ConnectError, RequestError
from anytime_protocol.enums import ErrorCode


@pytest.mark.parametrize(
    ("url", "base", "socket"),
    [
        ("http://a:1/", "http://a:1", "ws://a:1/v1/stream"),
        ("https://a/some/path/", "https://a/some/path", "wss://a/some/path/v1/stream"),
        ("ws://a/v1/stream", "http://a", "ws://a/v1/stream"),
        ("a:8000", "http://a:8000", "ws://a:8000/v1/stream"),
    ],
)
def test_one_url_gives_all_others(url, base, socket):
    address = Address.parse(url)
    assert (address.base, address.websocket_url) == (base, socket)


@pytest.mark.parametrize("url", ["", "ftp://a", "http://"])
def test_text_that_is_no_servers_url_is_refused(url):
    with pytest.raises(ConnectError, match=r"http://127\.0\.0\.1:8000"):
        Address.parse(url)


def test_an_error_status_is_the_servers_problem_or_another_programs_page():
    body = b'{"type":"/problems/draining","status":503,"code":"draining","detail":"bye"}'
    problem = error_of_response("http://x", 503, body)
    assert isinstance(problem, RequestError)
    assert problem.code is ErrorCode.DRAINING
    other = error_of_response("http://x/v1/models", 404, b"<h1>nginx</h1>")
    assert isinstance(other, AnswerError)
    assert "http://x/v1/models: found status 404 with '<h1>nginx</h1>'" in str(other)


def test_delays_grow_and_add_up_to_the_time_allowed():
    delays = list(retry_delays(10.0))
    assert sum(delays) == pytest.approx(10.0)
    assert delays[0] <= 0.1 < max(delays) <= 5.0


def test_an_unknown_close_code_is_described():
    assert (
        describe_close_code(4999, "why")
        == "the server closed the connection (close code 4999: why)"
    )
