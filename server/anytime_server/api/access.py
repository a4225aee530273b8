"""Who may ask: tokens and origins.

Without a token everybody on the network may ask, which is why the server listens on loopback unless
told otherwise.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from anytime_protocol.http.headers import read_token

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Access:
    """Decides by a request's headers whether it is allowed.

    Attributes:
        token: what every request needs, or None.
        operator_token: what changing the server's budget needs, or None for the same as `token`.
        origins: other origins whose pages may open a websocket.
    """

    token: str | None = None
    operator_token: str | None = None
    origins: frozenset[str] = frozenset()

    def is_authorised(self, lines: Sequence[tuple[str, str]], *, operator: bool = False) -> bool:
        """Whether a request carries the token that it needs.

        Args:
            lines: its headers.
            operator: it wants to change the server's budget.
        """
        needed = (self.operator_token or self.token) if operator else self.token
        accepted = [t for t in (needed, None if operator else self.operator_token) if t]
        if needed is None:
            return True
        found = read_token(lines) or ""
        return any(hmac.compare_digest(found.encode(), token.encode()) for token in accepted)

    def is_origin_allowed(self, lines: Sequence[tuple[str, str]]) -> bool:
        """Whether the page that opens a websocket may do so; programs send no Origin."""
        headers = {name.lower(): value for name, value in lines}
        origin = headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        parts = urlsplit(origin)
        host = urlsplit(f"//{headers.get('host', '')}")
        try:
            port = _PORTS.get(parts.scheme)
            same_port = (parts.port or port) == (host.port or port)
        except ValueError:  # a port that is no number
            return False
        return parts.hostname is not None and parts.hostname == host.hostname and same_port
