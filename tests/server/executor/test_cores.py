"""Which cores executors get."""

import pytest

from anytime_server.executor import cores
from anytime_server.executor.cores import Cores, auto_executors, share_cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the CPUs that the process may use, and the quota; gives the folder of the topology."""

    def make(cpus, usable, places=None):
        monkeypatch.setattr(cores, "_own_cpus", lambda: set(cpus))
        monkeypatch.setattr(cores, "usable_cpus", lambda: usable)
        for cpu, (socket, core) in (places or {}).items():
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "physical_package_id").write_text(f"{socket}\n")
            (folder / "core_id").write_text(f"{core}\n")
        return tmp_path

    return make


def test_one_executor_is_left_as_it_is(machine):
    assert share_cores(1, 0, machine(range(8), 8)) == [Cores(0)]
    assert share_cores(1, 3, machine(range(8), 8)) == [Cores(3)]


def test_each_gets_cpus_of_its_own(machine):
    assert share_cores(2, 0, machine({4, 5, 6, 7, 8}, 5)) == [Cores(2, (4, 5)), Cores(3, (6, 7, 8))]


def test_the_two_threads_of_a_core_stay_together(machine):
    places = {0: (0, 0), 1: (0, 1), 2: (0, 0), 3: (0, 1)}
    assert share_cores(2, 0, machine(range(4), 4, places)) == [Cores(2, (0, 2)), Cores(2, (1, 3))]


def test_sockets_are_not_mixed(machine):
    places = {0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (1, 1)}
    assert share_cores(2, 4, machine(range(4), 4, places)) == [Cores(2, (0, 2)), Cores(2, (1, 3))]


@pytest.mark.parametrize(("threads", "usable"), [(0, 2), (2, 8)])
def test_where_others_have_cpus_too_nobody_is_bound(machine, threads, usable):
    assert share_cores(2, threads, machine(range(8), usable)) == [Cores(1), Cores(1)]


def test_more_executors_than_cpus_have_a_thread_each(machine):
    assert share_cores(3, 0, machine(range(2), 2)) == [Cores(1)] * 3


@pytest.mark.parametrize(("usable", "executors"), [(1, 1), (2, 2), (8, 2), (12, 3), (64, 16)])
def test_auto_takes_two_executors_and_more_only_of_four_cores_each(machine, usable, executors):
    machine(range(usable), usable)
    assert auto_executors() == executors
    assert auto_executors(1) == 1
