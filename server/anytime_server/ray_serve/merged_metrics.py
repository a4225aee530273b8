"""The metrics of all replicas in one text, as Ray's proxy hands `/metrics` to any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

LABEL = "replica"
"""That each sample gets: the short name of its replica."""


def merged(texts: Mapping[str, str]) -> bytes:
    """One exposition of several.

    Args:
        texts: by the name of the replica, each in Prometheus' text format.
    """
    families: dict[str, Metric] = {}
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            known = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            known.samples += [
                sample._replace(labels={**sample.labels, LABEL: replica})
                for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Given(families.values()))
    return generate_latest(registry)


class _Given:
    """A collector of what is there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client`."""
        yield from self._families
