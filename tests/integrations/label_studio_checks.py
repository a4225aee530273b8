"""The Label Studio backend as a process of its own, its answers verified by label-studio-sdk."""

import atexit
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import cv2
import harness
import httpx
import jwt
import numpy as np
import scene
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

TOKEN = "0123456789abcdef0123456789abcdef01234567"
STREET = """<View><Image name="photo" value="$picture"/>
<BrushLabels name="areas" toName="photo"><Label value="Car"/><Label value="Ground"
predicted_values="road, pavement"/><Label value="Unicorn"/></BrushLabels></View>"""
POLYGONS = """<View><Image name="photo" value="$picture"/>
<PolygonLabels name="areas" toName="photo">{}</PolygonLabels></View>"""
PERSON = """<View><Image name="photo" value="$picture"/>
<KeyPointLabels name="joints" toName="photo"><Label value="Head Top"/><Label value="neck"/>
</KeyPointLabels></View>"""


PERSONAL = jwt.encode({"token_type": "refresh"}, "k" * 32)
ACCESS = jwt.encode({"token_type": "access"}, "k" * 32)


class ImageHost(http.server.BaseHTTPRequestHandler):
    """Label Studio as a host of uploaded images: it wants a token, and exchanges personal ones."""

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        allowed = self.headers.get("Authorization") in (f"Token {TOKEN}", f"Bearer {ACCESS}")
        if not allowed:
            self.answer(401, b"")
        elif not (scene.SAMPLES / name).is_file():
            self.answer(404, b"")
        else:
            self.answer(200, (scene.SAMPLES / name).read_bytes())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/api/token/refresh/" and body == {"refresh": PERSONAL}
        self.answer(200 if good else 401, json.dumps({"access": ACCESS}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Prints nothing."""


class Case(scene.Scene):
    """Also a host of images, and backends by their settings; those run until the script ends."""

    def __init__(self, url, folder):
        super().__init__(url, folder)
        host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ImageHost)
        threading.Thread(target=host.serve_forever, daemon=True).start()
        self.host_url = f"http://127.0.0.1:{host.server_port}"
        self.backends = {}

    def backend(self, **settings):
        """A client of a backend with these settings, and the backend's log."""
        key = tuple(sorted(settings.items()))
        if key not in self.backends:
            self.backends[key] = self.start(settings)
        return self.backends[key]

    def start(self, settings):
        port = scene.free_port()
        log = self.folder / f"backend-{port}.log"
        environment = os.environ | {"ANYTIME_URL": self.url, "ANYTIME_DEADLINE_S": "20", **settings}
        app = "integrations.label_studio.backend:create_app"
        command = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port)]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        atexit.register(process.terminate)
        while "Uvicorn running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        base = f"http://127.0.0.1:{port}"
        return httpx.Client(base_url=base, timeout=60, trust_env=False), log


def setup(case, client, config):
    body = {"project": "1.2", "schema": config, "hostname": case.host_url, "access_token": TOKEN}
    return client.post("/setup", json=body | {"extra_params": None})


def predict(client, config, *names):
    tasks = [
        {"id": k, "project": 1, "data": {"picture": f"/data/upload/1/{name}"}}
        for k, name in enumerate(names)
    ]
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": tasks, "project": "1.2", "label_config": config, "params": params}
    return client.post("/predict", json=body)


def results(case, config, *names, **settings):
    """Predictions, each one that the SDK finds valid."""
    client, _ = case.backend(**settings)
    setup(case, client, config).raise_for_status()
    answer = predict(client, config, *names).raise_for_status().json()["results"]
    for prediction in answer:
        assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    return answer


def check_health_setup_and_webhook(case):
    client, _ = case.backend()
    assert client.get("/health").json()["status"] == "UP"
    assert setup(case, client, STREET).json() == {"model_version": "camvid-w18-20s"}
    assert setup(case, client, PERSON).json() == {"model_version": "lspet-w18-20s"}
    assert client.post("/webhook", json={"action": "PROJECT_UPDATED"}).status_code == 200


def check_a_personal_access_token_goes_before_that_of_the_project(case):
    for key, status in ((PERSONAL, 200), ("wrong.personal.token", 400)):
        client, _ = case.backend(LABEL_STUDIO_API_KEY=key)
        setup(case, client, STREET).raise_for_status()
        assert predict(client, STREET, "street-1.jpg").status_code == status


def check_brushes_are_the_servers_map(case):
    (prediction,) = results(case, STREET, "street-1.jpg")
    height, width = case.street.map.shape
    ids = {info.name: info.id for info in case.street.model.classes}
    wanted = {"Car": [ids["car"]], "Ground": [ids["road"], ids["pavement"]]}
    assert {region["value"]["brushlabels"][0] for region in prediction["result"]} == set(wanted)
    for region in prediction["result"]:
        assert (region["original_width"], region["original_height"]) == (width, height)
        assert 0 < region["score"] <= 1
        mask = decode_rle(region["value"]["rle"]).reshape(height, width, 4)[:, :, 3] > 0
        (label,) = region["value"]["brushlabels"]
        assert np.array_equal(mask, np.isin(case.street.map, wanted[label]))
    assert abs(prediction["score"] - case.street.confidence) < 0.01
    assert prediction["model_version"] == "camvid-w18-20s"


def check_polygons_in_their_order_draw_the_map(case):
    classes = case.models["camvid-lite"].classes
    ids = {info.name: info.id for info in classes}
    labels = "".join(f'<Label value="{name}"/>' for name in ids)
    config = POLYGONS.format(labels)
    (prediction,) = results(case, config, "street-1.jpg", ANYTIME_SEGMENTATION_MODEL="camvid-lite")
    with scene.Client(case.url) as client:
        expected = client.predict(scene.STREET, model="camvid-lite").map
    height, width = expected.shape
    drawn = np.full(expected.shape, 255, np.uint8)
    for region in prediction["result"]:
        points = np.array(region["value"]["points"]) * [width / 100, height / 100] - 0.5
        (label,) = region["value"]["polygonlabels"]
        cv2.fillPoly(drawn, [points.round().astype(np.int32)], ids[label])
    assert (drawn == expected).mean() > 0.97, (drawn == expected).mean()


def check_keypoints_are_the_servers(case):
    (prediction,) = results(case, PERSON, "person-1.jpg", ANYTIME_MIN_SCORE="0")
    joints = case.person.model.keypoints
    update = case.person.best
    assert len(prediction["result"]) == 2
    for region in prediction["result"]:
        (label,) = region["value"]["keypointlabels"]
        x, y, score = case.person.keypoints[joints.index(label.lower())]
        value = region["value"]
        found = [value["x"] / 100 * update.width, value["y"] / 100 * update.height]
        assert np.allclose(found, [x, y], atol=0.01)
        assert value["width"] > 0
        assert abs(region["score"] - score) < 1e-3
    assert not results(case, PERSON, "person-1.jpg", ANYTIME_MIN_SCORE="1.1")[0]["result"]


def check_less_time_gives_the_best_map_that_fits(case):
    # A map at every deadline between too little and plenty; on a loaded machine some fail.
    reasons = []
    for divisor in (1.5, 2, 3, 4):
        deadline_s = case.street.timing.total_ms / 1000 / divisor
        client, log = case.backend(ANYTIME_DEADLINE_S=str(deadline_s))
        setup(case, client, STREET)
        began = time.monotonic()
        answer = predict(client, STREET, "street-1.jpg")
        seconds = time.monotonic() - began
        assert answer.status_code in (200, 503, 504), answer.text
        assert seconds < deadline_s + 2
        reasons += [answer.status_code]
        if answer.status_code == 200 and ", deadline" in log.read_text():
            return
    raise AssertionError(reasons)


def check_a_call_shares_its_time_between_its_images(case):
    client, _ = case.backend(ANYTIME_CALL_S="3")
    setup(case, client, STREET)
    began = time.monotonic()
    answer = predict(client, STREET, *["street-1.jpg"] * 4)
    assert time.monotonic() - began < 6
    assert len(answer.json()["results"]) == 4
    client, _ = case.backend(ANYTIME_CALL_S="0.0001")
    setup(case, client, STREET)
    answer = predict(client, STREET, "street-1.jpg", "street-2.jpg")
    assert answer.status_code in (503, 504)
    assert "deadline-exceeded" in answer.json()["error"]


def check_a_task_that_fails_leaves_the_others(case):
    client, _ = case.backend()
    setup(case, client, STREET)
    answer = predict(client, STREET, "missing.jpg", "street-1.jpg", "index.json").json()
    missing, good, text = answer["results"]
    assert "cannot be fetched" in missing["error"]
    assert good["result"]
    assert "expected an image" in text["error"]
    for name, words in (("missing.jpg", "404"), ("index.json", "expected an image")):
        alone = predict(client, STREET, name)
        assert (alone.status_code, words in alone.json()["error"]) == (400, True), alone.text


def check_errors_are_told(case):
    client, _ = case.backend(ANYTIME_POSE_MODEL="nobody")
    for config, words in (
        (STREET.replace("BrushLabels", "RectangleLabels"), "found RectangleLabels, expected"),
        (POLYGONS.format('<Label value="cat"/>'), "found the labels cat, expected some of sky"),
        (PERSON, "expected the model 'nobody', found lspet-w18"),
        ("<View", "not one that can be read"),
    ):
        answer = setup(case, client, config)
        assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    client, _ = case.backend(ANYTIME_URL="http://127.0.0.1:9")
    answer = setup(case, client, STREET)
    assert (answer.status_code, "127.0.0.1:9" in answer.json()["error"]) == (502, True)


def check_nobody_waiting_cancels(case):
    def count():
        url = f"{case.url}/v2/models/camvid-w18/stats"
        (model,) = httpx.get(url, trust_env=False).json()["model_stats"]
        return model["inference_count"]

    client, log = case.backend()
    setup(case, client, STREET)
    before = count()
    task = {"id": 1, "data": {"picture": "/data/upload/1/street-1.jpg"}}
    body = json.dumps({"tasks": [task] * 200, "project": "1.2", "label_config": STREET})
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
        connection.sendall((head + body).encode())
        while count() < before + 2:
            time.sleep(0.02)
    while "the client has left" not in log.read_text():
        time.sleep(0.02)
    time.sleep(0.5)  # what was on its way to the server
    after = count()
    time.sleep(1.0)
    assert count() == after < before + 150


if __name__ == "__main__":
    harness.main(globals(), Case)
