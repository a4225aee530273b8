"""`/v1/requests/{id}`: a request that came over HTTP, as something to look at, change and cancel.

Decides what is told about it. What becomes of a new budget is the scheduler's to say.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse

from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import MAX_REV
from anytime_protocol.enums import Effect, ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_protocol.json_reader import JsonObject, JsonReader
from anytime_protocol.messages import BudgetApplied, Finished
from anytime_server.api.dependencies import require_token, service_of
from anytime_server.api.json_body import read_json
from anytime_server.engine.service import Record, RefusedError, Service

router = APIRouter(dependencies=[Depends(require_token)])

_PROBLEM: dict[int | str, dict[str, Any]] = {
    404: {"description": "No such request.", "content": {"application/problem+json": {}}}
}


@router.get("/v1/requests/{request_id}", summary="Where a request stands", responses=_PROBLEM)
async def get_request(request: Request, request_id: str) -> Response:
    """See `docs/PROTOCOL.md`."""
    service = service_of(request)
    return JSONResponse(status_of(service, request_id, _find(service, request_id)))


@router.patch(
    "/v1/requests/{request_id}",
    summary="A new budget for a running request",
    responses=_PROBLEM,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["budget"],
                        "properties": {"rev": {"type": "integer"}, "budget": {"type": "object"}},
                    }
                }
            },
        }
    },
)
async def patch_request(request: Request, request_id: str) -> Response:
    """See `docs/PROTOCOL.md`."""
    service = service_of(request)
    record = _find(service, request_id)
    fields = JsonReader(await read_json(request, service.settings))
    budget = Budget.from_json(fields.take("budget", "an object"))
    rev = fields.integer("rev", 1, MAX_REV) if fields.has("rev") else record.rev + 1
    fields.end()
    answer = service.engine.update_budget(request_id, budget, rev)
    if answer.effect is Effect.APPLIED:
        record.budget, record.rev = budget, rev
    applied = BudgetApplied(request_id, rev, answer.at_exit, answer.effect)
    return JSONResponse(applied.to_json())


@router.delete(
    "/v1/requests/{request_id}", summary="Cancel a request", status_code=204, responses=_PROBLEM
)
async def delete_request(request: Request, request_id: str) -> Response:
    """See `docs/PROTOCOL.md`."""
    service = service_of(request)
    _find(service, request_id)
    service.engine.cancel(request_id, discard=False)
    return Response(status_code=204)


def status_of(service: Service, request_id: str, record: Record) -> JsonObject:
    """A request's representation."""
    service.engine.catch_up()
    ticket = record.ticket
    now = service.engine.clock() if record.ended_s is None else record.ended_s
    state = "queued" if ticket.first_s is None else "running"
    if record.end is not None:
        state = "finished" if isinstance(record.end, Finished) else "failed"
    wire: JsonObject = {
        "id": request_id,
        "model": ticket.job.model,
        "state": state,
        "exit": ticket.exit,
        "exits": ticket.exits,
        "elapsed_ms": round((now - ticket.job.arrival_s) * 1e3, 3),
        "rev": record.rev,
        "budget": record.budget.to_json(),
    }
    if record.end is not None:
        wire["final" if isinstance(record.end, Finished) else "error"] = record.end.to_json()
    return wire


def _find(service: Service, request_id: str) -> Record:
    record = service.records.get(request_id)
    if record is None:
        text = f"found no request {request_id[:128]!r}; what is over is remembered for a minute"
        raise RefusedError(Problem(ErrorCode.UNKNOWN_REQUEST, text))
    return record
