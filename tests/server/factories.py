"""Values for tests of the server: models, requests and image files."""

import asyncio
import io

import numpy as np
from PIL import Image as Pillow

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Task
from anytime_protocol.messages import Infer, OutputOptions
from anytime_protocol.model_info import CertificateInfo, ClassInfo, ExitInfo, ModelInfo
from anytime_server.core.costs import ModelProfile, SizeProfile
from anytime_server.core.decisions import ExitReport
from anytime_server.core.jobs import JobState
from anytime_server.core.stage_costs import StageCost
from anytime_server.engine.base import ActiveRequest, ExitRendered, OnEvent
from anytime_server.executor.base import RenderedExit, ServedModel
from anytime_server.images import DecodedImage

STAGE_S = (0.010, 0.020, 0.020, 0.040)
GMACS = (1.0, 2.0, 3.0, 4.0)
SIZE = (48, 64)

STREET = ModelInfo(
    "street",
    Task.SEGMENTATION,
    tuple(ExitInfo(sum(GMACS[: k + 1]), 0.5 + k / 10) for k in range(4)),
    classes=tuple(ClassInfo(k, f"class {k}", (k * 40, 255 - k * 40, 7)) for k in range(5)),
    certificates=(CertificateInfo(0.02, 0.95, 400, 0.012), CertificateInfo(0.1, 0.95, 400, 0.08)),
)
POSE = ModelInfo(
    "pose",
    Task.POSE,
    tuple(ExitInfo(sum(GMACS[: k + 1])) for k in range(4)),
    keypoints=("ankle", "knee", "hip"),
    skeleton=((0, 1), (1, 2)),
)


def served_model(info: ModelInfo = STREET) -> ServedModel:
    stages = tuple(StageCost(s, 0.0, fixed_gmacs=g) for s, g in zip(STAGE_S, GMACS, strict=True))
    profile = ModelProfile(info.name, (SizeProfile(*SIZE, stages),), (0.5, 0.6, 0.7, 0.8))
    return ServedModel(info, profile, "fake", 1e-4 / (SIZE[0] * SIZE[1]))


def exit_report(exit_: int, ended_s: float = 0.0) -> ExitReport:
    """What the fake executor reports of an exit."""
    share = 1.0 - exit_ / 5
    return ExitReport(
        exit_, exit_ / 5, share, 1.0 - share, GMACS[exit_ - 1], STAGE_S[exit_ - 1], ended_s
    )


def rendered_exit(exit_: int, labels: np.ndarray | None = None) -> RenderedExit:
    return RenderedExit(exit_, *SIZE, labels, None, None, None, None, 1e-4)


def exit_event(exit_: int) -> ExitRendered:
    return ExitRendered(exit_report(exit_), rendered_exit(exit_), 0.1, 1.0)


def active_request(
    request_id: str,
    on_event: OnEvent,
    now: float,
    budget: Budget | None = None,
    want: OutputOptions | None = None,
    transport: str = "http",
) -> ActiveRequest:
    """A request whose image is decoded already; needs a running event loop."""
    job = JobState(request_id, "street", *SIZE, now, budget or Budget())
    request = ActiveRequest(
        request_id, want or OutputOptions(), job, served_model(), transport, on_event
    )
    request.image = asyncio.get_running_loop().create_future()
    request.image.set_result(DecodedImage(np.zeros((*SIZE, 3), np.uint8), SIZE, 1e-4, 1e-4))
    return request


def infer(request_id: str = "r", model: str = "street", **changes: object) -> Infer:
    return Infer(request_id, model, image_file(), **changes)


def damaged_image_file() -> bytes:
    """A PNG whose structure is whole and whose pixels are not: refused when it is decoded."""
    file = bytearray(image_file("PNG"))
    pixels = file.index(b"IDAT") + 8
    file[pixels : pixels + 40] = bytes(40)
    return bytes(file)


def image_file(kind: str = "JPEG", size: tuple[int, int] = SIZE, mode: str = "RGB") -> bytes:
    """An image file of (H, W)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()
