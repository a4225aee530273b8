"""The HTTP interface as one method for each resource, and the transport over it."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from anytime_client.address import Address, error_of_response
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectionLostError,
    RequestError,
    SilenceError,
)
from anytime_client.requests import InferRequest, VideoRequest
from anytime_client.results import FrameResult, Result
from anytime_client.session import ClientSession, RequestEvent
from anytime_protocol.budget import Budget
from anytime_protocol.codec import load_json
from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import ProtocolError
from anytime_protocol.http.headers import PRIORITY, REQUEST_ID, Priority
from anytime_protocol.messages import Infer
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.resources import (
    BudgetPatch,
    ModelList,
    ServerBudget,
    ServerBudgetStatus,
)
from anytime_protocol.stream_answers import StreamClosed
from anytime_protocol.validation import JsonValue

_EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"

T = TypeVar("T", bound=JsonValue)


class HttpApi:
    """Requests to one server.

    Every method raises `ConnectError` if the server cannot be reached, `SilenceError` if it does
    not answer in time, `RequestError` if it refuses and `AnswerError` if something else than an
    anytime server answers.

    Args:
        address: of the server.
        timeout_s: the longest silence.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        headers = address.headers | {"Accept": _JSON}
        self._client = httpx.AsyncClient(base_url=address.base, headers=headers, timeout=timeout_s)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._client.is_closed

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def models(self) -> tuple[ModelInfo, ...]:
        """`GET /v1/models`."""
        return _parse(ModelList, await self._send("GET", "/v1/models")).models

    async def predict(self, message: Infer) -> httpx.Response:
        """`POST /v1/models/{model}/predict` for server-sent events.

        The request is a form, which alone can carry a schedule.

        Returns:
            The response to a request that was admitted, its body not read yet.
        """
        files: dict[str, Any] = {"image": ("image", message.payload, message.media_type)}
        for name, value in (("budget", message.budget), ("want", message.want)):
            if fields := value.to_json():
                files[name] = (None, json.dumps(fields), _JSON)
        headers = {
            "Accept": _EVENT_STREAM,
            REQUEST_ID: message.id,
            PRIORITY: str(Priority(message.urgency, incremental=True)),
        }
        path = f"/v1/models/{quote(message.model, safe='')}/predict"
        return await self._send("POST", path, stream=True, files=files, headers=headers)

    async def set_budget(self, request_id: str, rev: int, budget: Budget) -> str:
        """`PATCH /v1/requests/{id}`; returns the `budget_applied` message."""
        body = BudgetPatch(budget, rev).to_json()
        return (await self._send("PATCH", _request_path(request_id), json=body)).text

    async def cancel(self, request_id: str) -> None:
        """`DELETE /v1/requests/{id}`."""
        await self._send("DELETE", _request_path(request_id))

    async def server_budget(self) -> ServerBudgetStatus:
        """`GET /v1/budget`."""
        return _parse(ServerBudgetStatus, await self._send("GET", "/v1/budget"))

    async def set_server_budget(self, budget: Budget | ServerBudget) -> ServerBudgetStatus:
        """`PUT /v1/budget`."""
        body = {"budget": budget.to_json()}
        return _parse(ServerBudgetStatus, await self._send("PUT", "/v1/budget", json=body))

    def translate(self, error: httpx.HTTPError | SSEError, *, under_way: bool) -> AnytimeError:
        """This package's error for one of httpx or httpx-sse.

        Args:
            error: as it was raised.
            under_way: whether the response had begun already.
        """
        match error:
            case httpx.ReadTimeout():
                return SilenceError(self._timeout_s)
            case SSEError():
                return AnswerError(f"{self._address.base}: {error}")
            case _ if under_way:
                why = f"the connection broke off ({error})"
                return ConnectionLostError(self._address.base, why, None)
            case _:
                return self._address.unreachable(error)

    async def _send(
        self, method: str, path: str, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Sends a request; the body of a successful `stream` response is left to be read."""
        request = self._client.build_request(method, path, **options)
        try:
            response = await self._client.send(request, stream=stream)
            if not response.is_success:
                await response.aread()
        except httpx.HTTPError as error:
            raise self.translate(error, under_way=False) from error
        if not response.is_success:
            raise error_of_response(str(response.url), response.status_code, response.content)
        return response


class HttpTransport:
    """An HTTP request for each request, its updates as server-sent events. Made by `open`.

    Args:
        address: of the server.
        api: its HTTP interface.
        models: the models that it has.
    """

    def __init__(self, address: Address, api: HttpApi, models: tuple[ModelInfo, ...]) -> None:
        self.address = address
        self.api = api
        self.models = models

    @classmethod
    async def open(cls, address: Address, timeout_s: float) -> Self:
        """Requests the server's models; errors as `open_transport`."""
        api = HttpApi(address, timeout_s)
        try:
            return cls(address, api, await api.models())
        except AnytimeError:
            await api.close()
            raise

    @property
    def is_open(self) -> bool:
        """Always, until closed: each request finds its own connection."""
        return not self.api.is_closed

    async def infer(self, request: InferRequest) -> _HttpStream:
        """Sends a request; returns once it is admitted."""
        session = ClientSession.over_http(self.address, self.models)
        message = session.infer(request, uuid.uuid4().hex)
        session.outgoing()
        return _HttpStream(self, session, message.id, await self.api.predict(message))

    async def open_video(self, request: VideoRequest) -> NoReturn:  # noqa: ARG002
        """HTTP has no streams of frames.

        Raises:
            AnswerError: always.
        """
        raise AnswerError(
            f"{self.address.base}: streams of frames need a websocket, found HTTP alone; let "
            "websockets through, or send single images."
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self.api.close()


class _HttpStream:
    def __init__(
        self,
        transport: HttpTransport,
        session: ClientSession,
        request_id: str,
        response: httpx.Response,
    ) -> None:
        self._transport = transport
        self._session = session
        self._id = request_id
        self._response = response
        self._events: deque[RequestEvent] = deque()
        self._lines: AsyncIterator[ServerSentEvent] = EventSource(response).aiter_sse()

    async def next(self) -> RequestEvent:
        while not self._events:
            self._receive(await self._read())
        event = self._events.popleft()
        if isinstance(event, Result | AnytimeError):
            await self._response.aclose()
        return event

    async def set_budget(self, budget: Budget) -> None:
        message = self._session.set_budget(self._id, budget)
        if message is None:
            return
        try:
            applied = await self._transport.api.set_budget(self._id, message.rev, budget)
        except RequestError as error:
            if error.code is not ErrorCode.UNKNOWN_REQUEST:  # it ended meanwhile
                raise
        else:
            self._receive(applied)

    async def cancel(self) -> None:
        try:
            await self._transport.api.cancel(self._id)
        except RequestError as error:
            if error.code is not ErrorCode.UNKNOWN_REQUEST:
                raise

    async def close(self) -> None:
        await self._response.aclose()  # the server cancels the request of a client that is gone

    def _receive(self, data: str) -> None:
        self._session.receive(data)
        self._session.outgoing()
        for _, event in self._session.events():
            if not isinstance(event, FrameResult | StreamClosed):  # of websockets alone
                self._events.append(event)

    async def _read(self) -> str:
        try:
            event = await anext(self._lines, None)
        except (httpx.HTTPError, SSEError) as error:
            await self._response.aclose()
            raise self._transport.api.translate(error, under_way=True) from error
        if event is None:
            await self._response.aclose()
            base = self._transport.address.base
            raise ConnectionLostError(base, "the stream ended without a final message", None)
        return event.data


def _parse(body: type[T], response: httpx.Response) -> T:
    """The body of a successful response; fields that this version does not know are ignored."""
    try:
        return body.from_json(load_json(response.text), ignore_unknown=True)
    except ProtocolError as error:
        raise AnswerError(f"{response.url}: {error}") from error


def _request_path(request_id: str) -> str:
    return f"/v1/requests/{quote(request_id, safe='')}"
