"""The page in a real Chromium, against the real server."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_client import Budget, Client
from anytime_protocol.arrays import delta
from model.factories import random_pixels, save_tiny
from system.browser import (
    CHROMIUM,
    STORE_TOKEN,
    TOKEN,
    expect,
    open_page,
    set_deadline,
    sync_api,
)
from system.factories import save_ladder, save_slow
from system.processes import real_server, tcp_proxy

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.slow,
    pytest.mark.timeout(300),  # a server's start takes long on a busy machine
]

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "page"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    save_tiny(folder, task="pose", name="pose")
    save_slow(folder)
    save_ladder(folder)
    return folder


@pytest.fixture(scope="module")
def url(weights):
    with real_server(weights, "--token", TOKEN) as address:
        yield address


@pytest.fixture
def page(browser):
    """A fresh page; an error in its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(STORE_TOKEN)
    opened = context.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """For the model `slow`: there is time to press a button before it is done."""
    path = tmp_path_factory.mktemp("images") / "large.jpg"
    Image.fromarray(random_pixels(128, 128)).resize((640, 640)).save(path, "JPEG")
    return path


def save_screenshot(page, name):
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def upload_for_slow_model(page, path):
    """Returns once this image was sent; choosing the model has sent the one before."""
    page.locator("#model").select_option("slow")
    page.set_input_files("#file", path)
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches(path.name))


def colours(page):
    """The canvas as PNG bytes: equal if and only if the same is shown."""
    return page.evaluate("document.getElementById('canvas').toDataURL()")


def test_the_first_sample_sharpens_by_itself(page, url):
    open_page(page, url)
    rows = page.locator("#timeline .exit-row")
    assert rows.count() >= 2  # a server may skip updates that a slow browser has not taken yet
    expect(rows.first).to_contain_text("confident")
    expect(rows.last).to_contain_text("Exit 4")
    expect(page.locator("#breakdown")).to_contain_text("Waiting")
    expect(page.locator("#breakdown")).to_contain_text("Encoding")
    expect(page.locator("#legend li").first).to_contain_text("label")
    expect(page.locator("#announcer")).to_contain_text("Exit 4 of 4")
    expect(page.locator("#server")).to_contain_text("Limits in force now")
    save_screenshot(page, "street")


def test_what_the_model_was_made_for_is_said_and_the_sample_is_marked(page, url):
    open_page(page, url)
    expect(page.locator("#model-knows")).to_have_text(
        "Made up for tests. On other images its answer means nothing, however sure it looks."
    )
    expect(page.locator("#samples [aria-pressed=true] img")).to_have_count(1)
    page.locator("#samples button").last.click()
    expect(page.locator("#samples [aria-pressed=true] img")).to_have_attribute(
        "alt", re.compile("person")
    )


def test_each_exit_can_be_looked_at_again(page, url):
    open_page(page, url)
    last = colours(page)
    page.locator("#timeline .exit-row").first.click()
    assert colours(page) != last
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("exit 1 of 4"))
    page.locator("#timeline .exit-row").last.click()
    assert colours(page) == last


def test_each_exit_of_a_ladder_has_its_size_and_quality(page, url):
    open_page(page, url)
    page.locator("#model").select_option("ladder")
    expect(page.locator("#status")).to_contain_text("Exit 8 of 8 (128 px) in")
    expect(page.locator("#model-facts")).to_contain_text("8 exits at 64, 128 px")
    expect(page.locator("#metric")).to_have_text("mIoU")
    rows = page.locator("#timeline li")
    expect(rows).to_have_count(8)
    expect(rows.nth(7)).to_contain_text("Exit 8128 px80.0 %")
    for passed_over in (2, 3):
        expect(rows.nth(passed_over)).to_contain_text(re.compile("passed over|not sent"))
        expect(rows.nth(passed_over).locator("button")).to_have_count(0)
    save_screenshot(page, "ladder")


def test_exits_that_a_budget_rules_out_are_shown_as_not_computed(page, url):
    open_page(page, url)
    page.locator("#model").select_option("ladder")
    expect(page.locator("#status")).to_contain_text("Exit 8 of 8 (128 px) in")
    page.locator("#exit").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#exit-value")).to_have_text("2 (64 px)")
    page.locator("#run").click()  # the run that the keys have changed may be further already
    expect(page.locator("#status")).to_contain_text("Exit 2 of 8 (64 px) in")
    expect(page.locator("#timeline li").nth(2)).to_contain_text("not computed")
    expect(page.locator("#progress")).to_have_js_property("value", 2)


def test_a_photo_of_many_megapixels_is_sent_as_it_is_and_one_too_large_is_refused(
    page, url, tmp_path
):
    open_page(page, url)
    page.locator("#model").select_option("ladder")
    Image.fromarray(random_pixels(30, 40)).resize((4000, 3000)).save(tmp_path / "photo.jpg")
    page.set_input_files("#file", tmp_path / "photo.jpg")
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("photo.jpg with"))
    expect(page.locator("#canvas")).to_have_attribute("width", "1920")
    expect(page.locator("#status")).to_contain_text("all exits done")
    Image.new("RGB", (8000, 6000)).save(tmp_path / "huge.png")
    page.set_input_files("#file", tmp_path / "huge.png")
    expect(page.locator("#status")).to_have_text(
        "huge.png has 8000 x 6000 px, the server takes 26.2 million: make it smaller."
    )


def test_views_differ(page, url):
    open_page(page, url)
    seen = {colours(page)}
    for view in ("Still computed", "Confidence"):
        page.get_by_text(view, exact=True).click()
        seen.add(colours(page))
        save_screenshot(page, view.lower().replace(" ", "-"))
    assert len(seen) == 3


def test_an_uploaded_file_is_sent_and_shown(page, url, tmp_path):
    path = tmp_path / "upload.bmp"  # a kind that only the browser can read
    Image.fromarray(random_pixels(90, 120)).save(path)
    open_page(page, url)
    page.set_input_files("#file", path)
    expect(page.locator("#canvas")).to_have_attribute("width", "720")  # 6 x 120: crisp lines
    expect(page.locator("#canvas")).to_have_attribute(
        "aria-label", _matches("upload.bmp with the map")
    )
    expect(page.locator("#status")).to_contain_text("all exits done")


def png(height, width):
    out = io.BytesIO()
    Image.fromarray(random_pixels(height, width)).save(out, "PNG")
    return list(out.getvalue())


def test_a_dropped_file_is_sent_and_what_is_no_image_is_refused(page, url):
    open_page(page, url)
    _drop(page, "#stage", "dropped.png", "image/png", png(60, 80))
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("the map of exit 4"))
    expect(page.locator("#canvas")).to_have_attribute("width", "640")
    expect(page.locator("#status")).to_contain_text("all exits done")
    _drop(page, "#stage", "notes.txt", "text/plain", [1, 2, 3])
    expect(page.locator("#status")).to_have_text(
        "notes.txt is not an image that this browser can show."
    )


def test_a_file_may_be_dropped_beside_the_stage_or_pasted(page, url):
    open_page(page, url)
    _drop(page, "footer", "beside.png", "image/png", png(60, 80))
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("beside.png with"))
    script = """(transfer) => document.body.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))"""
    page.evaluate(script, _transfer(page, "pasted.png", "image/png", png(64, 80)))
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("pasted.png with"))


def test_a_slider_changes_the_budget_while_the_server_computes(page, url, large):
    open_page(page, url)
    upload_for_slow_model(page, large)
    expect(page.locator("#cancel")).to_be_enabled()
    page.evaluate(
        """() => {
          const slider = document.getElementById("exit");
          slider.value = "1";
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    expect(page.locator("#applied")).to_contain_text("Your change holds since")
    expect(page.locator("#status")).to_contain_text("stopped by the budget")
    save_screenshot(page, "budget")


def test_moving_a_slider_when_idle_asks_again(page, url):
    open_page(page, url)
    page.locator("#exit").focus()
    for exit_ in (3, 2):
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#status")).to_contain_text(f"Exit {exit_} of 4")
        expect(page.locator("#status")).to_contain_text("stopped by the budget")
        expect(page.locator("#exit")).to_have_attribute("aria-valuetext", str(exit_))


def test_cancel_stops_the_request(page, url, large):
    open_page(page, url)
    upload_for_slow_model(page, large)
    page.locator("#cancel:enabled").click()
    expect(page.locator("#status")).to_contain_text(re.compile("[Cc]ancelled"))
    expect(page.locator("#cancel")).to_be_disabled()


def test_enough_keeps_the_map(page, url, large):
    open_page(page, url)
    upload_for_slow_model(page, large)
    page.locator("#enough:enabled").click()
    expect(page.locator("#status")).to_contain_text("good enough")
    assert page.locator("#timeline .exit-row").count() >= 1


def test_the_pose_sample_shows_joints(page, url):
    open_page(page, url)
    page.locator("#samples button").last.click()
    expect(page.locator("#model")).to_have_value("pose")
    expect(page.locator("#canvas")).to_have_attribute(
        "aria-label", _matches("the joints of exit 4")
    )
    expect(page.locator("#legend li")).to_have_count(5)
    swatches = page.locator("#legend .swatch").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(swatches)) == 5  # each joint in its own colour
    save_screenshot(page, "pose")


def frames(page):
    """How many frames were answered, and how many were too late."""
    found = re.search(r"(\d+|none) of (\d+) frame", page.locator("#tally").text_content())
    if found is None:
        return 0, 0
    late = 0 if found[1] == "none" else int(found[1])
    return int(found[2]) - late, late


def wait_for_more(page, is_enough):
    """Polls, since the page's policy forbids that Playwright waits inside of it."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if is_enough(*frames(page)):
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.locator("#tally").text_content())


def test_a_deadline_that_is_too_tight_is_an_error_that_says_what_would_do(page, url, large):
    open_page(page, url)
    upload_for_slow_model(page, large)
    page.locator("#cancel:enabled").click()
    expect(page.locator("#cancel")).to_be_disabled()
    set_deadline(page, 0)
    status = page.locator("#status")
    expect(status).to_have_attribute("data-kind", "error")
    expect(status).to_have_text(re.compile(r"too tight: a first map takes about \d+ ms now"))
    expect(page.locator("#progress")).to_have_js_property("value", 0)
    expect(page.locator("#canvas")).to_have_attribute("aria-label", "large.jpg")  # no old map
    save_screenshot(page, "too-tight")
    fix = page.locator("#fix")
    expect(fix).to_have_text(re.compile(r"Set it to \d+ ms"))
    proposed = re.search(r"\d+", fix.text_content())[0]
    fix.click()
    expect(page.locator("#deadline-value")).to_have_text(f"{proposed} ms")
    expect(fix).to_be_hidden()


def test_a_request_cancelled_before_its_first_map_leaves_no_old_one(page, url, large):
    open_page(page, url)
    page.evaluate(
        """() => {
          const cancel = document.getElementById("cancel");
          const watch = new MutationObserver(() => { if (!cancel.disabled) cancel.click(); });
          watch.observe(cancel, { attributes: true });
        }"""
    )
    page.locator("#model").select_option("slow")
    expect(page.locator("#status")).to_contain_text(re.compile("[Cc]ancelled"))
    if "before the first map" in page.locator("#status").text_content():
        expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("people"))
        expect(page.locator("#progress")).to_have_js_property("value", 0)


def test_repeat_goes_on_after_missed_deadlines_and_counts_them(page, url):
    open_page(page, url)
    page.locator("#model").select_option("slow")  # 5 ms are too little for it on any machine
    page.locator("#repeat").check()
    wait_for_more(page, lambda answered, late: answered >= 3)
    set_deadline(page, 0)
    wait_for_more(page, lambda answered, late: late >= 3)
    expect(page.locator("#status")).to_have_attribute("data-kind", "error")
    save_screenshot(page, "late-frames")
    before = frames(page)[0]
    set_deadline(page, 100)
    wait_for_more(page, lambda answered, late: answered >= before + 3)
    expect(page.locator("#repeat")).to_be_checked()


@pytest.mark.parametrize("source", ["repeat", "camera"])
def test_a_stream_of_frames_goes_on_after_a_reconnect(page, url, source):
    with tcp_proxy(url) as proxy:
        open_page(page, proxy.url)
        page.locator(f"#{source}").click()
        wait_for_more(page, lambda answered, late: answered >= 2)
        proxy.cut()
        expect(page.locator("#connection-text")).to_contain_text("No connection")
        before = frames(page)[0]
        proxy.restore()
        page.locator("#reconnect").click()
        wait_for_more(page, lambda answered, late: answered >= before + 2)
        page.locator("#cancel").click()
        expect(page.locator("#camera")).to_have_text("Use the camera")


def test_a_dropped_video_plays_frame_by_frame_until_it_is_stopped(page, url, tmp_path):
    open_page(page, url)
    _drop(page, "#stage", "drive.webm", "video/webm", list(video(tmp_path / "drive.webm")))
    expect(page.locator("#canvas")).to_have_attribute(
        "aria-label", _matches("drive.webm with the map")
    )
    wait_for_more(page, lambda answered, late: answered >= 3)
    expect(page.locator("#tally")).to_have_text(
        re.compile(r"a second; .* too late; (none|\d+) skipped; \d+ % reused$")
    )
    first = colours(page)
    page.wait_for_timeout(600)
    assert colours(page) != first
    expect(page.locator("#enough")).to_be_disabled()  # it would hold for all later frames
    save_screenshot(page, "video")
    page.locator("#camera").click()
    expect(page.locator("#camera")).to_have_text("Use the camera")
    expect(page.locator("#cancel")).to_be_disabled()
    expect(page.locator("#status")).to_have_text(
        re.compile(r"Stopped after \d+ frames; .* skipped")
    )
    _drop(page, "#stage", "torn.webm", "video/webm", [1, 2, 3])
    expect(page.locator("#status")).to_have_text(
        "torn.webm is not a video that this browser can play."
    )


def test_a_stream_goes_on_after_frames_that_were_too_late_and_with_another_model(
    page, url, tmp_path
):
    open_page(page, url)
    _drop(page, "#stage", "drive.webm", "video/webm", list(video(tmp_path / "drive.webm")))
    wait_for_more(page, lambda answered, late: answered >= 2)
    page.locator("#model").select_option("ladder")
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("drive.webm with"))
    expect(page.locator("#status")).to_contain_text("of 8")
    page.locator("#model").select_option("slow")
    set_deadline(page, 0)  # 5 ms are too little for it on any machine
    wait_for_more(page, lambda answered, late: late >= 3)
    expect(page.locator("#status")).to_have_attribute("data-kind", "error")
    before = frames(page)[0]
    set_deadline(page, 100)
    wait_for_more(page, lambda answered, late: answered >= before + 2)
    page.locator("#samples button").first.click()
    expect(page.locator("#status")).to_contain_text("all exits done")


def video(path):
    """Two seconds of moving stripes as VP8."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for shift in range(20):
            row = np.repeat(np.arange(320) % 64 * 4, 3).reshape(1, 320, 3)
            pixels = np.repeat(np.roll(row, 5 * shift, axis=1), 240, axis=0)
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8))
            for packet in stream.encode(frame.reformat(format="yuv420p")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path.read_bytes()


def test_the_class_under_the_pointer_is_named(page, url):
    open_page(page, url)
    page.locator("#canvas").hover()
    expect(page.locator("#under")).to_have_text(re.compile(r"^label \d+ [\d.]+ %$"))
    page.locator("#run").hover()
    expect(page.locator("#under")).to_be_hidden()


NOTE_LABELS = """() => {
  window.labels = [];
  const canvas = document.getElementById("canvas");
  const note = () => window.labels.push(canvas.getAttribute("aria-label"));
  new MutationObserver(note).observe(canvas, { attributeFilter: ["aria-label"] });
}"""
"""Notes what the picture is called, each time that this changes."""


def test_exits_stand_side_by_side_and_are_replayed_slowly(page, url):
    open_page(page, url)
    exits = page.locator("#timeline .exit-row").count()
    expect(page.locator("#strip canvas")).to_have_count(exits)
    last = colours(page)
    page.locator("#strip canvas").first.click()
    assert colours(page) != last
    page.evaluate(NOTE_LABELS)
    page.locator("#replay").click()
    expect(page.locator("#status")).to_contain_text("Slowed")
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("exit 4 of 4"))
    expect(page.locator("#status")).to_contain_text("all exits done")
    shown = re.findall(r"exit (\d) of 4", "\n".join(page.evaluate("labels")))
    assert list(dict.fromkeys(shown)) == ["1", "2", "3", "4"]
    assert colours(page) == last


def test_the_camera_streams_until_it_is_stopped(page, url):
    open_page(page, url)
    page.locator("#camera").click()
    expect(page.locator("#canvas")).to_have_attribute("aria-label", _matches("Camera with the map"))
    first = colours(page)
    expect(page.locator("#camera")).to_have_text("Stop the camera")
    page.wait_for_function(
        "before => document.getElementById('canvas').toDataURL() !== before", arg=first
    )
    page.locator("#camera").click()
    expect(page.locator("#camera")).to_have_text("Use the camera")


def test_the_operators_budget_is_shown(page, url):
    open_page(page, url)
    with Client(url, TOKEN) as client:
        client.set_server_budget(Budget(max_exit=2))
        try:
            expect(page.locator("#server")).to_contain_text("exit 2 at most")
            page.locator("#run").click()
            expect(page.locator("#status")).to_contain_text("Exit 2 of 4")
        finally:
            client.set_server_budget(Budget())


def test_a_cut_connection_is_shown_and_made_anew(page, url):
    with tcp_proxy(url) as proxy:
        open_page(page, proxy.url)
        proxy.cut()
        expect(page.locator("#connection-text")).to_contain_text("No connection")
        expect(page.locator("#run")).to_be_disabled()
        save_screenshot(page, "no-connection")
        proxy.restore()
        page.locator("#reconnect").dispatch_event("click")  # it may connect by itself before
        expect(page.locator("#connection-text")).to_have_text("Connected")
        page.locator("#run").click()
        expect(page.locator("#status")).to_contain_text("all exits done")


def test_a_lost_connection_ends_the_running_request(page, url, large):
    with tcp_proxy(url) as proxy:
        open_page(page, proxy.url)
        upload_for_slow_model(page, large)
        expect(page.locator("#cancel")).to_be_enabled()
        proxy.cut()
        expect(page.locator("#announcer")).to_have_text(
            "The connection was lost while the request ran."
        )
        expect(page.locator("#cancel")).to_be_disabled()


def test_a_token_opens_the_page(browser, url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#access-text")).to_have_text("This server wants an access token.")
    page.locator("#token").fill("wrong")
    page.get_by_text("Use it").click()
    expect(page.locator("#access-text")).to_have_text("This is not the server's access token.")
    expect(page.locator("#connection-text")).to_have_text("Not allowed")
    save_screenshot(page, "wrong-token")
    page.locator("#token").fill(TOKEN)
    page.get_by_text("Use it").click()
    expect(page.locator("#access")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("all exits done")
    context.close()


def test_all_of_it_works_from_the_keyboard(page, url):
    open_page(page, url)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"run", "repeat", "opacity", "file", "camera", "model", "deadline", "exit"} <= reached
    assert "exit-row" in reached
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, img, canvas")]
          .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()
            || one.alt || one.title))
          .map((one) => one.outerHTML)"""
    )
    # Samples are named by their images.
    assert [html for html in unnamed if "<img" not in html] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser, url, scheme):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    context.add_init_script(STORE_TOKEN)
    page = context.new_page()
    open_page(page, url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    top = lambda card: page.locator(card).bounding_box()["y"]  # noqa: E731
    assert top("#budget-card") < top("#image-card") < top("#exits-card")
    page.locator("#canvas").tap()
    expect(page.locator("#under")).to_contain_text("%")
    save_screenshot(page, f"phone-{scheme}")
    context.close()


@pytest.mark.parametrize(
    ("base", "new"),
    [
        (b"\0\0\0\3\3\3\0\0\3\3\3\3", b"\0\0\3\3\3\3\0\0\0\0\3\3"),
        (bytes(1000), bytes(range(250)) * 4),
        (b"abc", b"abc"),
    ],
)
def test_the_pages_deltas_are_the_protocols(page, url, base, new):
    page.goto(url)
    script = """async ([base, delta]) => {
      const { applyDelta } = await import("/protocol.js");
      return [...applyDelta(Uint8Array.from(base), Uint8Array.from(delta))];
    }"""
    change = delta.encode(base, new)
    assert bytes(page.evaluate(script, [list(base), list(change)])) == new
    with pytest.raises(sync_api.Error, match="delta"):
        page.evaluate(script, [list(base), list(change + b"x")])


def _transfer(page, name, kind, data):
    return page.evaluate_handle(
        """([name, type, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(data)], name, { type }));
          return transfer;
        }""",
        [name, kind, data],
    )


def _drop(page, where, name, kind, data):
    transfer = _transfer(page, name, kind, data)
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(where, event, {"dataTransfer": transfer})


def _matches(text):
    return re.compile(re.escape(text))
