"""The websocket in AsyncAPI 3.0, made from the protocol's message types.

What the fields mean is in `docs/PROTOCOL.md`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anytime_protocol.enums import PROTOCOL
from anytime_protocol.messages import TYPES, Frame, Infer, Role
from anytime_protocol.validation import JsonValue
from anytime_server.api.json_body import schema_of

_PAYLOADS = {
    "infer": "the image file",
    "frame": "the image file",
    "update": "the arrays named in `parts`, one after another",
}


def describe() -> dict[str, Any]:
    """The document."""
    kinds = {**TYPES[Role.CLIENT], **TYPES[Role.SERVER]}
    names = sorted(kinds)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Anytime dense prediction",
            "version": server_version(),
            "description": "A map at every exit, a budget that may change; see docs/PROTOCOL.md.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "description": f"Websocket, subprotocol {PROTOCOL}.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            "ask": _operation("receive", Role.CLIENT),
            "answer": _operation("send", Role.SERVER),
        },
        "components": {"messages": {name: _message(name, kinds[name]) for name in names}},
    }


@cache
def server_version() -> str:
    """Of the installed distribution."""
    try:
        return version("anytime-dense")
    except PackageNotFoundError:
        return "0"


def _operation(action: str, sender: Role) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/stream"},
        "messages": [
            {"$ref": f"#/channels/stream/messages/{name}"} for name in sorted(TYPES[sender])
        ],
    }


def _message(name: str, kind: type[JsonValue]) -> dict[str, Any]:
    schema = schema_of(kind)
    # Their defaults are for programs; in the JSON they are always there.
    required = [
        "type",
        *(["media_type"] if kind in (Infer, Frame) else []),
        *schema.get("required", []),
    ]
    schema["required"] = [field for field in required if field != "payload"]
    message: dict[str, Any] = {"name": name, "payload": schema}
    if name in _PAYLOADS:
        message["description"] = f"Followed, in a binary frame, by {_PAYLOADS[name]}."
        schema["properties"]["payload"] = {"type": "string", "contentEncoding": "base64"}
    return message
