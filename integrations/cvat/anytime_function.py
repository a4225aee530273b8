"""A CVAT auto-annotation function on the public client: the best map of a frame within a deadline.

    PYTHONPATH=. cvat-cli task auto-annotate 7 -p deadline_s=float:5 --conv-mask-to-poly
      --function-module integrations.cvat.anytime_function

A street becomes a mask or polygons for each class, a person a skeleton. CVAT shows the progress
over the frames; Ctrl-C cancels the frame that is being computed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Final

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

from anytime_client import Client, ErrorCode, RequestError, Task, Update
from integrations.models import choose_model
from integrations.regions import WANT, polygons, regions

logger = logging.getLogger(__name__)

_SKELETON_ID: Final = 0
_DAY_S: Final = 86400
_NO_TIME: Final = frozenset({ErrorCode.DEADLINE_EXCEEDED, ErrorCode.OVERLOADED})


class AnytimeFunction:
    """What CVAT calls with each frame.

    Args:
        url: of the anytime server; `ANYTIME_URL` unless given.
        task: `segmentation` or `pose`.
        model: name; the server's first of the task unless given.
        deadline_s: for the map of one frame, s, above 0 and at most a day.
        skeleton: name of the label that a person's skeleton has in CVAT.
        min_score: below which a joint is outside and a region is left out, 0 to 1, where CVAT names
            no threshold.

    The token of a server that needs one is `ANYTIME_TOKEN`, so that it is on no command line.

    Raises:
        ValueError: the deadline or the task is none, or the server has no such model.
        AnytimeError: the server cannot be reached.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        task: str = "segmentation",
        model: str | None = None,
        deadline_s: float = 5.0,
        skeleton: str = "person",
        min_score: float = 0.2,
    ) -> None:
        if not 0 < deadline_s <= _DAY_S:
            raise ValueError(f"deadline_s: found {deadline_s}, expected above 0, at most {_DAY_S}")
        if task not in tuple(Task):
            raise ValueError(f"task: found {task!r}, expected {' or '.join(Task)}")
        self._client = Client(
            url or os.environ.get("ANYTIME_URL", "http://127.0.0.1:8000"),
            os.environ.get("ANYTIME_TOKEN"),
        )
        self._model = choose_model(self._client.models, Task(task), model)
        self._deadline_ms = 1000 * deadline_s
        self._skeleton = skeleton
        self._min_score = min_score

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The model's classes as labels, or its joints as a skeleton; CVAT matches by name."""
        if self._model.task is Task.POSE:
            joints = [
                cvataa.keypoint_spec(name, index)
                for index, name in enumerate(self._model.keypoints)
            ]
            skeleton = cvataa.skeleton_label_spec(self._skeleton, _SKELETON_ID, joints)
            return cvataa.DetectionFunctionSpec(labels=[skeleton])
        labels = [cvataa.label_spec(info.name, info.id) for info in self._model.classes]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """The shapes of one frame; none, and a warning, where the server had no time for it.

        CVAT uploads when all frames are done, so that one frame's error would lose the others.

        Raises:
            AnytimeError: the server cannot be reached, or refused or failed the frame otherwise.
        """
        try:
            result = self._client.predict(
                image.convert("RGB"),
                model=self._model.name,
                deadline_ms=self._deadline_ms,
                want=WANT,
            )
        except RequestError as error:
            if error.code not in _NO_TIME:
                raise
            logger.warning("%s: left without shapes (%s)", context.frame_name, error)
            return []
        logger.info("%s: %s, %s", context.frame_name, result.label, result.reason)
        threshold = self._min_score if context.conf_threshold is None else context.conf_threshold
        if self._model.task is Task.POSE:
            return [self._draw_skeleton(result.best, threshold)]
        return self._draw_regions(result.best, threshold, as_polygons=context.conv_mask_to_poly)

    def _draw_regions(
        self, update: Update, threshold: float, *, as_polygons: bool
    ) -> list[models.LabeledShapeRequest]:
        classes = {info.id: [info.id] for info in self._model.classes}
        found = [region for region in regions(update, classes) if region.score >= threshold]
        if not as_polygons:
            return [cvataa.mask(region.label, encode_mask(region.mask)) for region in found]
        return [
            cvataa.polygon(polygon.label, polygon.points.ravel().tolist(), z_order=order)
            for order, polygon in enumerate(polygons(found))
        ]

    def _draw_skeleton(self, update: Update, threshold: float) -> models.LabeledShapeRequest:
        elements = [
            cvataa.keypoint(index, [x, y], outside=score < threshold)
            for index, (x, y, score) in enumerate(update.keypoints.tolist())
        ]
        return cvataa.skeleton(_SKELETON_ID, elements)


create = AnytimeFunction
