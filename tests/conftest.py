"""For all tests."""

import os

from hypothesis import HealthCheck, settings

# Workers of pytest-xdist share the cores: one of them must not take all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long anything takes says nothing on a machine that others share.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", parent=settings.get_profile("default"), max_examples=8)
settings.load_profile("default")
