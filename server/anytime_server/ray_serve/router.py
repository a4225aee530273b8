"""Ray's router of requests, by our choice between replicas.

Ray has alpha interfaces for this (`ray.serve.request_router`, seen in 2.60). By itself it compares
numbers of requests, of which an idle websocket is one.
"""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from anytime_server.ray_serve import membership
from anytime_server.ray_serve.choice import Loads


class LoadRouter(RequestRouter):  # type: ignore[misc]  # Any, where there is no Ray
    """Sends a request to the less loaded of two replicas, by the work that they predict."""

    def initialize_state(self, **_: Any) -> None:
        """See Ray."""
        self._loads = Loads()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """See Ray: replicas to ask, the best first."""
        if not candidate_replicas or pending_request is None:
            return []
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        for name, replica in by_name.items():
            stats = replica.routing_stats
            if stats:
                self._loads.tell(name, stats["number"], stats["load_s"], stats["request_s"])
        request = pending_request.metadata.internal_request_id
        chosen = self._loads.choose(request, list(by_name), random.randrange)
        return [[by_name[name]] for name in chosen]

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """See Ray: whatever the end."""
        self._loads.ended(internal_request_id, replica_id.unique_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """See Ray: these are all that may be asked from now on."""
        super().update_replicas(replicas)
        names = {replica.replica_id.unique_id for replica in replicas}
        self._loads.keep(names)
        membership.changed(names)
