"""`/v1/requests/{id}`: a request that came over HTTP, to look at, to change and to cancel."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from anytime_protocol.enums import ErrorCode, RequestState
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import BudgetApplied, Failed, Finished
from anytime_protocol.resources import BudgetPatch, RequestStatus
from anytime_server.api.json_body import body_schema, json_body
from anytime_server.api.state import require_token, state_of
from anytime_server.engine.base import ActiveRequest
from anytime_server.errors import RefusedError

router = APIRouter(dependencies=[Depends(require_token)])

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    404: {"description": "No such request.", "content": {"application/problem+json": {}}}
}


def find_request(request: Request, request_id: str) -> ActiveRequest:
    """The request of an id.

    Raises:
        RefusedError: there is none.
    """
    found = state_of(request).engine.status(request_id)
    if found is None:
        text = f"found no request {request_id[:128]!r}; an ended one is remembered for a minute"
        raise RefusedError(Problem(ErrorCode.UNKNOWN_REQUEST, text))
    return found


Found = Annotated[ActiveRequest, Depends(find_request)]


@router.get("/v1/requests/{request_id}", summary="Where a request stands", responses=_NOT_FOUND)
async def get_request(request: Request, found: Found) -> RequestStatus:
    """See `docs/PROTOCOL.md`."""
    now = state_of(request).engine.clock() if found.ended_s is None else found.ended_s
    terminal = found.terminal
    match terminal:
        case Finished():
            state = RequestState.FINISHED
        case Failed():
            state = RequestState.FAILED
        case None:
            state = RequestState.QUEUED if found.first_s is None else RequestState.RUNNING
    return RequestStatus(
        id=found.wire_id,
        model=found.job.model,
        state=state,
        exit=found.exit,
        exits=found.num_exits,
        elapsed_ms=(now - found.job.arrival_s) * 1e3,
        rev=found.job.rev,
        budget=found.job.budget,
        final=terminal if isinstance(terminal, Finished) else None,
        error=terminal if isinstance(terminal, Failed) else None,
    )


@router.patch(
    "/v1/requests/{request_id}",
    summary="A new budget for a running request",
    responses=_NOT_FOUND,
    openapi_extra=body_schema(BudgetPatch),
)
async def patch_request(
    request: Request, found: Found, patch: Annotated[BudgetPatch, Depends(json_body(BudgetPatch))]
) -> BudgetApplied:
    """See `docs/PROTOCOL.md`."""
    return state_of(request).engine.update_budget(found.id, patch.budget, patch.rev)


@router.delete(
    "/v1/requests/{request_id}", summary="Cancel a request", status_code=204, responses=_NOT_FOUND
)
async def delete_request(request: Request, found: Found) -> Response:
    """See `docs/PROTOCOL.md`."""
    state_of(request).engine.cancel(found.id, discard=False)
    return Response(status_code=204)
