"""For all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Workers of pytest-xdist share the cores: one of them must not take all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long anything takes says nothing on a machine that others share.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", parent=settings.get_profile("default"), max_examples=8)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("EXAMPLES", "20000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-seconds",
        type=float,
        default=3.0,
        help="how long each fault of tests/system/faults that goes on is kept up",
    )
    parser.addoption(
        "--chaos-requests",
        type=int,
        default=500,
        help="how many requests tests/ecosystem/test_ray_chaos.py sends at least",
    )


@pytest.fixture(scope="session")
def fault_seconds(request: pytest.FixtureRequest) -> float:
    """How long a fault that goes on is kept up."""
    return float(request.config.getoption("--fault-seconds"))


@pytest.fixture(scope="session")
def chaos_requests(request: pytest.FixtureRequest) -> int:
    """Requests that are sent while replicas on Ray are killed and replaced, at least."""
    return int(request.config.getoption("--chaos-requests"))
