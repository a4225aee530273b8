"""Who may ask: tokens, hosts and origins.

Without a token everybody on the network may ask, which is why the server listens on loopback unless
told otherwise. There a page that somebody visits could still ask, so that pages of other origins
change nothing, and names that do not mean this machine (DNS rebinding) are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anytime_protocol.http.headers import read_token

if TYPE_CHECKING:  # it only holds them
    from anytime_server.api.quotas import Caller

_PORTS = {"http": 80, "https": 443}


def _is_one_of(tokens: Sequence[str], lines: Sequence[tuple[str, str]]) -> bool:
    found = read_token(lines) or ""
    return any(hmac.compare_digest(found.encode(), token.encode()) for token in tokens)


def is_loopback(name: str) -> bool:
    """Whether a name or address always means the machine itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Access:
    """Decides by a request's headers whether it is allowed.

    Attributes:
        token: what every request needs, or None.
        operator_token: what changing the server's budget needs, or None for the same as `token`.
        origins: other origins whose pages may ask.
        callers: holders of further tokens, each with a quota, by token.
        loopback_only: whether the server must be addressed by a name of this machine, or by that of
            one of the origins.
    """

    token: str | None = None
    operator_token: str | None = None
    origins: frozenset[str] = frozenset()
    callers: Mapping[str, Caller] = field(default_factory=dict)
    loopback_only: bool = False

    def is_authorised(self, lines: Sequence[tuple[str, str]], *, operator: bool = False) -> bool:
        """Whether a request carries the token that it needs.

        Args:
            lines: its headers.
            operator: it wants to change the server's budget.
        """
        needed = (self.operator_token or self.token) if operator else self.token
        if needed is None and not self.callers:
            return True
        accepted = [t for t in (needed, None if operator else self.operator_token) if t]
        return _is_one_of(accepted, lines) or (not operator and self.caller_of(lines) is not None)

    def caller_of(self, lines: Sequence[tuple[str, str]]) -> Caller | None:
        """Who asks, if it is one with a quota.

        Args:
            lines: a request's headers.
        """
        found = [one for token, one in self.callers.items() if _is_one_of([token], lines)]
        return found[0] if found else None

    def is_host_allowed(self, lines: Sequence[tuple[str, str]]) -> bool:
        """Whether a request is addressed to this machine, where it must be."""
        if not self.loopback_only:
            return True
        host = next((value for name, value in lines if name.lower() == "host"), "")
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name) or name in {urlsplit(origin).hostname for origin in self.origins}

    def is_origin_allowed(self, lines: Sequence[tuple[str, str]]) -> bool:
        """Whether the page that asks may change something; programs send no Origin."""
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
