"""The garbage collector leaves alone what was there when a process became ready, and the C library
keeps the memory that was freed."""

import gc
import platform
import subprocess
import sys

import pytest

from anytime_server.process_memory import exclude_from_collection


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_what_was_there_is_never_looked_at_again():
    stays = [[] for _ in range(1000)]
    exclude_from_collection()
    looked_at = {id(one) for one in gc.get_objects()}
    assert not looked_at & {id(one) for one in stays}


def test_what_comes_later_is_still_collected():
    exclude_from_collection()
    ring = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1


FAULTS_OF_A_SECOND_TIME = """
import resource, sys
import numpy as np
from anytime_server.process_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(3_000_000, np.uint8)  # numpy takes huge pages for more than 4 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_memory_that_was_freed_is_used_again_without_asking_the_kernel():
    def count(how):
        command = [sys.executable, "-c", FAULTS_OF_A_SECOND_TIME, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert count("keep") < 50
    assert count("leave") > 500
