"""The page's modules that need no browser, in Node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "client" / "web"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed")


def evaluate(module, code):
    """What `code` returns, in which `m` is the module."""
    text = f"""
        const m = await import({json.dumps((WEB / module).as_uri())});
        const found = await (async () => {{ {code} }})();
        console.log(JSON.stringify(found ?? null));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", text],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("end", "text", "is_error", "needed_ms"),
    [
        (
            {"type": "final", "exit": 2, "total_ms": 43.2, "reason": "deadline"},
            "Exit 2 in 43 ms: stopped by the deadline.", False, None,
        ),
        (
            {"type": "final", "exit": 0, "total_ms": 4.25, "reason": "cancelled"},
            "Cancelled before the first map, after 4.3 ms.", False, None,
        ),
        (
            {"type": "error", "code": "deadline-exceeded", "detail": "x", "needed_ms": 59.2},
            "The deadline is too tight: a first map takes about 60 ms now.", True, 59.2,
        ),
        (
            {"type": "error", "code": "overloaded", "detail": "x", "retry_after_ms": 180},
            "The server is busy. Try again in 180 ms.", True, None,
        ),
        (
            {"type": "error", "code": "bad-image", "detail": "the image is truncated"},
            "The image is truncated.", True, None,
        ),
        (
            {"type": "closed", "reason": "cancelled", "frames": 1, "skipped": 0, "failed": 0},
            "Stopped after 1 frame; none skipped.", False, None,
        ),
        ({"type": "lost"}, "The connection was lost while the request ran.", True, None),
    ],
)  # fmt: skip
def test_ends_are_told_in_words(end, text, is_error, needed_ms):
    found = evaluate(
        "outcomes.js", f"return m.describeEnd({json.dumps(end)}, (n) => `exit ${{n}}`)"
    )
    assert found == {"text": text, "isError": is_error, "neededMs": needed_ms}


def test_a_stream_goes_on_after_what_passes_and_ends_with_what_does_not():
    ends = [
        {"type": "final", "exit": 1},
        {"type": "error", "code": "deadline-exceeded"},
        {"type": "error", "code": "overloaded", "retry_after_ms": 700},
        {"type": "error", "code": "overloaded", "retry_after_ms": 60_000},
        {"type": "error", "code": "bad-image"},
        {"type": "lost"},
    ]
    pauses = evaluate("outcomes.js", f"return {json.dumps(ends)}.map(m.pauseBeforeNext)")
    assert pauses == [0, 100, 700, 2000, None, None]


def test_frames_are_counted_with_their_rate():
    code = """
        const tally = new m.Tally();
        const good = { type: "final", exit: 3 };
        const late = { type: "error", code: "deadline-exceeded" };
        const texts = [tally.text];
        tally.add(good, 0);
        texts.push(tally.text);
        for (let at = 100; at <= 1000; at += 100) tally.add(good, at);
        tally.add(late, 1050);
        tally.add({ type: "error", code: "bad-image" }, 1060);
        tally.add({ type: "lost" }, 1070);
        texts.push(tally.text);
        return [texts, tally.lateInARow];
    """
    texts, late_in_a_row = evaluate("outcomes.js", code)
    assert texts == [
        "",
        "none of 1 frame too late",
        "10.0 a second; 1 of 12 frames too late",
    ]
    assert late_in_a_row == 1


def test_frames_of_a_stream_are_counted_with_what_was_skipped_and_reused():
    code = """
        const tally = new m.Tally();
        const good = {
          type: "frame_end", exit: 3, reason: "deadline", skipped: 2, reused_share: 0.706,
        };
        const late = {
          type: "frame_end", exit: 0, skipped: 1, reused_share: 0,
          error: { code: "deadline-exceeded", detail: "x", needed_ms: 90 },
        };
        const texts = [];
        for (const [at, end] of [[0, good], [50, late], [100, good]]) {
          tally.addFrame(end, at);
          texts.push(tally.text);
        }
        return [texts, m.endOfFrame(late), m.endOfFrame(good).type];
    """
    texts, late, good = evaluate("outcomes.js", code)
    assert texts == [
        "none of 1 frame too late; 2 skipped; 71 % reused",
        "1 of 2 frames too late; 3 skipped; 0 % reused",
        "10.0 a second; 1 of 3 frames too late; 5 skipped; 71 % reused",
    ]
    assert late == {
        "type": "error", "code": "deadline-exceeded", "detail": "x", "needed_ms": 90,
    }  # fmt: skip
    assert good == "final"


def test_a_delta_of_a_stream_is_taken_only_on_the_frame_that_it_changes():
    code = """
        const part = { name: "map", encoding: "delta", shape: [1, 2], base: 3, base_frame: 7 };
        const delta = Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9);
        const arrays = { map: { data: Uint8Array.of(4, 5), shape: [1, 2] } };
        return [7, 8].map((frame) => {
          const update = { exit: 1, frame: 8, parts: [{ ...part, bytes: 13 }] };
          try {
            return [...m.decodeArrays(update, delta, { exit: 3, frame, arrays }).map.data];
          } catch (error) {
            return error.message;
          }
        });
    """
    assert evaluate("protocol.js", code) == [[4, 9], "map: a delta without base"]


def test_a_frame_is_sent_as_kind_3_and_a_request_as_kind_1():
    code = """
        const kinds = [];
        for (const type of ["infer", "frame"]) {
          const sent = await m.encodeInfer({ type }, new ArrayBuffer(2)).arrayBuffer();
          kinds.push([new DataView(sent).getUint32(0), sent.byteLength]);
        }
        return kinds;
    """
    assert evaluate("protocol.js", code) == [[1, 8 + 16 + 2], [3, 8 + 16 + 2]]


def test_the_proposed_deadline_is_the_first_of_the_slider_that_will_do():
    code = "return [4, 60, 700, 6000].map((ms) => m.deadlineOf(m.positionOf(ms)))"
    found = evaluate("budget.js", code)
    assert found[0] == 5
    assert 60 <= found[1] <= 70
    assert 700 <= found[2] <= 760
    assert found[3] is None


def test_lines_of_an_answer_are_read_wherever_its_chunks_end():
    code = """
        const update = '{"type":"update","payload":"AAAD"}';
        const lines = ['{"type":"accepted"}', update, '{"type":"final","é":1}', ""];
        const bytes = new TextEncoder().encode(lines.join("\\n"));
        const all = [];
        for (const size of [1, 7, 1000]) {
          const body = new ReadableStream({
            start(controller) {
              for (let at = 0; at < bytes.length; at += size) {
                controller.enqueue(bytes.slice(at, at + size));
              }
              controller.close();
            },
          });
          const found = [];
          for await (const { header, payload } of m.readMessages(body)) {
            found.push([header.type, ...payload]);
          }
          all.push(found);
        }
        return all;
    """
    messages = [["accepted"], ["update", 0, 0, 3], ["final"]]
    assert evaluate("protocol.js", code) == [messages] * 3


def test_a_map_is_painted_in_its_models_colours():
    code = """
        const map = { data: Uint8Array.of(3, 0, 9), shape: [1, 3] };
        return [...m.paint(map, [{ id: 0, color: [1, 2, 3] }, { id: 3, color: [128, 64, 128] }])];
    """
    found = evaluate("protocol.js", code)
    assert found == [128, 64, 128, 255, 1, 2, 3, 255, 0, 0, 0, 0]
