"""The quota of a control group bounds how many CPUs are used."""

import os

import pytest

from anytime_model.kernels.cpus import usable_cpus

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpus(tmp_path, membership, **files):
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "fs" / name.replace("__", "/").replace("_max", ".max")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return usable_cpus(tmp_path / "cgroup", tmp_path / "fs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("1990000 1000000\n", 1),
        ("max 100000\n", ALL),
    ],
)
def test_whole_cpus_of_the_quota_are_used(tmp_path, text, expected):
    assert cpus(tmp_path, "0::/\n", cpu_max=text) == expected


def test_the_quota_of_a_group_further_up_counts(tmp_path):
    found = cpus(tmp_path, "0::/a/b\n", a__cpu_max="100000 100000", a__b__cpu_max="max 100000")
    assert found == 1


def test_a_container_that_sees_only_its_own_group_finds_the_quota(tmp_path):
    assert cpus(tmp_path, "0::/docker/123\n", cpu_max="100000 100000") == 1


def test_the_first_version_of_control_groups_is_known(tmp_path):
    group = tmp_path / "fs" / "cpu" / "a"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("100000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus(tmp_path, "4:cpu,cpuacct:/a\n3:memory:/b\n") == 1


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert usable_cpus(tmp_path / "none", tmp_path) == ALL
