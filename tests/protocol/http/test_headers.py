"""The HTTP headers: deadlines and their aliases, priorities, results, timings, tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.budget import MAX_MS
from anytime_protocol.enums import Reason
from anytime_protocol.errors import HeaderError
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Deadline, Priority, ResultHeader, UpdateHeader
from protocol.factories import SHARES


def test_each_deadline_header_is_understood() -> None:
    for name, value, milliseconds in (
        ("X-Deadline-Ms", "80", 80),
        ("x-deadline-ms", " 12.5 ", 12.5),
        ("X-DEADLINE-MS", "0", 0),
        ("X-Deadline-Ms", "999999999999", MAX_MS),
        ("X-Deadline-Ms", "9" * 5000, MAX_MS),
        ("X-Deadline-Ms", "112.22399999999999", 112.224),
        ("Connect-Timeout-Ms", "9" * 5000, MAX_MS),
        ("grpc-timeout", "80m", 80),
        ("grpc-timeout", "2S", 2000),
        ("grpc-timeout", "1M", 60_000),
        ("grpc-timeout", "1H", 3_600_000),
        ("grpc-timeout", "2500u", 2.5),
        ("grpc-timeout", "5000000n", 5),
        ("grpc-timeout", "99999999H", MAX_MS),
        ("Connect-Timeout-Ms", "120", 120),
        ("x-envoy-expected-rq-timeout-ms", "15000", 15_000),
    ):
        assert headers.read_deadline([(name, value)]).hard_ms == pytest.approx(milliseconds)


@given(st.floats(0.001, MAX_MS))
def test_a_float_as_python_prints_it_is_a_deadline(milliseconds: float) -> None:
    assert headers.read_deadline([("X-Deadline-Ms", str(milliseconds))]).hard_ms == milliseconds


def test_a_wait_of_very_many_seconds_is_a_day() -> None:
    assert headers.read_deadline([("Prefer", f"wait={'9' * 5000}")]).soft_ms == MAX_MS


def test_a_malformed_hard_deadline_is_an_error_that_names_it() -> None:
    for name, value in (
        ("X-Deadline-Ms", ""),
        ("X-Deadline-Ms", "-1"),
        ("X-Deadline-Ms", "nan"),
        ("X-Deadline-Ms", "inf"),
        ("X-Deadline-Ms", "1e3"),
        ("X-Deadline-Ms", "80ms"),
        ("X-Deadline-Ms", "80, 90"),
        ("X-Deadline-Ms", "\u0661\u0662"),
        ("grpc-timeout", "80"),
        ("grpc-timeout", "80s"),
        ("grpc-timeout", "123456789m"),
        ("grpc-timeout", "1.5S"),
        ("Connect-Timeout-Ms", "1.5"),
        ("x-envoy-expected-rq-timeout-ms", "soon"),
    ):
        with pytest.raises(HeaderError) as caught:
            headers.read_deadline([(name, value)])
        assert caught.value.header == name
        assert len(str(caught.value)) < 300


def test_the_tightest_deadline_holds_and_a_wish_stays_a_wish() -> None:
    deadline = headers.read_deadline(
        [
            ("X-Deadline-Ms", "90"),
            ("grpc-timeout", "2S"),
            ("X-Deadline-Ms", "85.5"),
            ("Prefer", "respond-async, wait=10"),
            ("Prefer", 'Wait = "7"; x=1, return=minimal'),
        ]
    )
    assert deadline == Deadline(hard_ms=85.5, soft_ms=7000)
    assert deadline.applied_ms == 85.5
    assert headers.preference_applied(deadline) == "wait=7"


def test_without_deadline_headers_there_is_no_deadline() -> None:
    deadline = headers.read_deadline([("Accept", "*/*"), ("Prefer", "wait=soon, await=5")])
    assert deadline == Deadline(None, None)
    assert deadline.applied_ms is None
    assert headers.preference_applied(deadline) is None


@given(st.floats(0, MAX_MS))
def test_a_formatted_deadline_is_read_back_to_a_microsecond(milliseconds: float) -> None:
    text = headers.format_ms(milliseconds)
    read = headers.read_deadline([("X-Deadline-Ms", text)]).hard_ms
    assert read == pytest.approx(milliseconds, abs=5.1e-4)


def test_a_priority_is_read_and_nonsense_is_as_if_absent() -> None:
    for value, priority in (
        ("u=1", Priority(1)),
        ("u=7, i", Priority(7, incremental=True)),
        ("i", Priority(3, incremental=True)),
        ("i=?0, u=2;q=1", Priority(2)),
        ("u=8", Priority()),
        ("u=-1", Priority()),
        ("u=?1", Priority()),
        ("u=1.0", Priority()),
        ("i=1", Priority()),
        ("u=1,", Priority()),
        ("((", Priority()),
        ("", Priority()),
    ):
        assert Priority.parse(value) == priority


@given(st.integers(0, 7), st.booleans())
def test_a_priority_survives_its_header(urgency: int, incremental: bool) -> None:
    priority = Priority(urgency, incremental)
    assert Priority.parse(str(priority)) == priority


@given(st.integers(1, 55), st.integers(0, 9), st.sampled_from(Reason), SHARES, st.floats(0, 1e6))
def test_a_result_survives_its_header_to_three_digits(
    exit_: int, more: int, reason: Reason, confidence: float, gmacs: float
) -> None:
    result = ResultHeader(exit_, exit_ + more, reason, confidence, gmacs)
    again = ResultHeader.parse(str(result))
    assert (again.exit, again.exits, again.reason) == (exit_, exit_ + more, reason)
    assert again.confidence == pytest.approx(confidence, abs=5.1e-4)
    assert again.gmacs == pytest.approx(gmacs, abs=5.1e-4)


@given(st.integers(1, 64), SHARES, st.floats(0, 1e6), st.integers(0, 9))
def test_the_progress_of_a_part_survives_its_header(
    exit_: int, confidence: float, elapsed_ms: float, skipped: int
) -> None:
    again = UpdateHeader.parse(str(UpdateHeader(exit_, 64, confidence, elapsed_ms, skipped)))
    assert (again.exit, again.exits, again.skipped) == (exit_, 64, skipped)
    assert again.elapsed_ms == pytest.approx(elapsed_ms, abs=5.1e-4)


GOOD = "exit=2, exits=4, reason=deadline, confidence=0.83, gmacs=105.6"


def test_a_result_of_a_later_server_is_read_and_its_news_passed_over() -> None:
    expected = ResultHeader(2, 4, Reason.DEADLINE, 0.83, 105.6)
    assert ResultHeader.parse(GOOD) == expected
    assert ResultHeader.parse(GOOD + ', speed="fast", new') == expected


def test_a_malformed_result_is_an_error() -> None:
    for old, new in (
        ("exit=2", "exit=5"),
        ("exit=2", "exit=0"),
        ("exit=2", "exit"),
        ("exit=2, ", ""),
        ("deadline", '"deadline"'),
        ("deadline", "boredom"),
        ("0.83", "1.5"),
        ("0.83", "?1"),
        ("105.6", "-1.0"),
        (", gmacs", "; gmacs"),
    ):
        with pytest.raises(HeaderError):
            ResultHeader.parse(GOOD.replace(old, new))


@given(st.text(max_size=40))
def test_foreign_headers_never_crash_the_readers(text: str) -> None:
    headers.parse_timing(text)
    Priority.parse(text)
    headers.read_token([("Authorization", text), ("Sec-WebSocket-Protocol", text)])
    for read in (ResultHeader.parse, UpdateHeader.parse):
        with pytest.raises(HeaderError):
            read(text)


def test_timings_are_written_and_read_in_order() -> None:
    timings = {"queue": 0.4, "decode": 3.0, "compute": 61.912}
    text = headers.format_timing(timings)
    assert text == "queue;dur=0.4, decode;dur=3, compute;dur=61.912"
    assert list(headers.parse_timing(text).items()) == list(timings.items())
    assert headers.parse_timing('miss, cache;desc="hit";dur=2.5') == {"cache": 2.5}


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_a_browser_can_offer_a_token_as_a_subprotocol(token: str) -> None:
    offered = f"anytime.v1, {headers.token_subprotocol(token)}"
    assert headers.read_token([("sec-websocket-protocol", offered)]) == token


def test_a_token_is_read_from_its_header_and_nowhere_else() -> None:
    assert headers.read_token([("Authorization", "Bearer secret")]) == "secret"
    assert headers.read_token([("authorization", "bearer secret")]) == "secret"
    assert headers.read_token([("Authorization", "Basic secret")]) is None
    assert headers.read_token([("Sec-WebSocket-Protocol", "anytime.v1")]) is None
    assert headers.read_token([("Sec-WebSocket-Protocol", "anytime.token.!!!")]) is None
    assert headers.read_token([]) is None
