"""What is configured has an effect, and what cannot be seen is said."""

import errno
import os

import attrs
import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_psi import PsiCollector, PsiConfig


@pytest.fixture
def services(machine):
    """Version 2 with a few groups in it."""
    machine.offer_pressure()
    root = machine.mount("cgroup2", controllers="cpu memory")
    for path in ("system.slice", "system.slice/ssh.service", "user.slice", "user.slice/a\nb"):
        machine.write(root / path / "cpu.stat", "usage_usec 0\n")
    machine.root = root
    return machine


def paths(collector):
    return sorted(sample.cgroup for sample in collector.linnix_poll())


def limits(collector):
    return "\n".join(collector.linnix_health().limits)


# --- keys -----------------------------------------------------------------------------------


def test_without_configuration_every_group_is_sampled(services, make_collector):
    assert paths(make_collector(services.proc)) == [
        "/",
        "/system.slice",
        "/system.slice/ssh.service",
        "/user.slice",
        "/user.slice/a\nb",
    ]


def test_include_samples_only_what_it_names(services, make_collector):
    collector = make_collector(services.proc, include=["/system.slice/*", "/user.slice"])
    assert paths(collector) == ["/system.slice/ssh.service", "/user.slice"]


def test_exclude_leaves_out_what_it_names(services, make_collector):
    collector = make_collector(services.proc, exclude=["/user.slice*", "/"])
    assert paths(collector) == ["/system.slice", "/system.slice/ssh.service"]


def test_exclude_goes_before_include(services, make_collector):
    collector = make_collector(services.proc, include=["/user.slice*"], exclude=["*b"])
    assert paths(collector) == ["/user.slice"]


def test_max_groups_bounds_the_samples_and_the_limits_tell(services, make_collector):
    collector = make_collector(services.proc, max_groups=3)
    assert paths(collector) == ["/", "/system.slice", "/user.slice"]
    assert "2 or more groups are not sampled: max_groups is 3" in limits(collector)


def test_groups_that_are_excluded_do_not_count_as_left_out(services, make_collector):
    collector = make_collector(services.proc, max_groups=3, exclude=["/*/*"])
    assert len(paths(collector)) == 3
    assert limits(collector) == ""


@pytest.mark.parametrize("value", [0, -1])
def test_max_groups_is_at_least_one(value):
    with pytest.raises(ValueError, match="max_groups must be at least 1"):
        PsiConfig(max_groups=value)


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_pattern_that_can_match_nothing_is_a_mistake(key):
    with pytest.raises(ValueError, match=f"{key}: 'user.slice' matches no path"):
        PsiConfig(**{key: ["/a", "user.slice"]})


def test_every_key_explains_itself():
    assert all(field.metadata.get("help") for field in attrs.fields(PsiConfig))


# --- limits ---------------------------------------------------------------------------------


def test_where_everything_can_be_read_there_are_no_limits(services, make_collector):
    assert make_collector(services.proc).linnix_health().limits == ()


def test_a_kernel_without_pressure_is_a_limit(machine, make_collector):
    machine.mount("cgroup2", controllers="cpu memory")
    assert "this kernel offers no pressure" in limits(make_collector(machine.proc))


def test_pressure_that_is_turned_off_is_a_limit(services, make_collector, monkeypatch):
    # As kernels before 5.6 do with psi=0: the files are there, and reading them fails so.
    read_bytes = type(services.proc).read_bytes

    def fails(path):
        if path.parent.name == "pressure":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return read_bytes(path)

    monkeypatch.setattr(type(services.proc), "read_bytes", fails)
    assert "pressure is turned off" in limits(make_collector(services.proc))


def test_pressure_that_cannot_be_read_is_a_limit(services, make_collector):
    (services.proc / "pressure" / "cpu").unlink()
    (services.proc / "pressure" / "cpu").mkdir()
    assert "pressure cannot be read" in limits(make_collector(services.proc))


def test_version_1_alone_hides_the_pressure_of_groups(machine, make_collector):
    machine.offer_pressure()
    for controllers in ("cpu,cpuacct", "memory"):
        machine.mount("cgroup", f"rw,{controllers}")
    assert limits(make_collector(machine.proc)) == (
        "the pressure of single groups is not known: cgroup version 2 is not mounted"
    )


def test_every_controller_that_is_missing_is_a_limit(machine, make_collector):
    machine.offer_pressure()
    said = limits(make_collector(machine.proc))
    assert "the CPU use of groups is not known" in said
    assert "throttling is not known" in said
    assert "the memory of groups is not known" in said


def test_version_2_counts_cpu_without_a_controller(machine, make_collector):
    machine.offer_pressure()
    machine.mount("cgroup2")
    assert "CPU use" not in limits(make_collector(machine.proc))


def test_a_namespace_is_a_limit(services, make_collector):
    services.write(services.proc / "self/ns/cgroup", "")
    services.mount("cgroup2", root="/..")
    said = limits(make_collector(services.proc))
    assert "groups outside of this cgroup namespace are not seen, and / is its root" in said
    assert "mounts from outside of this cgroup namespace are not read: 1" in said


def test_folders_that_cannot_be_opened_are_a_limit(services, make_collector):
    collector = make_collector(services.proc)
    # No path is longer than 4096 bytes, but a tree can be deeper.
    descriptor = os.open(services.root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=descriptor)
        deeper = os.open("x" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    assert len(paths(collector)) == 5
    assert "could not be opened in the last poll: 1" in limits(collector)


# --- unavailable ----------------------------------------------------------------------------


def test_without_cgroups_and_pressure_it_is_unavailable(machine, make_collector):
    with pytest.raises(PluginUnavailable, match="no cgroup hierarchy can be read") as raised:
        make_collector(machine.proc)
    assert "mount -t cgroup2" in raised.value.hint


def test_in_a_namespace_without_cgroups_it_is_unavailable(machine, make_collector):
    machine.offer_pressure()
    machine.write(machine.proc / "self/ns/cgroup", "")
    with pytest.raises(PluginUnavailable) as raised:
        make_collector(machine.proc)
    assert "cgroup namespace of the machine" in raised.value.hint


def test_in_a_chroot_that_shows_no_mounts_it_is_unavailable(machine, make_collector):
    (machine.proc / "self/mountinfo").write_text("")
    with pytest.raises(PluginUnavailable, match="no cgroup hierarchy can be read"):
        make_collector(machine.proc)


def test_without_proc_it_is_unavailable(tmp_path, make_collector):
    with pytest.raises(PluginUnavailable, match="not known where cgroups are mounted") as raised:
        make_collector(tmp_path)
    assert raised.value.hint


def test_before_it_is_started_there_is_nothing_to_poll(linnix_context):
    collector = PsiCollector(PsiConfig(), linnix_context("collectors.psi"))
    assert list(collector.linnix_poll()) == []
    assert collector.linnix_health().limits == ()
