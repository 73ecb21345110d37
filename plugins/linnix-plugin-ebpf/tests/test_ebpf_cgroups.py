"""The cgroup of a process is the one that /proc/PID/cgroup shows, whatever it is called."""

import os

import pytest

from linnix_plugin_ebpf import cgroups
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.wire import CGROUP_V1
from linnix_plugin_psutil import cgroup_path


@pytest.fixture(params=[1, 2], ids=["version 1", "version 2"])
def version(request):
    return request.param


@pytest.fixture
def told(start):
    """What an exec in a group says of the group, which is what /proc shows."""

    def look(seen, group):
        child = start(*group.inside("cat"))
        exec_ = seen.event("exec", pid=child.pid, comm="cat")
        with open(f"/proc/{child.pid}/cgroup", "rb") as file:
            assert exec_.cgroup == cgroup_path(file.read().decode("utf-8", "backslashreplace"))
        child.stdin.close()
        child.wait()
        assert seen.event("exit", pid=child.pid).cgroup == exec_.cgroup
        return exec_.cgroup

    return look


def test_a_group_made_after_the_start(seen, told, make_group, version):
    group = make_group(version)
    assert told(seen, group) == group.path


def test_a_group_made_before_the_start(start_collector, told, make_group, version):
    group = make_group(version)
    seen = start_collector().begin()
    assert told(seen, group) == group.path


@pytest.mark.parametrize("controller", ["memory", "cpu"])
def test_whoever_tells_it_a_process_is_in_one_group(start_collector, start, make_group, controller):
    """Of several hierarchies of version 1 the same one names it, before and after the start."""
    child = start(*make_group(controller=controller).inside("cat"))
    seen = start_collector(sample_interval=0.05).begin()
    told = seen.event("seen", pid=child.pid).cgroup
    assert told is not None
    assert seen.wait(lambda: seen.samples(child.pid))[0].cgroup == told
    child.stdin.close()
    child.wait()
    assert seen.event("exit", pid=child.pid).cgroup == told


def test_a_group_within_another(seen, told, make_group, version):
    inner = make_group(name="inner", inside=make_group(version))
    assert told(seen, inner) == inner.path
    assert inner.path.endswith("/inner")


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "a:b,c=d",
        "\x1b[2J\x1b]0;title\x07",
        "back\\040slash",
        "\u202eevil\u2028",
        os.fsdecode(b"\xff\xfe"),
        "n" * 255,
        " (deleted)",
    ],
)
def test_any_name_before_and_after_the_start(seen, start_collector, told, make_group, name):
    group = make_group(name=name)
    assert told(seen, group) == group.path
    assert told(start_collector().begin(), group) == group.path


def test_a_group_that_is_renamed(seen, told, make_group, has_v1):
    outer = make_group(1)
    group = make_group(name="before", inside=outer)
    assert told(seen, group) == f"{outer.path}/before"
    if not has_v1:
        with pytest.raises(PermissionError):
            group.rename("after")
        return
    group.rename("after")
    assert told(seen, group) == f"{outer.path}/after"


def test_a_group_within_one_that_is_renamed(seen, told, make_group, has_v1):
    outer = make_group(1)
    inner = make_group(name="inner", inside=outer)
    assert told(seen, inner) == f"{outer.path}/inner"
    if not has_v1:
        with pytest.raises(PermissionError):
            outer.rename(f"{outer.folder.name}-renamed")
        return
    outer.rename(f"{outer.folder.name}-renamed")
    inner.folder = outer.folder / "inner"
    assert told(seen, inner) == f"{outer.path}/inner"
    assert inner.path.endswith("-renamed/inner")


def test_a_process_that_moves_is_told_of_where_it_is(seen, start, make_group):
    first, second = make_group(), make_group()
    script = 'cd "$1" && echo $$ > cgroup.procs && cd "$2" && echo $$ > cgroup.procs && exec cat'
    child = start("sh", "-c", script, "sh", first.folder, second.folder)
    assert seen.event("exec", pid=child.pid, comm="cat").cgroup == second.path


def test_a_child_that_is_forked_into_a_group_belongs_there(seen, finish_python, make_group):
    script = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
if os.fork() == 0:
    os._exit(0)
os.wait()
"""
    group = make_group()
    parent = finish_python(script, str(group.folder))
    assert seen.event("fork", ppid=parent.pid).cgroup == group.path


# --- what is read of the mounts -----------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """The paths of groups on a machine with these mounts and hierarchies."""

    def make(mountinfo, own="", controllers=None, **options):
        (tmp_path / "mountinfo").write_text(mountinfo)
        (tmp_path / "own").write_text(own)
        return CgroupPaths(
            controllers or {},
            mountinfo=str(tmp_path / "mountinfo"),
            own=str(tmp_path / "own"),
            **options,
        )

    return make


def mount(folder, root="/", kind="cgroup2", options="rw", device=None):
    name = str(folder).replace(" ", "\\040")
    if device is None:
        found = folder.stat().st_dev
        device = f"{os.major(found)}:{os.minor(found)}"
    return f"36 32 {device} {root} {name} rw shared:9 - {kind} none {options}\n"


def inode(folder):
    return folder.stat().st_ino


def test_groups_are_found_below_where_they_are_mounted(machine, tmp_path):
    top = tmp_path / "a folder"
    (top / "a" / "b").mkdir(parents=True)
    (top / "file").touch()
    (top / "link").symlink_to(top / "a")
    paths = machine(mount(top))
    assert paths.paths == {
        inode(top): "/",
        inode(top / "a"): "/a",
        inode(top / "a" / "b"): "/a/b",
    }


def test_a_mounted_part_keeps_its_place_in_the_whole(machine, tmp_path):
    (tmp_path / "c").mkdir()
    paths = machine(mount(tmp_path, root="/docker/1"))
    assert paths.find(inode(tmp_path / "c")) == "/docker/1/c"


def test_the_whole_goes_before_a_part_of_it_that_is_mounted_elsewhere(machine, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    (whole / "x").mkdir(parents=True)
    part.mkdir()
    for lines in (mount(whole) + mount(part, root="/x"), mount(part, root="/x") + mount(whole)):
        assert machine(lines).find(inode(whole / "x")) == "/x"


def test_what_is_hidden_by_another_mount_or_outside_of_the_namespace_is_not_read(machine, tmp_path):
    (tmp_path / "x").mkdir()
    for line in (mount(tmp_path, device="0:0"), mount(tmp_path, root="/../..")):
        assert machine(line).paths == {}


def test_in_a_cgroup_namespace_paths_are_those_of_the_namespace(machine, tmp_path):
    """What the kernel tells begins at the host's root."""
    paths = machine(mount(tmp_path), of_the_host=False)
    group = tmp_path / "made later"
    group.mkdir()
    number = inode(group)
    paths.add(number, b"/docker/7/made later")
    assert paths.find(number) == "/made later"
    group.rename(tmp_path / "renamed")
    paths.add(number, b"/docker/7/renamed")
    assert paths.find(number) == "/renamed"
    paths.add(1 << 40, b"/docker/8")
    assert paths.find(1 << 40) is None


def test_of_version_1_the_first_controller_that_is_mounted_names_the_groups(machine, tmp_path):
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    for folder in (memory, pids):
        (folder / "job").mkdir(parents=True)
    paths = machine(
        mount(memory, kind="cgroup", options="rw,memory")
        + mount(pids, kind="cgroup", options="rw,pids"),
        own="5:pids:/\n4:memory:/\n0::/\n",
        controllers={"memory": 4, "pids": 8},
    )
    assert (paths.subsystem, paths.hierarchy) == (4, 4)
    assert paths.find(inode(memory / "job") | CGROUP_V1) == "/job"
    assert paths.find(inode(pids / "job") | CGROUP_V1) is None


def test_without_cgroups_no_group_is_known(machine):
    paths = machine("")
    assert (paths.subsystem, paths.hierarchy, paths.find(7)) == (None, -1, None)


def test_a_group_that_nobody_told_is_looked_for_now_and_then(machine, monkeypatch, tmp_path):
    paths = machine(mount(tmp_path))
    (tmp_path / "late").mkdir()
    assert paths.find(inode(tmp_path / "late")) is None
    monkeypatch.setattr(cgroups, "WALK_EVERY_S", 0.0)
    assert paths.find(inode(tmp_path / "late")) == "/late"


def test_the_number_of_paths_is_bounded(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups, "MAX_PATHS", 8)
    for name in range(50):
        (tmp_path / f"g{name}").mkdir()
    paths = machine(mount(tmp_path))
    assert 1 <= len(paths.paths) <= 8
    for number in range(100, 200):
        paths.add(number, b"/new")
        assert paths.find(number) == "/new"
        assert len(paths.paths) <= 8
