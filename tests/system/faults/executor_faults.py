"""What the tests of the executor's faults need: clients that count ends, and looks into /proc."""

import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from anytime_protocol.enums import PROTOCOL
from anytime_protocol.messages import Accepted, Failed, Finished, Infer, OutputOptions, Role
from anytime_protocol.session import Session


def picture(
    height: int, width: int, kind: str = "PNG", color: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, kind, compress_level=1)
    return file.getvalue()


def executor_pid(server) -> int:
    return int(re.findall(r"executor (\d+) is ready", server.text())[-1])


def rss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> float:
    """Waits for a condition; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it never came"
        time.sleep(0.02)
    return time.monotonic() - began


def is_ready(server) -> bool:
    return httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 200


def ask(server, content: bytes, query: str = "", **headers: str) -> httpx.Response:
    lines = {"Content-Type": "image/png", "Accept": "image/png"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{server.url}/v1/models/{server.model}/predict{query}"
    return httpx.post(url, content=content, headers=lines, timeout=90, trust_env=False)


@dataclass
class Crowd:
    """Requests over websockets and HTTP, and how each ended.

    Attributes:
        ends: of requests over websockets, by connection and id: everything terminal that came.
        statuses: of the answers over HTTP; -1 for a connection that broke.
        admitted: ids of requests over websockets that were admitted.
    """

    ends: dict[str, list[str]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    admitted: set[str] = field(default_factory=set)

    @property
    def outcomes(self) -> Counter[str]:
        """Reasons and error codes of what ended over websockets."""
        return Counter(end for ends in self.ends.values() for end in ends)


@contextmanager
def crowd(server, sockets: int = 2, each: int = 4, posts: int = 2, side: int = 512, **wants):
    """Requests under way; after the block they have all ended, or their connections have."""
    found, image = Crowd(), picture(side, side)
    want = OutputOptions(progress=False, scale=0.25)

    def stream(number: int) -> None:
        session = Session(Role.CLIENT)
        with connect(
            server.stream, subprotocols=[PROTOCOL], compression=None, max_size=2**28, proxy=None
        ) as socket:
            for k in range(each):
                found.ends[f"{number}/{k}"] = []
            greeted = False
            with suppress(ConnectionClosed):
                while not greeted or not all(found.ends[f"{number}/{k}"] for k in range(each)):
                    session.receive(socket.recv(timeout=90))
                    for event in session.events():
                        note(number, event)
                    if not greeted:
                        greeted = True
                        for k in range(each):
                            session.send(Infer(str(k), server.model, image, want=want, **wants))
                        for frame in session.outgoing():
                            socket.send(frame)

    def note(number: int, event: object) -> None:
        match event:
            case Accepted(id=name):
                found.admitted.add(f"{number}/{name}")
            case Finished(id=name, reason=reason):
                found.ends[f"{number}/{name}"].append(reason.value)
            case Failed(id=name, code=code):
                found.ends[f"{number}/{name}"].append(code.value)

    def post() -> None:
        try:
            status = ask(server, image, "?scale=0.25").status_code
        except httpx.HTTPError:
            status = -1
        found.statuses[status] += 1

    threads = [threading.Thread(target=stream, args=(k,)) for k in range(sockets)]
    threads += [threading.Thread(target=post) for _ in range(posts)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(found.admitted) >= sockets * each or bool(found.outcomes))
        yield found
    finally:
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads), "a client waits for ever"
