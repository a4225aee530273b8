"""Ray's autoscaling by our decision."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

from anytime_server.core.scaling import Served, joined, wanted_replicas


def by_quality(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """How many replicas there should be; Ray applies its delays and bounds to the answer."""
    metrics = context.aggregated_metrics or {}
    replicas = [
        Served(**{name: metrics.get(name, {}).get(replica, default) for name, default in _IDLE})
        for replica in context.running_replicas
    ]
    running, target = context.current_num_replicas, context.target_num_replicas
    return wanted_replicas(joined(replicas), running, target), {}


_IDLE = [(name, getattr(Served(), name)) for name in Served.__slots__]
