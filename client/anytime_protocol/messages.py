"""Every message of the websocket, and how a header becomes the message that it names.

Client to server (`requests`): `Infer`, `SetBudget`, `Cancel`, `Ping`. Server to client (`answers`):
`Ready`, `Accepted`, `Update`, `Finished` (type `final`), `Failed` (type `error`), `BudgetApplied`,
`Pong`. Decides which types each side may send, and how strictly they are read: a server refuses
fields that it does not know, a client ignores them. Does not know frames, nor the messages' order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

from anytime_protocol.client_messages import Cancel, Infer, OutputOptions, Ping, SetBudget
from anytime_protocol.errors import FieldError
from anytime_protocol.json_reader import JsonObject, JsonReader
from anytime_protocol.server_messages import (
    Accepted,
    BudgetApplied,
    ConnectionLimits,
    Failed,
    Finished,
    Pong,
    Ready,
    Update,
)

__all__ = [
    "Accepted",
    "BudgetApplied",
    "Cancel",
    "ClientMessage",
    "ConnectionLimits",
    "Failed",
    "Finished",
    "Infer",
    "Message",
    "OutputOptions",
    "Ping",
    "Pong",
    "Ready",
    "Role",
    "ServerMessage",
    "SetBudget",
    "Terminal",
    "Update",
    "parse",
]

ClientMessage: TypeAlias = Infer | SetBudget | Cancel | Ping
ServerMessage: TypeAlias = Ready | Accepted | Update | Finished | Failed | BudgetApplied | Pong
Message: TypeAlias = ClientMessage | ServerMessage

Terminal: TypeAlias = Finished | Failed
"""Ends a request; each gets exactly one."""


class Role(StrEnum):
    """A side of the connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        """The other side."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


TYPES: Final[dict[Role, frozenset[str]]] = {
    Role.CLIENT: frozenset(kind.TYPE for kind in (Infer, SetBudget, Cancel, Ping)),
    Role.SERVER: frozenset(
        kind.TYPE for kind in (Ready, Accepted, Update, Finished, Failed, BudgetApplied, Pong)
    ),
}
"""The message types that each side sends."""

_PLAIN: Final = {
    kind.TYPE: kind
    for kind in (
        SetBudget,
        Cancel,
        Ping,
        Ready,
        Accepted,
        Finished,
        Failed,
        BudgetApplied,
        Pong,
    )
}


def parse(header: JsonObject, payload: bytes, sender: Role) -> Message:
    """Reads the message of a frame.

    Args:
        header: the frame's JSON, without its payload.
        payload: empty for all but `infer` and `update`.
        sender: who sent it; decides which types exist and whether unknown fields are refused.

    Raises:
        FieldError: the type is unknown, a field is missing, malformed or (from a client) unknown,
            or a payload came with a message that has none.
    """
    fields = JsonReader(header)
    kind = fields.text("type", 64)
    message: Message
    if kind not in TYPES[sender]:
        allowed = ", ".join(sorted(TYPES[sender]))
        raise fields.fail("type", kind, f"what a {sender} sends: {allowed}")
    if kind == Infer.TYPE:
        message = Infer.read(fields, payload)
    elif kind == Update.TYPE:
        message = Update.read(fields, payload)
    else:
        message = _PLAIN[kind].read(fields)
    if payload and not isinstance(message, Infer | Update):
        raise FieldError("payload", f"{len(payload)} bytes", f"none with {kind}")
    if sender is Role.CLIENT:
        fields.end()
    return message
