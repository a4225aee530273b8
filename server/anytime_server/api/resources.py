"""Models, the server's own budget, health, metrics and machine-readable descriptions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

from anytime_protocol.model_info import ModelInfo
from anytime_protocol.resources import Health, ModelList, ServerBudgetChange, ServerBudgetStatus
from anytime_server.api import asyncapi
from anytime_server.api.json_body import body_schema, json_body
from anytime_server.api.state import require_operator, require_token, state_of
from anytime_server.engine.base import EngineState
from anytime_server.metrics import CONTENT_TYPE

public = APIRouter()
"""Health and descriptions, for machines that have no token."""

router = APIRouter(dependencies=[Depends(require_token)])


@public.head("/livez", include_in_schema=False, response_class=PlainTextResponse)
@public.get("/livez", summary="200 while the process works", response_class=PlainTextResponse)
async def livez() -> str:
    """See `docs/PROTOCOL.md`."""
    return "ok\n"


@public.head("/readyz", include_in_schema=False)
@public.get("/readyz", summary="200 while requests are admitted", response_model=Health)
async def readyz(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    engine = state_of(request).engine
    engines = {name: served.engine for name, served in engine.models.items()}
    health = Health(engine.state.value, engines)
    return JSONResponse(health.to_json(), 200 if engine.state is EngineState.READY else 503)


@public.get("/metrics", summary="Prometheus text format", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    text = await asyncio.to_thread(state_of(request).metrics.expose)
    return Response(text, media_type=CONTENT_TYPE)


@public.get("/asyncapi.json", summary="The websocket, machine-readable")
async def get_asyncapi() -> dict[str, Any]:
    """See `docs/PROTOCOL.md`."""
    return asyncapi.describe()


@router.get("/v1/models", summary="All models")
async def get_models(request: Request) -> ModelList:
    """See `docs/PROTOCOL.md`."""
    models = state_of(request).engine.models.values()
    return ModelList(tuple(served.info for served in models))


@router.get("/v1/models/{model}", summary="One model")
async def get_model(request: Request, model: str) -> ModelInfo:
    """See `docs/PROTOCOL.md`."""
    return state_of(request).engine.model(model).info


@router.get("/v1/budget", summary="The server's own budget, and its load")
async def get_budget(request: Request) -> ServerBudgetStatus:
    """See `docs/PROTOCOL.md`."""
    return state_of(request).engine.server_budget()


@router.put(
    "/v1/budget",
    summary="Replace the server's own budget",
    dependencies=[Depends(require_operator)],
    openapi_extra=body_schema(ServerBudgetChange),
)
async def put_budget(
    request: Request,
    change: Annotated[ServerBudgetChange, Depends(json_body(ServerBudgetChange))],
) -> ServerBudgetStatus:
    """See `docs/PROTOCOL.md`."""
    engine = state_of(request).engine
    engine.set_server_budget(change.budget)
    return engine.server_budget()
