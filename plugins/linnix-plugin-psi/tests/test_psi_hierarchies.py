"""Cgroups are found where they are mounted, whatever the mounts are called."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_psi.hierarchies import Hierarchy, find_hierarchies


def found(machine):
    return find_hierarchies(machine.proc)[0]


def test_version_2_alone_has_all_controllers(machine):
    folder = machine.mount("cgroup2", "rw,nsdelegate", controllers="cpuset cpu io memory pids")
    (only,) = found(machine)
    assert (only.version, only.folder) == (2, os.fsencode(folder))
    assert {"cpu", "memory"} <= only.controllers


def test_controllers_of_version_1_may_share_a_mount(machine):
    machine.mount("cgroup", "rw,cpu,cpuacct")
    machine.mount("cgroup", "rw,memory")
    assert [set(each.controllers) for each in found(machine)] == [{"cpu", "cpuacct"}, {"memory"}]


def test_version_2_comes_first_on_a_mixed_machine(machine):
    machine.mount("cgroup", "rw,cpu")
    machine.mount("cgroup2")
    assert [each.version for each in found(machine)] == [2, 1]


def test_hierarchies_without_anything_to_read_are_left_alone(machine):
    machine.mount("cgroup", "rw,xattr,name=systemd")
    machine.mount("cgroup", "rw,freezer")
    machine.mount("tmpfs", "rw,cpu,memory")
    assert found(machine) == []


def test_a_mount_point_may_hold_blanks_and_line_breaks(machine):
    folder = machine.mount("cgroup", "rw,cpu", at="a b\tc\nd\re\\f")
    assert [each.folder for each in found(machine)] == [os.fsencode(folder)]


def test_what_another_mount_hides_is_not_read(machine):
    machine.mount("cgroup2", at="cgroup", device="0:9999")
    assert found(machine) == []


def test_a_mount_point_that_is_gone_is_not_read(machine):
    machine.mount("cgroup", "rw,cpu").rmdir()
    assert found(machine) == []


def test_of_two_mounts_of_a_hierarchy_the_wider_one_is_read(machine):
    machine.mount("cgroup", "rw,memory", root="/docker/abc")
    wide = machine.mount("cgroup", "rw,memory", at="wide")
    machine.mount("cgroup", "rw,memory", root="/docker/def")
    machine.mount("cgroup2", root="/docker/abc", controllers="cpu")
    machine.mount("cgroup2", at="wide2")
    assert [each.folder for each in found(machine)] == [
        os.fsencode(wide.with_name("wide2")),
        os.fsencode(wide),
    ]


def test_a_mounted_part_of_a_hierarchy_keeps_the_paths_of_the_whole(machine):
    machine.mount("cgroup", "rw,memory", at="part", root=r"/docker/a\040b")
    (part,) = found(machine)
    assert part.root == b"/docker/a b"
    assert part.folder_of(b"/docker/a b") == part.folder
    assert part.folder_of(b"/docker/a b/c") == part.folder + b"/c"


def test_mounts_from_outside_of_the_namespace_are_counted_and_not_read(machine):
    machine.mount("cgroup2", root="/../..")
    machine.mount("cgroup", "rw,cpu", root="/..")
    own = machine.mount("cgroup2", at="own")
    hierarchies, outside = find_hierarchies(machine.proc)
    assert [each.folder for each in hierarchies] == [os.fsencode(own)]
    assert outside == 2


def test_controllers_that_cannot_be_listed_are_tried(machine):
    (machine.mount("cgroup2") / "cgroup.controllers").unlink()
    assert {"cpu", "memory"} <= found(machine)[0].controllers


@given(st.binary(max_size=30).filter(lambda name: b"\0" not in name))
def test_a_path_below_the_root_leads_to_its_folder(name):
    whole = Hierarchy(1, b"/sys/fs/cgroup/cpu", b"", frozenset())
    assert whole.folder_of(b"/" + name) == b"/sys/fs/cgroup/cpu/" + name


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs /proc of Linux")
def test_the_mounts_of_this_machine_can_be_read():
    for each in find_hierarchies(Path("/proc"))[0]:
        assert os.path.isdir(each.folder)
