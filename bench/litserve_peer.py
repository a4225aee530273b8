"""LitServe with OpenVINO, as `overload.py` measures it: an image file in, a PNG of classes out.

Runs in an environment of its own (`litserve-requirements.txt`), without this project. Everything is
done as a careful user would: the faster of float32 and bf16, a JPEG decoded at the size that the
graph wants, and a time limit in the queue, so that no request is computed that cannot be in time.

    python litserve_peer.py time GRAPH... --image FILE     # JSON: seconds of one answer, for each
    python litserve_peer.py serve GRAPH --precision bf16 --port 8001 --limit-s 0.3
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import litserve
import numpy as np
import openvino
import simplejpeg
from fastapi import Body, Response
from PIL import Image

PRECISIONS = ("f32", "bf16")


class Pipeline:
    """From an image file to a PNG, as one function.

    Args:
        graph: an OpenVINO model; uint8 (1, H, W, 3) in, uint8 (1, rows, columns) out.
        precision: "f32" or "bf16".
    """

    def __init__(self, graph, precision):
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(graph), "CPU", options)
        self.request = self.model.create_infer_request()
        _, self.height, self.width, _ = self.model.input(0).shape
        self.palette = bytes(range(256)) * 3

    def __call__(self, data):
        pixels = simplejpeg.decode_jpeg(data, min_height=self.height, min_width=self.width)
        if pixels.shape[:2] != (self.height, self.width):
            resized = Image.fromarray(pixels).resize((self.width, self.height), Image.BILINEAR)
            pixels = np.asarray(resized)
        self.request.infer([pixels[None]])
        labels = Image.fromarray(self.request.get_output_tensor(0).data[0])
        labels.putpalette(self.palette)
        file = io.BytesIO()
        labels.save(file, "PNG", compress_level=1)
        return file.getvalue()


class Api(litserve.LitAPI):
    """The pipeline behind LitServe's HTTP."""

    def __init__(self, graph, precision):
        super().__init__(api_path="/predict")
        self.graph, self.precision = graph, precision

    def setup(self, device):  # noqa: ARG002  LitServe's
        self.pipeline = Pipeline(self.graph, self.precision)

    def decode_request(self, request: Annotated[bytes, Body()]):
        return request

    def predict(self, data):
        return self.pipeline(data)

    def encode_response(self, png):
        return Response(png, media_type="image/png")


def answer_seconds(graph, precision, data):
    """Median of one answer after the other in this process."""
    pipeline = Pipeline(graph, precision)
    times = []
    for _ in range(25):
        began = time.perf_counter()
        pipeline(data)
        times.append(time.perf_counter() - began)
    return statistics.median(times[5:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("time")
    timing.add_argument("graphs", nargs="+")
    timing.add_argument("--image", type=Path, required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("graph")
    serving.add_argument("--precision", choices=PRECISIONS, required=True)
    serving.add_argument("--port", type=int, required=True)
    serving.add_argument("--limit-s", type=float, required=True, help="longest wait in the queue")
    given = parser.parse_args()
    if given.command == "time":
        data = given.image.read_bytes()
        found = {
            graph: {precision: answer_seconds(graph, precision, data) for precision in PRECISIONS}
            for graph in given.graphs
        }
        print(json.dumps(found))
        return
    server = litserve.LitServer(
        Api(given.graph, given.precision),
        accelerator="cpu",
        workers_per_device=1,
        timeout=given.limit_s,
    )
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="critical")


if __name__ == "__main__":
    main()
