"""Maps as ROS 2 messages after the vision_msgs convention, on Foxglove's channels.

`PREFIX/image` holds class ids, `PREFIX/confidence` confidences (255 means 1.0), `PREFIX/label_info`
in the same namespace the names of the classes, `PREFIX/overlay` a picture, `PREFIX/diagnostics` the
exit that was served and its time.
"""

from __future__ import annotations

import io
from typing import Any, Final

import foxglove
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from anytime_client import AnytimeError, ModelInfo, Result
from anytime_client.images import encode_image, open_image
from anytime_client.render import overlay
from integrations.foxglove.sources import NANOSECONDS, Frame

_LABEL_INFO_EVERY_NS: Final = NANOSECONDS
_JPEG_QUALITY: Final = 85

VISION_CLASS: Final = "uint16 class_id\nstring class_name\n"
LABEL_INFO: Final = (
    "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
)
"""As in https://github.com/ros-perception/vision_msgs (branch ros2), which rosbags lacks."""


class Publisher:
    """Channels of one context, whose sinks are an MCAP file, a websocket, or both.

    Args:
        context: that the sinks belong to.
        prefix: of the topics, such as `/anytime`.
        model: whose classes are published, about once a second: nothing here keeps the last message
            for subscribers that come later.
    """

    def __init__(self, context: foxglove.Context, prefix: str, model: ModelInfo) -> None:
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._store.register(
            get_types_from_msg(VISION_CLASS, "vision_msgs/msg/VisionClass")
            | get_types_from_msg(LABEL_INFO, "vision_msgs/msg/LabelInfo")
        )
        self._classes = model.classes
        self._labels_from_ns = 0

        def channel(name: str, type_: str) -> foxglove.Channel:
            text, _ = self._store.generate_msgdef(type_, ros_version=2)
            schema = foxglove.Schema(name=type_, encoding="ros2msg", data=text.encode())
            topic = f"{prefix.rstrip('/')}/{name}"
            return foxglove.Channel(topic, schema=schema, message_encoding="cdr", context=context)

        self._image = channel("image", "sensor_msgs/msg/Image")
        self._confidence = channel("confidence", "sensor_msgs/msg/Image")
        self._label_info = channel("label_info", "vision_msgs/msg/LabelInfo")
        self._overlay = channel("overlay", "sensor_msgs/msg/CompressedImage")
        self._diagnostics = channel("diagnostics", "diagnostic_msgs/msg/DiagnosticArray")

    def publish(self, frame: Frame, result: Result) -> None:
        """Publishes what a frame's request gave.

        Args:
            frame: that it is of.
            result: with a map and a confidence map.
        """
        update = result.best
        if not self._labels_from_ns <= frame.stamp_ns < self._labels_from_ns + _LABEL_INFO_EVERY_NS:
            self._labels_from_ns = frame.stamp_ns
            classes = [
                self._make("vision_msgs/msg/VisionClass", class_id=info.id, class_name=info.name)
                for info in self._classes
            ]
            self._log(self._label_info, frame, class_map=classes, threshold=0.0)
        self._log_mono(self._image, frame, update.map)
        self._log_mono(self._confidence, frame, update.confidence_map)
        picture = io.BytesIO()
        pixels = open_image(encode_image(frame.image)[0])
        overlay(pixels, update).save(picture, "JPEG", quality=_JPEG_QUALITY)
        data = np.frombuffer(picture.getvalue(), np.uint8)
        self._log(self._overlay, frame, format="jpeg", data=data)
        values = {"exit": result.exit, "exits": result.exits, "reason": str(result.reason)}
        values |= {"total_ms": f"{result.timing.total_ms:.1f}"}
        values |= {"confidence": f"{result.confidence:.3f}"}
        self._diagnose(frame, 0, result.label, values)

    def publish_error(self, frame: Frame, error: AnytimeError) -> None:
        """Publishes why a frame has no map."""
        self._diagnose(frame, 2, str(error), {})

    def _diagnose(self, frame: Frame, level: int, text: str, values: dict[str, object]) -> None:
        pairs = [
            self._make("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
            for key, value in values.items()
        ]
        status = self._make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=level,
            name="anytime",
            message=text,
            hardware_id="",
            values=pairs,
        )
        self._log(self._diagnostics, frame, status=[status])

    def _log_mono(self, channel: foxglove.Channel, frame: Frame, map_: NDArray[np.uint8]) -> None:
        height, width = map_.shape
        size = {"height": height, "width": width, "step": width}
        self._log(channel, frame, **size, encoding="mono8", is_bigendian=0, data=map_.ravel())

    def _log(self, channel: foxglove.Channel, frame: Frame, **fields: Any) -> None:
        sec, nanosec = divmod(frame.stamp_ns, NANOSECONDS)
        stamp = self._make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        header = self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame.frame_id)
        type_ = str(channel.schema_name())
        message = self._make(type_, header=header, **fields)
        data = self._store.serialize_cdr(message, type_)
        channel.log(bytes(data), log_time=frame.stamp_ns)

    def _make(self, type_: str, **fields: Any) -> Any:
        return self._store.types[type_](**fields)
