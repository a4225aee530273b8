"""The CVAT function, called and verified by cvat-sdk's and cvat-cli's own code."""

import contextlib
import json
import logging
import signal
import time
from types import SimpleNamespace

import cv2
import cvat_sdk.auto_annotation as cvataa
import harness
import httpx
import numpy as np
import PIL.Image
import scene
from cvat_cli._internal.agent_driver_detection import AgentDetectionFunctionDriver
from cvat_cli._internal.common import FunctionLoader
from cvat_cli._internal.parsers import parse_function_parameter
from cvat_sdk import models
from cvat_sdk.api_client import ApiClient
from cvat_sdk.auto_annotation import driver
from cvat_sdk.auto_annotation.driver import _AnnotationMapper, _DetectionFunctionContextImpl
from cvat_sdk.core.progress import BaseProgressReporter
from cvat_sdk.masks import decode_mask

MODULE = "integrations.cvat.anytime_function"


def load(case, *parameters):
    """The function as `cvat-cli ... -p name=type:value` loads it."""
    texts = (f"url=str:{case.url}", "deadline_s=float:20", *parameters)
    return FunctionLoader(MODULE, None, dict(map(parse_function_parameter, texts))).load()


def detect(function, file, **context):
    chosen = _DetectionFunctionContextImpl(frame_name=file.name, **context)
    return function.detect(chosen, PIL.Image.open(file))


def remap(function, shapes, labels, **options):
    """What CVAT would store: checked and renumbered as the SDK's driver does it, as JSON."""
    mapper = _AnnotationMapper(
        logging.getLogger("cvat"),
        function.spec.labels,
        labels,
        allow_unmatched_labels=True,
        conv_mask_to_poly=options.get("conv_mask_to_poly", False),
    )
    tags, kept = mapper.validate_and_remap(shapes, 5)
    assert not tags
    request = models.LabeledDataRequest(tags=tags, shapes=kept)
    return json.loads(json.dumps(ApiClient.sanitize_for_serialization(request)))["shapes"]


def check_masks_are_the_servers_map(case):
    function = load(case)
    labels = [
        models.Label(name="car", id=71, attributes=[], type="mask", sublabels=[]),
        models.Label(name="road", id=72, attributes=[], type="any", sublabels=[]),
    ]
    shapes = remap(function, detect(function, scene.STREET), labels)
    assert {shape["label_id"] for shape in shapes} == {71, 72}
    height, width = case.street.map.shape
    ids = {info.name: info.id for info in case.street.model.classes}
    for shape in shapes:
        mask = decode_mask(shape["points"], image_width=width, image_height=height)
        name = "car" if shape["label_id"] == 71 else "road"
        assert np.array_equal(mask, case.street.map == ids[name])
        assert (shape["type"], shape["frame"], shape["source"]) == ("mask", 5, "auto")


class FakeTask:
    """A task of two frames in place of the SDK's data set, and of the client that uploads."""

    def __init__(self, labels):
        self.labels = labels
        files = (scene.STREET, scene.SAMPLES / "street-2.jpg")
        self.samples = [
            SimpleNamespace(
                frame_index=index,
                frame_name=file.name,
                media=SimpleNamespace(load_image=lambda file=file: PIL.Image.open(file)),
            )
            for index, file in enumerate(files)
        ]
        self.logger = logging.getLogger("cvat")
        self.tasks = SimpleNamespace(api=self)
        self.uploaded = []

    def partial_update_annotations(self, action, task_id, *, patched_labeled_data_request):
        self.uploaded.append((action, task_id, patched_labeled_data_request))


class CountingProgress(BaseProgressReporter):
    def __init__(self):
        super().__init__()
        self.total, self.done = None, 0

    def start2(self, total, **options):
        super().start2(total, **options)
        self.total = total

    def advance(self, delta):
        self.done += delta

    def report_status(self, progress):
        self.done = progress


def check_a_task_is_annotated_with_progress(case):
    labels = [models.Label(name="road", id=3, attributes=[], type="mask", sublabels=[])]
    task = FakeTask(labels)
    progress = CountingProgress()
    driver.TaskDataset = lambda client, task_id, **options: task
    cvataa.annotate_task(task, 7, load(case), pbar=progress, allow_unmatched_labels=True)
    ((action, task_id, request),) = task.uploaded
    assert (action, task_id) == ("create", 7)
    assert [shape.frame for shape in request.shapes] == [0, 1]
    assert (progress.total, progress.done) == (2, 2)


def check_polygons_in_their_order_draw_the_map(case):
    function = load(case)
    labels = [
        models.Label(name=label.name, id=label.id, attributes=[], type="polygon", sublabels=[])
        for label in function.spec.labels
    ]
    shapes = detect(function, scene.STREET, conv_mask_to_poly=True)
    shapes = remap(function, shapes, labels, conv_mask_to_poly=True)
    assert {shape["type"] for shape in shapes} == {"polygon"}
    drawn = np.full(case.street.map.shape, 255, np.uint8)
    for shape in sorted(shapes, key=lambda shape: shape["z_order"]):
        points = np.array(shape["points"]).reshape(-1, 2) - 0.5
        cv2.fillPoly(drawn, [points.round().astype(np.int32)], shape["label_id"])
    assert (drawn == case.street.map).mean() > 0.97, (drawn == case.street.map).mean()


def check_a_person_is_a_skeleton(case):
    function = load(case, "task=str:pose", "skeleton=str:runner", "min_score=float:0.3")
    (label,) = function.spec.labels
    assert (label.name, label.type) == ("runner", "skeleton")
    assert [joint.name for joint in label.sublabels] == list(case.person.model.keypoints)
    sublabels = [
        models.Sublabel(name=joint.name, id=100 + joint.id, attributes=[], type="points")
        for joint in label.sublabels
    ]
    target = models.Label(name="runner", id=9, attributes=[], type="skeleton", sublabels=sublabels)
    (shape,) = remap(function, detect(function, scene.PERSON), [target])
    assert (shape["type"], shape["label_id"]) == ("skeleton", 9)
    for element, (x, y, score) in zip(shape["elements"], case.person.keypoints, strict=True):
        assert np.allclose(element["points"], [x, y], atol=0.01)
        assert element["outside"] == bool(score < 0.3)


def check_the_threshold_of_cvat_goes_before_ours(case):
    function = load(case)
    everything = detect(function, scene.STREET)
    certain = detect(function, scene.STREET, conf_threshold=0.9)
    assert 0 < len(certain) < len(everything)
    assert detect(function, scene.STREET, conf_threshold=1.0) == []


def check_a_frame_without_time_is_left_empty_and_named(case):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger(MODULE).addHandler(handler)
    function = load(case, "deadline_s=float:0.0001")
    assert detect(function, scene.STREET) == []
    assert "street-1.jpg: left without shapes (deadline-exceeded" in records[0].getMessage()


def check_an_interrupt_cancels_the_frame_on_the_server(case):
    def cancelled():
        lines = httpx.get(f"{case.url}/metrics", trust_env=False).text.splitlines()
        return [line for line in lines if line.startswith("anytime_cancel_seconds_count")]

    function = load(case)
    before = cancelled()
    for _ in range(10):  # on a fast machine a frame may be done before the interrupt
        signal.setitimer(signal.ITIMER_REAL, case.street.timing.total_ms / 4000)
        with contextlib.suppress(KeyboardInterrupt):
            detect(function, scene.STREET)
            continue
        break
    else:
        raise AssertionError("no frame was interrupted")
    until = time.monotonic() + 10
    while cancelled() == before and time.monotonic() < until:
        time.sleep(0.05)
    assert cancelled() != before
    assert detect(function, scene.STREET)


def check_a_function_of_an_agent_has_fields_that_cvat_takes(case):
    fields = AgentDetectionFunctionDriver.get_remote_function_fields(load(case).spec)
    assert {"name": "car", "attributes": []} in fields["labels_v2"]
    fields = AgentDetectionFunctionDriver.get_remote_function_fields(
        load(case, "task=str:pose").spec
    )
    assert fields["labels_v2"][0]["sublabels"][0]["type"] == "points"


def check_errors_are_told(case):
    for parameter, words in (
        ("deadline_s=float:0", "expected above 0"),
        ("task=str:depth", "expected segmentation or pose"),
        ("model=str:nobody", "found camvid-w18"),
    ):
        harness.expect_error(ValueError, lambda parameter=parameter: load(case, parameter), words)
    assert isinstance(load(case).spec, cvataa.DetectionFunctionSpec)


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, interrupt)
    harness.main(globals(), scene.Scene)
