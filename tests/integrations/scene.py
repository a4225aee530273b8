"""What the checks share: sample images, and what the server says of them with all the time."""

import socket
from pathlib import Path

from anytime_client import Client

SAMPLES = Path(__file__).parents[2] / "client" / "web" / "samples"
STREET = SAMPLES / "street-1.jpg"
PERSON = SAMPLES / "person-1.jpg"


class Scene:
    """A server, a folder for files, and the best answers to the sample images.

    Attributes:
        url: of the server.
        folder: that checks may write to.
        street: result for `STREET` at the last exit.
        person: result for `PERSON` at the last exit.
    """

    def __init__(self, url, folder):
        self.url = url
        self.folder = folder
        with Client(url) as client:
            self.models = {model.name: model for model in client.models}
            self.street = client.predict(STREET, model="camvid-w18")
            self.person = client.predict(PERSON, model="lspet-w18")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
