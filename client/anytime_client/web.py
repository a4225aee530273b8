"""The HTTP side of the protocol as requests to make and answers to read.

Decides URLs, headers, bodies and what a status means. Sends nothing: `links` hands these to httpx.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import httpx

from anytime_client.address import Address, refusal, unreachable
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectionLostError,
    SilenceError,
)
from anytime_client.results import ServerBudget
from anytime_protocol.budget import Budget
from anytime_protocol.codec import load_json
from anytime_protocol.errors import FrameError, ProtocolError
from anytime_protocol.http.headers import PRIORITY, REQUEST_ID, Priority
from anytime_protocol.json_reader import JsonObject, JsonReader
from anytime_protocol.messages import Infer
from anytime_protocol.resources import ModelInfo

EVENT_STREAM: Final = "text/event-stream"
MAX_MODELS: Final = 256


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, in the words of httpx."""

    method: str
    url: str
    headers: dict[str, str]
    files: dict[str, Any] | None = None
    content: bytes | None = None

    def build(self, client: httpx.AsyncClient) -> httpx.Request:
        """The request, to be sent by a client."""
        return client.build_request(
            self.method, self.url, headers=self.headers, files=self.files, content=self.content
        )


def predict(address: Address, message: Infer) -> Call:
    """Asks for a stream of events; as a form, which alone can carry a schedule."""
    files: dict[str, Any] = {"image": ("image", message.payload, message.media_type)}
    for name, value in (("budget", message.budget.to_json()), ("want", message.want.to_json())):
        if value:
            files[name] = (None, json.dumps(value), "application/json")
    headers = {
        "Accept": EVENT_STREAM,
        REQUEST_ID: message.id,
        PRIORITY: str(Priority(message.urgency, incremental=True)),
    }
    return Call("POST", address.predict(message.model), address.headers | headers, files)


def get(address: Address, path: str) -> Call:
    """Reads a resource."""
    return Call("GET", address.at(path), address.headers | {"Accept": "application/json"})


def set_budget(address: Address, request_id: str, rev: int, budget: Budget) -> Call:
    """Gives a running request a new budget."""
    return _send(address, "PATCH", address.request(request_id), {"rev": rev, **_body(budget)})


def cancel(address: Address, request_id: str) -> Call:
    """Cancels a running request."""
    return Call("DELETE", address.request(request_id), address.headers)


def set_server_budget(address: Address, budget: Budget) -> Call:
    """Replaces the operator's budget."""
    return _send(address, "PUT", address.at("/v1/budget"), _body(budget))


def check(response: httpx.Response) -> None:
    """Passes a good answer, its body read or not yet.

    Raises:
        RequestError: the server's problem.
        AnswerError: an error status without one: something else than the server answered.
    """
    if not response.is_success:
        raise refusal(str(response.url), response.status_code, response.content)


def read_json(response: httpx.Response) -> JsonObject:
    """The object in a good answer.

    Raises:
        RequestError: the server's problem.
        AnswerError: something else than the server answered.
    """
    check(response)
    try:
        return load_json(response.text)
    except FrameError as error:
        raise AnswerError(f"{response.url}: {error}") from error


def read_models(response: httpx.Response) -> tuple[ModelInfo, ...]:
    """The models in the answer of `GET /v1/models`."""
    body = read_json(response)
    try:
        items = JsonReader(body).objects("models", MAX_MODELS)
        return tuple(ModelInfo.read(item) for item in items)
    except ProtocolError as error:
        raise AnswerError(f"{response.url}: {error}") from error


def read_server_budget(response: httpx.Response) -> ServerBudget:
    """The answer of `GET /v1/budget`."""
    body = read_json(response)
    try:
        return ServerBudget.read(JsonReader(body))
    except ProtocolError as error:
        raise AnswerError(f"{response.url}: {error}") from error


def translate(error: Exception, address: Address, timeout_s: float, *, begun: bool) -> AnytimeError:
    """An error of httpx in this package's words.

    Args:
        error: as it was raised.
        address: of the server.
        timeout_s: how long was waited.
        begun: whether the request was under way already.
    """
    match error:
        case httpx.ReadTimeout():
            return SilenceError(timeout_s)
        case httpx.HTTPError() if begun:
            return ConnectionLostError(address.base, f"the connection broke off ({error})", None)
        case _:
            return unreachable(address, error)


def _send(address: Address, method: str, url: str, body: JsonObject) -> Call:
    headers = address.headers | {"Content-Type": "application/json", "Accept": "application/json"}
    return Call(method, url, headers, content=json.dumps(body).encode())


def _body(budget: Budget) -> JsonObject:
    return {"budget": budget.to_json()}
