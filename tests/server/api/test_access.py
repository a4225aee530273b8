"""Tokens and origins."""

import pytest

from anytime_protocol.http.headers import token_subprotocol
from anytime_server.api.access import Access

USER = [("Authorization", "Bearer user")]
OPERATOR = [("authorization", "bearer boss")]


def test_without_a_token_everybody_may_ask():
    assert Access().is_authorised([])
    assert Access().is_authorised([], operator=True)


@pytest.mark.parametrize(
    ("lines", "user", "operator"),
    [
        ([], False, False),
        (USER, True, False),
        (OPERATOR, True, True),
        ([("Authorization", "Bearer ")], False, False),
        ([("Authorization", "Basic user")], False, False),
        ([("Sec-WebSocket-Protocol", f"anytime.v1, {token_subprotocol('user')}")], True, False),
        ([("Sec-WebSocket-Protocol", "anytime.token.%%")], False, False),
    ],
)
def test_each_door_needs_its_token(lines, user, operator):
    access = Access("user", "boss")
    assert access.is_authorised(lines) is user
    assert access.is_authorised(lines, operator=True) is operator


def test_the_general_token_opens_the_operators_door_where_it_has_no_own():
    assert Access("user").is_authorised(USER, operator=True)
    assert not Access("user").is_authorised([], operator=True)


def test_an_operators_token_alone_leaves_the_other_door_open():
    access = Access(None, "boss")
    assert access.is_authorised([])
    assert not access.is_authorised([], operator=True)


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        (None, "a.example", True),
        ("http://a.example", "a.example", True),
        ("http://a.example:80", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example:8000", "a.example:8000", True),
        ("http://a.example", "a.example:8000", False),
        ("http://b.example", "a.example", False),
        ("https://friend.example", "a.example", True),
        ("null", "a.example", False),
        ("http://a.example:x", "a.example", False),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("", "", False),
    ],
)
def test_only_pages_of_known_origins_are_welcome(origin, host, welcome):
    lines = [("host", host)] + ([] if origin is None else [("Origin", origin)])
    assert Access(origins=frozenset({"https://friend.example"})).is_origin_allowed(lines) is welcome
