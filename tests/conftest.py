"""For all tests."""

import os

from hypothesis import settings

# Workers of pytest-xdist share the cores: one of them must not take all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fast", max_examples=8)
