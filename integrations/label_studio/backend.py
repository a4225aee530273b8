"""A Label Studio ML backend on the public client: the best map of each image within a deadline.

    PYTHONPATH=. uvicorn --factory integrations.label_studio.backend:create_app --port 9090

A prediction that Label Studio no longer waits for is cancelled on the server.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import requests
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_base64_content
from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from anytime_client import AnytimeError, AsyncClient, ImageError, RequestError, Result, Task
from integrations.label_studio.labels import Control, UnusableError, draw, read_config
from integrations.regions import WANT

logger = logging.getLogger("uvicorn.error")

_Seconds = Annotated[float, Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """Settings from environment variables: `url` is `ANYTIME_URL`, and so on.

    Attributes:
        url: of the anytime server.
        token: bearer token, where it has one.
        deadline_s: for the map of one image, s.
        call_s: for all images of one call, s; below Label Studio's `ML_TIMEOUT_PREDICT` (100 s),
            after which it discards them.
        segmentation_model: name; the server's first of its task unless given.
        pose_model: name; the same.
        min_score: score below which a keypoint is left out, 0 to 1.
        label_studio_url: `LABEL_STUDIO_URL`; as Label Studio says in `/setup` unless given.
        label_studio_api_key: `LABEL_STUDIO_API_KEY`, to fetch uploaded images with; a personal
            access token, or a legacy token, which Label Studio sends in `/setup` where it has them.
    """

    model_config = SettingsConfigDict(env_prefix="ANYTIME_")

    url: str = "http://127.0.0.1:8000"
    token: str | None = None
    deadline_s: _Seconds = 5.0
    call_s: _Seconds = 90.0
    segmentation_model: str | None = None
    pose_model: str | None = None
    min_score: float = 0.2
    label_studio_url: str = Field(default="", validation_alias="LABEL_STUDIO_URL")
    label_studio_api_key: str = Field(default="", validation_alias="LABEL_STUDIO_API_KEY")


class LabelStudioTask(BaseModel):
    """A task as Label Studio sends it; further fields are of no interest here."""

    id: int | None = None
    data: dict[str, Any]


class PredictRequest(BaseModel):
    """The body of `/predict`."""

    tasks: list[LabelStudioTask]
    label_config: str
    project: str = ""


class SetupRequest(BaseModel):
    """The body of `/setup`. Host and token are needed to fetch uploaded images."""

    project: str
    label_config: str = Field(alias="schema")
    hostname: str = ""
    access_token: str = ""


class Backend:
    """Predictions for tasks; remembers of each project where its images are.

    Args:
        client: of the anytime server.
        settings: deadlines and models.
    """

    def __init__(self, client: AsyncClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._hosts: dict[str, tuple[str, str]] = {}

    async def setup(self, body: SetupRequest) -> str:
        """Takes a project's host and token; returns the version that its predictions will have."""
        controls = await self._read_config(body.label_config)
        self._hosts[body.project] = body.hostname, body.access_token
        return self._version(controls)

    async def predict(self, body: PredictRequest) -> list[dict[str, Any]]:
        """A prediction for each task; an `error` in its place where there is none.

        An image may take `deadline_s`, and no more than its share of what is left of `call_s`.

        Raises:
            UnusableError, AnytimeError: there is a prediction for no task.
        """
        until = time.monotonic() + self._settings.call_s
        controls = await self._read_config(body.label_config)
        results: list[dict[str, Any]] = []
        failures: list[Exception] = []
        for number, task in enumerate(body.tasks):
            share_s = (until - time.monotonic()) / (len(body.tasks) - number)
            deadline = time.monotonic() + min(self._settings.deadline_s, share_s)
            try:
                results.append(await self._predict_task(task, controls, body.project, deadline))
            except (AnytimeError, UnusableError) as error:
                logger.warning("task %s: %s", task.id, error)
                failures.append(error)
                results.append({"error": str(error)})
        if failures and len(failures) == len(body.tasks):
            raise failures[0]
        return results

    async def _predict_task(
        self, task: LabelStudioTask, controls: list[Control], project: str, deadline: float
    ) -> dict[str, Any]:
        drawn: list[dict[str, Any]] = []
        found: dict[tuple[str, str], Result] = {}
        for control in controls:
            key = control.image, control.model.name
            if key not in found:
                image = await asyncio.to_thread(self._fetch, task, control.image, project)
                left_ms = max(0.0, deadline - time.monotonic()) * 1000
                found[key] = await self._client.predict(
                    image, model=control.model.name, deadline_ms=left_ms, want=WANT
                )
                logger.info("task %s: %s, %s", task.id, found[key].label, found[key].reason)
            update, min_score = found[key].best, self._settings.min_score
            drawn += await asyncio.to_thread(draw, control, update, min_score)
        score = sum(result.confidence for result in found.values()) / len(found)
        return {"result": drawn, "score": score, "model_version": self._version(controls)}

    async def _read_config(self, text: str) -> list[Control]:
        names = {
            Task.SEGMENTATION: self._settings.segmentation_model,
            Task.POSE: self._settings.pose_model,
        }
        return read_config(text, await self._client.models(), names)

    def _fetch(self, task: LabelStudioTask, name: str, project: str) -> bytes:
        url = task.data.get(name)
        if not isinstance(url, str):
            keys = ", ".join(task.data) or "nothing"
            raise UnusableError(f"task: found {keys}, expected an image's URL in {name!r}")
        host, token = self._hosts.get(project, ("", ""))
        host = self._settings.label_studio_url or host
        token = self._settings.label_studio_api_key or token
        try:
            if token.count(".") == 2:  # a personal access token, which buys one for some minutes
                answer = requests.post(
                    f"{host.rstrip('/')}/api/token/refresh/", json={"refresh": token}, timeout=10
                )
                answer.raise_for_status()
                token = answer.json()["access"]
            return base64.b64decode(get_base64_content(url, host, token, task.id))
        except (OSError, ValueError, KeyError, requests.RequestException) as error:
            raise UnusableError(f"{url}: cannot be fetched ({error})") from error

    def _version(self, controls: list[Control]) -> str:
        names = "+".join(sorted({control.model.name for control in controls}))
        return f"{names}-{self._settings.deadline_s:g}s"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The web application that Label Studio is connected to.

    Args:
        settings: from the environment unless given.
    """
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(chosen.url, chosen.token) as client:
            app.state.backend = Backend(client, chosen)
            yield

    app = FastAPI(title="anytime-dense for Label Studio", lifespan=lifespan)

    @app.exception_handler(UnusableError)
    @app.exception_handler(AnytimeError)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        logger.warning("%s", error)
        status = error.status if isinstance(error, RequestError) else 502
        status = 400 if isinstance(error, UnusableError | ImageError) else status
        return JSONResponse({"error": str(error)}, status)

    @app.get("/")
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "anytime-dense"}

    @app.post("/setup")
    async def setup(body: SetupRequest) -> dict[str, str]:
        return {"model_version": await app.state.backend.setup(body)}

    @app.post("/webhook")
    async def webhook() -> dict[str, str]:
        return {"status": "nothing is learnt from annotations"}

    @app.post("/predict")
    async def predict(body: PredictRequest, request: Request) -> JSONResponse:
        work = asyncio.create_task(app.state.backend.predict(body))
        gone = asyncio.create_task(_until_disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                logger.info("project %s: the client has left, cancelled", body.project)
                return JSONResponse({"error": "cancelled"}, 499)
            return JSONResponse({"results": work.result()})
        finally:
            work.cancel()
            gone.cancel()

    return app


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
