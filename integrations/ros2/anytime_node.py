"""A ROS 2 node on the public client: compressed images in, labels and confidences out.

It was not run: rclpy comes with ROS 2, not from a package index. Its messages are those that
`integrations/foxglove` writes, which is tested.

    pip install .                                  # the client, in ROS 2's Python
    PYTHONPATH=.:$PYTHONPATH python3 -m integrations.ros2.anytime_node --ros-args \
      -p url:=http://127.0.0.1:8000 -p deadline_ms:=100.0 -r image:=/camera/image/compressed

It takes `image` (sensor_msgs/CompressedImage) and publishes, after the vision_msgs convention,
`~/image` and `~/confidence` (sensor_msgs/Image, mono8: class ids, and 255 for 1.0) with the header
of the image that they are of, and once, kept for later subscribers, `~/label_info`
(vision_msgs/LabelInfo). Of the images that come while one is computed the last is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import LabelInfo, VisionClass

from anytime_client import AnytimeError, Client, OutputOptions, Task
from integrations.models import choose_model


class AnytimeNode(Node):
    """Parameters: `url` and `token` of the server, `model` (its first unless given), `deadline_ms`.

    The token may be empty; the deadline is for each image, from its arrival at the server.
    """

    def __init__(self) -> None:
        super().__init__("anytime")

        def parameter(name: str, default: Any) -> Any:
            return self.declare_parameter(name, default).value

        url = parameter("url", "http://127.0.0.1:8000")
        self._client = Client(url, parameter("token", "") or None)
        name = parameter("model", "") or None
        self._model = choose_model(self._client.models, Task.SEGMENTATION, name)
        self._deadline_ms = parameter("deadline_ms", 100.0)
        self._image = self.create_publisher(Image, "~/image", qos_profile_sensor_data)
        self._confidence = self.create_publisher(Image, "~/confidence", qos_profile_sensor_data)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._label_info = self.create_publisher(LabelInfo, "~/label_info", latched)
        labels = LabelInfo(threshold=0.0)
        labels.header.stamp = self.get_clock().now().to_msg()
        labels.class_map = [
            VisionClass(class_id=info.id, class_name=info.name) for info in self._model.classes
        ]
        self._label_info.publish(labels)
        newest = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
        self.create_subscription(CompressedImage, "image", self._compute, newest)

    def _compute(self, message: CompressedImage) -> None:
        try:
            result = self._client.predict(
                bytes(message.data),
                model=self._model.name,
                deadline_ms=self._deadline_ms,
                want=OutputOptions(confidence=True),
            )
        except AnytimeError as error:
            self.get_logger().warning(str(error))
            return
        self._image.publish(_mono(message, result.best.map))
        self._confidence.publish(_mono(message, result.best.confidence_map))


def _mono(source: CompressedImage, values: NDArray[np.uint8]) -> Image:
    height, width = values.shape
    image = Image(header=source.header, height=height, width=width, step=width, encoding="mono8")
    image.data = values.tobytes()
    return image


def main() -> None:
    """The program."""
    rclpy.init()
    node = AnytimeNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
