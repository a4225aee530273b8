"""Frames and when they were taken: of an MCAP file, a folder, a video or a camera."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory
from rosbags.typesys import Stores, get_typestore

from anytime_client.errors import ImageError
from anytime_client.frames import NamedImage, is_camera, list_folder, read_latest, read_video

NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Frame(NamedImage):
    """An image, when it was taken, and where.

    Attributes:
        stamp_ns: since 1970, ns.
        frame_id: coordinate frame of the camera, as ROS names it.
    """

    stamp_ns: int
    frame_id: str


_Decoded: TypeAlias = tuple[int, str, bytes]
"""Time (ns), coordinate frame and image file."""


def _read_ros(message: Any) -> _Decoded:
    stamp = message.header.stamp
    time_ns = stamp.sec * NANOSECONDS + stamp.nanosec
    return time_ns, message.header.frame_id, message.data.tobytes()


def _decode_ros2(_: Any, data: bytes) -> _Decoded:
    store = get_typestore(Stores.ROS2_HUMBLE)
    return _read_ros(store.deserialize_cdr(data, "sensor_msgs/msg/CompressedImage"))


def _decode_ros1(_: Any, data: bytes) -> _Decoded:
    store = get_typestore(Stores.ROS1_NOETIC)
    return _read_ros(store.deserialize_ros1(data, "sensor_msgs/msg/CompressedImage"))


def _decode_protobuf(schema: Any, data: bytes) -> _Decoded:
    decode = DecoderFactory().decoder_for("protobuf", schema)
    if decode is None:
        raise ImageError(f"{schema.name}: not a protobuf schema that can be read")
    message = decode(data)
    return message.timestamp.ToNanoseconds(), message.frame_id, message.data


DECODERS: Final[dict[tuple[str, str], Callable[[Any, bytes], _Decoded]]] = {
    ("cdr", "sensor_msgs/msg/CompressedImage"): _decode_ros2,
    ("ros1", "sensor_msgs/CompressedImage"): _decode_ros1,
    ("protobuf", "foxglove.CompressedImage"): _decode_protobuf,
}
"""By the encoding of the messages and the name of their schema."""


def read_mcap(path: Path, topic: str | None, *, paced: bool) -> Iterator[Frame]:
    """The compressed images of a topic, in the order of their times.

    Args:
        path: of an indexed MCAP file.
        topic: may be None where the file has one topic of compressed images.
        paced: at the speed at which they were recorded.

    Raises:
        ImageError: it is no such file, or has not one such topic.
    """
    try:
        with path.open("rb") as file:
            reader = make_reader(file)
            summary = reader.get_summary()
            if summary is None:
                raise ImageError(f"{path}: found no index; `mcap recover` writes one")
            found = {}
            for channel in summary.channels.values():
                schema = summary.schemas.get(channel.schema_id)
                found[channel.topic] = channel.message_encoding, schema.name if schema else ""
            topic = _choose_topic(path, found, topic)
            decode = DECODERS[found[topic]]
            began, first = time.monotonic(), None
            for schema, _, message in reader.iter_messages(topics=[topic]):
                first = message.log_time if first is None else first
                if paced:
                    due = began + (message.log_time - first) / NANOSECONDS
                    time.sleep(max(0.0, due - time.monotonic()))
                stamp_ns, frame_id, data = decode(schema, message.data)
                stamp_ns = stamp_ns or message.log_time
                name = f"{topic} at {stamp_ns / NANOSECONDS:.3f} s"
                yield Frame(name, data, stamp_ns, frame_id)
    except (OSError, McapError, struct.error) as error:
        raise ImageError(f"{path}: not an MCAP file that can be read ({error})") from error


def _choose_topic(path: Path, found: dict[str, tuple[str, str]], topic: str | None) -> str:
    usable = [name for name, kind in found.items() if kind in DECODERS]
    if topic is None and len(usable) == 1:
        return usable[0]
    if topic in usable:
        return topic
    topics = ", ".join(f"{name} ({kind[1]}, {kind[0]})" for name, kind in found.items()) or "none"
    types = ", ".join(f"{name} ({encoding})" for encoding, name in DECODERS)
    wanted = "one topic" if topic is None else f"the topic {topic!r}"
    cure = "; choose one with --topic" if usable else ""
    raise ImageError(f"{path}: found the topics {topics}; expected {wanted} of {types}{cure}")


def read_source(
    source: str, topic: str | None, *, live: bool, every: bool
) -> Iterator[tuple[Frame, int]]:
    """The frames of a source, and how many were dropped before each.

    Args:
        source: MCAP or video file, folder, or a camera's number or device file.
        topic: of an MCAP file.
        live: at the speed at which they were taken; while one is in use newer ones replace each
            other.
        every: drop none.

    Raises:
        ImageError: it cannot be read.
    """
    path = Path(source)
    camera = is_camera(source)
    if not camera and not path.exists():
        raise ImageError(f"{source}: found nothing, expected an MCAP, a video, a folder, a camera")
    frames: Iterator[NamedImage]
    if path.suffix == ".mcap":
        frames = read_mcap(path, topic, paced=live)
    else:
        images = list_folder(path) if path.is_dir() else read_video(source, paced=live)
        frames = (Frame(item.name, item.image, time.time_ns(), "camera") for item in images)
    if every or not (live or camera):
        taken: Iterator[tuple[Any, int]] = ((frame, 0) for frame in frames)
    else:
        taken = iter(read_latest(frames).take, None)
    yield from taken
