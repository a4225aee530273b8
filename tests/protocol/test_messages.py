"""Messages: the round trip of each, strictness towards clients, patience with servers."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.enums import ArrayName, Effect, Encoding, Task
from anytime_protocol.errors import BudgetError, FieldError
from anytime_protocol.messages import (
    TYPES,
    BudgetApplied,
    Cancel,
    CloseStream,
    Infer,
    Message,
    OpenStream,
    Ping,
    Pong,
    ReuseOptions,
    Role,
    SetBudget,
    Update,
    parse,
)
from anytime_protocol.model_info import ExitInfo, ModelInfo
from anytime_protocol.validation import JsonObject
from protocol.factories import (
    BAD_FRAME,
    IDS,
    JSON,
    SHARES,
    STREET,
    WANTS,
    accepted,
    budgets,
    closed,
    failed,
    finished,
    frame,
    frame_end,
    opened,
    ready,
    update,
)

POSE = ModelInfo(
    name="pose",
    task=Task.POSE,
    exits=(ExitInfo(3.1), ExitInfo(9.5, 0.7)),
    keypoints=("ankle", "knee", "hip"),
    skeleton=((0, 1), (1, 2)),
    keypoint_colors=((255, 85, 0), (255, 130, 0), (255, 170, 0)),
)


def _survives(message: Message, sender: Role) -> bool:
    header = json.loads(json.dumps(message.to_json()))
    return parse(header, getattr(message, "payload", b""), sender) == message


@given(
    st.builds(
        Infer,
        id=IDS,
        model=st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True),
        payload=st.binary(min_size=1, max_size=9),
        media_type=st.sampled_from(["image/jpeg", "image/png"]),
        budget=budgets(),
        want=WANTS,
        urgency=st.integers(0, 7),
    )
)
def test_infer_survives_the_wire(message: Infer) -> None:
    assert _survives(message, Role.CLIENT)


@given(IDS, st.integers(1, 2**31 - 1), budgets())
def test_budget_and_cancel_and_ping_survive_the_wire(
    request_id: str, rev: int, budget: object
) -> None:
    assert _survives(SetBudget(request_id, rev, budget), Role.CLIENT)  # type: ignore[arg-type]
    assert _survives(Cancel(request_id), Role.CLIENT)
    assert _survives(Ping(rev), Role.CLIENT)


def test_what_a_server_says_survives_the_wire() -> None:
    for message in (
        ready(),
        ready((STREET, POSE)),
        accepted("r1"),
        update("r1", 1),
        update(
            "r1", 2, ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), 4, base=1), b"\0\0\0\0"
        ),
        finished("r1", 2),
        finished("r1", 0),
        failed("r1"),
        BudgetApplied("r1", 1, 2, Effect.APPLIED),
        BudgetApplied("r1", 0, 2, Effect.REJECTED, "because"),
        Pong(7),
        opened("s1"),
        update("s1", 1, frame=3),
        update(
            "s1",
            1,
            ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), 4, base=4, base_frame=2),
            b"\0\0\0\0",
            frame=3,
        ),
        frame_end("s1", 3, 2),
        frame_end("s1", 3, 0, BAD_FRAME),
        closed("s1"),
    ):
        assert _survives(message, Role.SERVER)


@given(
    st.builds(
        OpenStream,
        id=IDS,
        model=st.just("street"),
        budget=budgets(),
        want=WANTS,
        urgency=st.integers(0, 7),
        share=st.floats(0.001, 1),
        reuse=st.none()
        | st.builds(
            ReuseOptions,
            max_age=st.integers(1, 1000),
            max_difference=SHARES,
            motion=st.booleans(),
        ),
    ),
    st.integers(1, 2**53),
)
def test_what_a_client_says_of_a_stream_survives_the_wire(message: OpenStream, number: int) -> None:
    assert _survives(message, Role.CLIENT)
    assert _survives(frame(message.id, number), Role.CLIENT)
    assert _survives(CloseStream(message.id), Role.CLIENT)


def test_what_does_not_go_together_in_a_stream_is_refused() -> None:
    end = frame_end("s1", 3, 2).to_json()
    failed_end = frame_end("s1", 3, 0, BAD_FRAME).to_json()
    delta = {"name": "map", "encoding": "delta", "dtype": "uint8", "shape": [2, 3], "bytes": 0}
    shown = update("s1", 2, frame=3).to_json()
    for wire, field in (
        (end | {"error": failed_end["error"]}, "reason"),
        ({key: end[key] for key in end if key != "reason"}, "reason"),
        (failed_end | {"exit": 1, "confidence": 0.1, "confident_share": 0.1}, "exit"),
        ({key: end[key] for key in end if key != "confidence"}, "confidence"),
        (end | {"exit": 5}, "exit"),
        (shown | {"parts": [delta | {"base": 1}]}, "parts"),
        (shown | {"parts": [delta | {"base": 2, "base_frame": 3}]}, "parts"),
        (shown | {"parts": [delta | {"base": 1, "base_frame": 4}]}, "parts"),
        (shown | {"parts": [delta | {"base_frame": 2}]}, "parts[0].base"),
        (update("r1", 2).to_json() | {"parts": [delta | {"base": 1, "base_frame": 1}]}, "parts"),
    ):
        with pytest.raises(FieldError) as raised:
            parse(wire, b"", Role.SERVER)
        assert raised.value.field == field


@given(SHARES, st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), SHARES)))
def test_numbers_of_an_update_survive_to_a_millionth(
    share: float, points: list[tuple[float, float, float]]
) -> None:
    message = Update("r1", 1, 4, 3, 2, 1.0, 1.0, 1.0, share, share, keypoints=tuple(points))
    again = parse(json.loads(json.dumps(message.to_json())), b"", Role.SERVER)
    assert isinstance(again, Update)
    assert again.confidence == pytest.approx(share, abs=1e-6)
    assert again.keypoints is not None
    for point, other in zip(points, again.keypoints, strict=True):
        assert other == pytest.approx(point, abs=1e-6)


INFER: JsonObject = {"type": "infer", "id": "r1", "model": "street", "media_type": "image/png"}


def test_a_malformed_infer_is_refused_and_its_field_named() -> None:
    for change, field in (
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "a" * 129}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": 7}, "id"),
        ({"model": "../etc"}, "model"),
        ({"media_type": None}, "media_type"),
        ({"media_type": "x" * 129}, "media_type"),
        ({"urgency": 8}, "urgency"),
        ({"urgency": 1.5}, "urgency"),
        ({"deadline_ms": 80}, "deadline_ms"),
        ({"want": []}, "want"),
        ({"want": {"scale": 0.3}}, "want.scale"),
        ({"want": {"encoding": "PNG"}}, "want.encoding"),
        ({"want": {"confidence": 1}}, "want.confidence"),
        ({"want": {"colour": True}}, "want.colour"),
        ({"budget": {"deadline": 1}}, "budget.deadline"),
        ({"type": "final"}, "type"),
        ({"type": ["infer"]}, "type"),
    ):
        with pytest.raises(FieldError) as caught:
            parse(INFER | change, b"image", Role.CLIENT)
        assert caught.value.field == field
        assert isinstance(caught.value, BudgetError) == field.startswith("budget")


@pytest.mark.parametrize("field", ["type", "id", "model", "media_type"])
def test_a_required_field_must_be_there(field: str) -> None:
    header = {name: value for name, value in INFER.items() if name != field}
    with pytest.raises(FieldError) as caught:
        parse(header, b"image", Role.CLIENT)
    assert (caught.value.field, caught.value.found) == (field, "nothing")


def test_a_payload_comes_with_messages_that_have_one_and_with_no_other() -> None:
    with pytest.raises(FieldError, match="an image file"):
        parse(INFER, b"", Role.CLIENT)
    with pytest.raises(FieldError, match="none with cancel"):
        parse({"type": "cancel", "id": "r1"}, b"x", Role.CLIENT)


def test_a_client_passes_over_fields_of_a_later_server() -> None:
    header = {"type": "pong", "nonce": 7, "mood": "good"}
    assert parse(header, b"", Role.SERVER) == Pong(7)
    with pytest.raises(FieldError, match="unknown field"):
        parse({"type": "ping", "nonce": 7, "mood": "good"}, b"", Role.CLIENT)


def test_an_update_that_makes_no_sense_is_refused() -> None:
    for change in (
        {"exit": 0},
        {"exit": 5},
        {"exits": 65},
        {"confidence": 1.1},
        {"skipped": -1},
        {"keypoints": [[1, 2]]},
        {"keypoints": [[1, 2, "x"]]},
        {"keypoints": [[1e999, 2, 0.5]]},
        {"keypoints": [[10**400, 2, 0.5]]},
        {"keypoints": [7]},
        {"parts": []},
        {"parts": 2 * update("r1", 1).to_json()["parts"]},
        {"parts": [update("r1", 1).to_json()["parts"][0] | {"encoding": "delta", "base": 1}]},
    ):
        good = update("r1", 1)
        with pytest.raises(FieldError):
            parse(good.to_json() | change, good.payload, Role.SERVER)


def test_thousands_of_faults_are_refused_in_little_time() -> None:
    junk = {f"k{n}": 0 for n in range(30_000)}
    start = time.process_time()
    for change in (junk, {"want": junk}, {"budget": {"schedule": [{}] * 30_000}}):
        with pytest.raises(FieldError, match=r"[36]0000 faults"):
            parse(INFER | change, b"image", Role.CLIENT)
    assert time.process_time() - start < 1.0


def test_a_client_passes_over_unknown_fields_of_inner_objects() -> None:
    header = ready().to_json()
    header["models"][0]["exits"][0]["latency_ms"] = 3.0
    header["limits"]["max_rate"] = 7
    assert parse(header, b"", Role.SERVER) == ready()


def test_a_payload_inside_the_json_of_a_binary_frame_is_refused() -> None:
    with pytest.raises(FieldError, match="payload"):
        parse(INFER | {"payload": "AAAA"}, b"image", Role.CLIENT)


def test_a_final_without_an_exit_has_no_confidence_and_every_other_one_has() -> None:
    wire = finished("r1", 2).to_json()
    del wire["confidence"]
    with pytest.raises(FieldError, match="confidence: found nothing"):
        parse(wire, b"", Role.SERVER)


def test_a_server_of_another_version_is_refused() -> None:
    with pytest.raises(FieldError, match=r"anytime\.v1"):
        parse(ready().to_json() | {"protocol": "anytime.v2"}, b"", Role.SERVER)


@given(
    st.sampled_from(sorted(set(TYPES[Role.CLIENT]) | set(TYPES[Role.SERVER]))),
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "rev",
                "budget",
                "nonce",
                "model",
                "want",
                "exits",
                "exit",
                "parts",
                "models",
                "limits",
                "media_type",
                "protocol",
                "server",
                "keypoints",
                "frame",
                "share",
                "reuse",
                "reason",
                "error",
                "frames",
            ]
        ),
        JSON | IDS,
    ),
    st.sampled_from(Role),
    st.binary(max_size=3),
)
def test_foreign_headers_never_crash_the_reader(
    kind: str, header: JsonObject, sender: Role, payload: bytes
) -> None:
    try:
        message = parse({"type": kind} | header, payload, sender)
    except FieldError:
        return
    assert kind in TYPES[sender]
    assert kind == message.type


def test_a_budget_is_given_the_largest_risk_up_to_its_own_and_none_without_one() -> None:
    risks = [STREET.certified_risk(most) for most in (0.0, 0.01, 0.02, 0.05, 0.1, 1.0)]
    assert risks == [0.0, 0.0, 0.02, 0.02, 0.1, 0.1]
