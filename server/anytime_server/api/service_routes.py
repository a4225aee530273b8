"""What is not about one request: models, the server's budget, health, metrics, descriptions.

Decides the representations of these resources. The operator's budget itself is `budgets`'.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

from anytime_protocol.json_reader import JsonObject, JsonReader
from anytime_server.api import asyncapi
from anytime_server.api.dependencies import require_operator, require_token, service_of
from anytime_server.api.json_body import read_json
from anytime_server.core.limits import ServerBudget
from anytime_server.engine.service import Service
from anytime_server.metrics import CONTENT_TYPE

public = APIRouter()
"""Health and descriptions: asked by machinery that has no token."""

router = APIRouter(dependencies=[Depends(require_token)])


@public.get("/livez", summary="200 while the process works", response_class=PlainTextResponse)
async def livez() -> Response:
    """See `docs/PROTOCOL.md`."""
    return PlainTextResponse("ok\n")


@public.get("/readyz", summary="200 while requests are admitted")
async def readyz(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    engine = service_of(request).engine
    body = {
        "state": engine.state.value,
        "engines": {name: served.engine for name, served in engine.models.items()},
    }
    return JSONResponse(body, 200 if engine.state.value == "ready" else 503)


@public.get("/metrics", summary="Prometheus text format", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    text = await asyncio.to_thread(service_of(request).metrics.expose)
    return Response(text, media_type=CONTENT_TYPE)


@public.get("/asyncapi.json", summary="The websocket, machine-readable")
async def get_asyncapi() -> Response:
    """See `docs/PROTOCOL.md`."""
    return JSONResponse(asyncapi.describe())


@router.get("/v1/models", summary="All models")
async def get_models(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    models = service_of(request).engine.models.values()
    return JSONResponse({"models": [served.info.to_json() for served in models]})


@router.get("/v1/models/{model}", summary="One model")
async def get_model(request: Request, model: str) -> Response:
    """See `docs/PROTOCOL.md`."""
    return JSONResponse(service_of(request).check_model(model).info.to_json())


@router.get("/v1/budget", summary="The server's own budget, and its load")
async def get_budget(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    service = service_of(request)
    service.check_loaded()
    return JSONResponse(budget_status(service))


_PUT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["budget"],
                    "properties": {"budget": {"type": "object"}},
                }
            }
        },
    }
}


@router.put(
    "/v1/budget",
    summary="Replace the server's own budget",
    dependencies=[Depends(require_operator)],
    openapi_extra=_PUT,
)
async def put_budget(request: Request) -> Response:
    """See `docs/PROTOCOL.md`."""
    service = service_of(request)
    service.check_loaded()
    fields = JsonReader(await read_json(request, service.settings))
    budget = ServerBudget.from_json(fields.take("budget", "an object"))
    fields.end()
    service.engine.set_server_budget(budget)
    return JSONResponse(budget_status(service))


def budget_status(service: Service) -> JsonObject:
    """The operator's budget, what is in force of it, and the load."""
    engine, scheduler = service.engine, service.engine.scheduler
    engine.catch_up()
    budget = scheduler.server_budget
    queued = sum(ticket.first_s is None for ticket in engine.tickets.values())
    return {
        "budget": budget.to_json(),
        "effective": engine.server_limits().to_json(),
        "in_flight": len(engine.tickets),
        "queued": queued,
        "load_s": round(scheduler.load_s, 6),
        "slowdown": round(scheduler.costs.slow_down.mean, 4),
    }
