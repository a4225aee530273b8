"""A real server as a process of its own, and a connection to it that can be cut."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from client.fakes import free_port


@contextmanager
def real_server(
    weights: Path,
    *flags: str,
    process_to: list[subprocess.Popen[bytes]] | None = None,
) -> Iterator[str]:
    """`anytime-server serve` as a process of its own; yields its URL once it is ready.

    `process_to` gets the process, for tests that kill it.

    Raises:
        AssertionError: the engine met a fault of ours, which ends all its requests.
    """
    port = free_port()
    log = weights / f"server-{port}.log"
    command = [sys.executable, "-m", "anytime_server.cli", "serve", "--port", str(port)]
    command += ["--weights", str(weights), "--threads", "1", *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url, log)
        if process_to is not None:
            process_to.append(process)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        text = log.read_text("utf-8", "replace")
        assert "the engine loop failed" not in text, text


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    try:
        wait_for_http(f"{url}/readyz", lambda: process.poll() is None)
    except TimeoutError:
        raise AssertionError(f"the server was not ready:\n{log.read_text()}") from None


def wait_for_http(url: str, is_alive: Callable[[], bool] = lambda: True) -> None:
    """Waits until a URL answers with success, at most 100 s and while `is_alive`."""
    until = time.monotonic() + 100
    while time.monotonic() < until and is_alive():
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).is_success:
                return
        time.sleep(0.1)
    raise TimeoutError(url)


class TcpProxy:
    """A way to a server that can be cut and restored, as a network is."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._port = free_port()
        self._ends: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Lets connections through."""
        self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=True)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Breaks all connections and refuses new ones."""
        assert self._listener is not None
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def tcp_proxy(url: str) -> Iterator[TcpProxy]:
    proxy = TcpProxy(url)
    proxy.restore()
    try:
        yield proxy
    finally:
        proxy.cut()
