"""Bytes of uploads under way: one bound over all connections, websockets included."""

from __future__ import annotations

from typing import Self

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.errors import RefusedError


class Uploads:
    """How many bytes of bodies and messages are held that no request has been admitted with.

    Args:
        most: bytes that may be held.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def begin(self) -> Upload:
        """One upload, of nothing so far."""
        return Upload(self)


class Upload:
    """What one body or message holds; a context manager that gives it back.

    Args:
        uploads: all of them.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._held = 0

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives everything back."""
        self.reserve(0)

    def reserve(self, count: int) -> None:
        """Reserves so many bytes in place of those before.

        Raises:
            RefusedError: all uploads together would hold too many.
        """
        uploads, more = self._uploads, count - self._held
        if more > 0 and uploads.held + more > uploads.most:
            text = f"uploads of {uploads.held} bytes are under way, at most {uploads.most} may be"
            raise RefusedError(Problem(ErrorCode.OVERLOADED, text, retry_after_ms=1000.0))
        uploads.held += more
        self._held = count
