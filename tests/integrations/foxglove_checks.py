"""The Foxglove command as a process: MCAP in and out, read by `mcap`; a websocket as Foxglove's."""

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys

import foxglove
import harness
import numpy as np
import scene
import websockets
from foxglove.channels import CompressedImageChannel
from foxglove.messages import CompressedImage, Timestamp
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from integrations.foxglove.publisher import LABEL_INFO, VISION_CLASS

STREETS = (scene.STREET, scene.SAMPLES / "street-2.jpg")
BEGIN_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000
TYPE = "sensor_msgs/msg/CompressedImage"
STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(
    get_types_from_msg(VISION_CLASS, "vision_msgs/msg/VisionClass")
    | get_types_from_msg(LABEL_INFO, "vision_msgs/msg/LabelInfo")
)


def record(path, *, store=STORE, version=2, topic="/camera/image/compressed", frames=4):
    """A recording as ROS makes it, of the repository's streets in turn."""
    text, _ = store.generate_msgdef(TYPE, ros_version=version)
    types = store.types
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.LZ4)
        writer.start()
        name = TYPE if version == 2 else "sensor_msgs/CompressedImage"
        schema = writer.register_schema(name, f"ros{version}msg", text.encode())
        channel = writer.register_channel(topic, "cdr" if version == 2 else "ros1", schema)
        for number in range(frames):
            time_ns = BEGIN_NS + number * STEP_NS
            stamp = types["builtin_interfaces/msg/Time"](*divmod(time_ns, 1_000_000_000))
            extra = {} if version == 2 else {"seq": number}
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="front", **extra)
            data = np.frombuffer(STREETS[number % 2].read_bytes(), np.uint8)
            message = types[TYPE](header=header, format="jpeg", data=data)
            serialise = store.serialize_cdr if version == 2 else store.serialize_ros1
            # Logged a little later than taken: the stamp is what counts.
            writer.add_message(channel, time_ns + 7, bytes(serialise(message, TYPE)), time_ns)
        writer.finish()
    return path


def record_protobuf(path):
    context = foxglove.Context()
    with foxglove.open_mcap(path, context=context):
        channel = CompressedImageChannel("/camera", context=context)
        for number, street in enumerate(STREETS):
            stamp = Timestamp(1_700_000_000, number)
            image = CompressedImage(
                timestamp=stamp, frame_id="front", data=street.read_bytes(), format="jpeg"
            )
            channel.log(image, log_time=BEGIN_NS + number)
    return path


def command(case, *arguments):
    program = [sys.executable, "-m", "integrations.foxglove", *map(str, arguments)]
    return [*program, "--server", case.url]


def run(case, *arguments, code=0):
    done = subprocess.run(
        command(case, *arguments), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def read(path):
    """Messages by topic, each with the time at which it was logged."""
    found = {}
    with path.open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        for schema, channel, message in reader.iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            decoded = STORE.deserialize_cdr(message.data, schema.name)
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
    return found


def check_a_recording_becomes_maps_after_the_convention(case):
    drive = record(case.folder / "drive.mcap")
    out = case.folder / "labels.mcap"
    text = run(case, drive, "--out", out, "--deadline-ms", 20_000, "--model", "camvid-w18")
    assert "4 frames published, 0 failed" in text
    found = read(out)
    names = ("image", "confidence", "label_info", "overlay", "diagnostics")
    assert set(found) == {f"/anytime/{name}" for name in names}
    height, width = case.street.map.shape
    for number, (logged, image) in enumerate(found["/anytime/image"]):
        stamp = image.header.stamp.sec * 1_000_000_000 + image.header.stamp.nanosec
        assert logged == stamp == BEGIN_NS + number * STEP_NS
        assert (image.header.frame_id, image.encoding) == ("front", "mono8")
        assert (image.height, image.width, image.step) == (height, width, width)
    for _, image in found["/anytime/image"][::2]:
        assert np.array_equal(image.data.reshape(height, width), case.street.map)
    confidence = found["/anytime/confidence"][0][1]
    assert (confidence.encoding, confidence.data.size) == ("mono8", height * width)
    assert abs(confidence.data.mean() / 255 - case.street.confidence) < 0.02
    ((_, labels),) = found["/anytime/label_info"]
    expected = {info.id: info.name for info in case.street.model.classes}
    assert {entry.class_id: entry.class_name for entry in labels.class_map} == expected
    picture = found["/anytime/overlay"][0][1]
    assert Image.open(io.BytesIO(picture.data.tobytes())).size == (width, height)
    (status,) = found["/anytime/diagnostics"][0][1].status
    values = {pair.key: pair.value for pair in status.values}
    assert (status.level, values["exit"], values["exits"]) == (0, "8", "8")
    assert float(values["total_ms"]) > 0


def check_recordings_of_ros_1_and_of_foxglove_are_read(case):
    out = case.folder / "out.mcap"
    ros1 = record(
        case.folder / "ros1.mcap", store=get_typestore(Stores.ROS1_NOETIC), version=1, frames=2
    )
    for source in (ros1, record_protobuf(case.folder / "foxglove.mcap")):
        run(case, source, "--out", out, "--deadline-ms", 20_000, "--prefix", "/seg/")
        ((first, image), _) = read(out)["/seg/image"]
        assert (first, image.header.frame_id) == (BEGIN_NS, "front")


def check_a_folder_is_a_source(case):
    out = case.folder / "folder.mcap"
    run(case, scene.SAMPLES, "--out", out, "--deadline-ms", 20_000)
    assert len(read(out)["/anytime/image"]) == 3


def check_a_frame_without_time_is_named_and_the_others_go_on(case):
    drive = record(case.folder / "late.mcap", frames=2)
    out = case.folder / "late-labels.mcap"
    text = run(case, drive, "--out", out, "--deadline-ms", 0.01, code=1)
    assert "0 frames published, 2 failed" in text
    found = read(out)
    assert set(found) == {"/anytime/diagnostics"}
    assert all(message.status[0].level == 2 for _, message in found["/anytime/diagnostics"])


def check_errors_are_told(case):
    drive = record(case.folder / "wrong.mcap", frames=1)
    out = case.folder / "never-written.mcap"
    text = case.folder / "text.mcap"
    text.write_text("no MCAP")
    for arguments, words in (
        ((drive,), "found neither --out nor --live"),
        ((drive, "--out", out, "--topic", "/rear"), "expected the topic '/rear'"),
        ((text, "--out", out), "not an MCAP file"),
        ((case.folder, "--out", out), "found no images"),
        (("/nowhere", "--out", out), "found nothing, expected an MCAP"),
        ((drive, "--out", out, "--model", "nobody"), "found camvid-w18"),
        ((drive, "--out", drive), "is the source"),
    ):
        assert words in run(case, *arguments, code=2).replace("\n", " "), arguments
    assert not out.exists()


def check_an_interrupt_leaves_a_whole_file(case):
    drive = record(case.folder / "long.mcap", frames=100)
    out = case.folder / "part.mcap"
    arguments = (
        drive,
        "--live",
        "--port",
        scene.free_port(),
        "--out",
        out,
        "--every",
        "-d",
        20_000,
    )
    process = subprocess.Popen(command(case, *arguments), stderr=subprocess.PIPE, text=True)
    while "exit " not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 130, text
    assert 1 <= len(read(out)["/anytime/image"]) < 100


async def check_foxglove_sees_the_maps_live(case):
    drive = record(case.folder / "live.mcap", frames=40)
    port = scene.free_port()
    arguments = (drive, "--live", "--port", port, "--deadline-ms", 2000)
    program, *rest = command(case, *arguments)
    process = await asyncio.create_subprocess_exec(
        program, *rest, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    try:
        async with asyncio.timeout(90):
            while b"in Foxglove" not in await process.stderr.readline():
                assert process.returncode is None
            url = f"ws://127.0.0.1:{port}"
            async with websockets.connect(
                url, subprotocols=["foxglove.sdk.v1"], max_size=None
            ) as socket:
                await receive_live(socket, case)
            log = (await process.stderr.read()).decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    assert process.returncode == 0, log
    # 40 frames in 4 s: those that came while one was computed gave way.
    assert "0 failed" in log


async def receive_live(socket, case):
    """Subscribes as Foxglove does, and gets an image and the labels."""
    wanted = {"/anytime/image": None, "/anytime/label_info": None}
    ids = {}
    while any(value is None for value in wanted.values()):
        message = await socket.recv()
        if isinstance(message, str):
            body = json.loads(message)
            for channel in body.get("channels", ()):
                if channel["topic"] in wanted:
                    ids[channel["id"]] = channel
                    entry = {"id": channel["id"], "channelId": channel["id"]}
                    request = {"op": "subscribe", "subscriptions": [entry]}
                    await socket.send(json.dumps(request))
        elif message[0] == 1:
            (subscription,) = struct.unpack_from("<I", message, 1)
            channel = ids[subscription]
            data = message[13:]
            wanted[channel["topic"]] = STORE.deserialize_cdr(data, channel["schemaName"])
    assert wanted["/anytime/image"].data.size == case.street.map.size
    assert wanted["/anytime/label_info"].class_map[0].class_name


if __name__ == "__main__":
    # A shell's background job ignores interrupts, and so would the processes started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    harness.main(globals(), scene.Scene)
