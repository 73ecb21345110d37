"""A host made of records, and a handler that reads them."""

import itertools

import pytest

from linnix_core import CgroupSample, Pressure, ProcessEvent, ProcessSample, SystemSample
from linnix_plugin_attribution import AttributionConfig, AttributionHandler

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS


class Host:
    """Groups and processes; ``pass_time`` gives the records of an interval, in their order."""

    def __init__(self):
        self.now_ns = BEGAN_NS
        self.groups = {}
        self._pids = itertools.count(1000)
        self._happened = []

    def group(self, path, labels=None, **known):
        """Add a group, or change what is constant about it."""
        state = self.groups.setdefault(path, {"cpu": 0, "memory": 0, "io": 0, "made": True})
        state["labels"] = labels
        state["known"] = {"psi": ("cpu", "memory", "io"), "cpu_percent": 0.0, **known}
        return state

    def remove(self, path):
        del self.groups[path]

    def fork(self, path, times=1):
        self._happened += [
            ProcessEvent("fork", pid=next(self._pids), start_ns=0, cgroup=path)
            for _ in range(times)
        ]

    def exit(self, path, times=1, *, duration_ns=SECOND_NS // 10):
        self._happened += [
            ProcessEvent(
                "exit", pid=next(self._pids), start_ns=0, cgroup=path, duration_ns=duration_ns
            )
            for _ in range(times)
        ]

    def process(self, path, cpu_percent=None, *, seconds=15, **used):
        self._happened.append(
            ProcessSample(
                next(self._pids),
                0,
                int(seconds * SECOND_NS),
                cpu_percent=cpu_percent,
                cgroup=path,
                **used,
            )
        )

    def pass_time(self, seconds=15, stalls=None, io=None, memory=None):
        """An interval in which these groups waited for so many microseconds."""
        began_ns, self.now_ns = self.now_ns, self.now_ns + int(seconds * SECOND_NS)
        happened, self._happened = self._happened, []
        for record in happened:
            record.ts_ns = (began_ns + self.now_ns) // 2
        for resource, waits in (("cpu", stalls), ("io", io), ("memory", memory)):
            for path, wait_us in (waits or {}).items():
                self.groups[path][resource] += wait_us
        return [*happened, *(self._sample(path, seconds) for path in self.groups)]

    def first_look(self):
        """The records that the next interval is compared with; what happens then is kept."""
        happened, self._happened = self._happened, []
        records = self.pass_time()
        self._happened = happened
        return records

    def settle(self):
        """What shows that a round is over."""
        return [SystemSample(SECOND_NS, ts_ns=self.now_ns + SECOND_NS)]

    def _sample(self, path, seconds):
        state = self.groups[path]
        known = dict(state["known"])
        measured = known.pop("psi")
        made, state["made"] = state["made"], False
        if made:
            known["cpu_percent"] = None
        return CgroupSample(
            path,
            0 if made else int(seconds * SECOND_NS),
            labels=state["labels"],
            ts_ns=self.now_ns,
            **{f"psi_{name}": Pressure(0.0, state[name]) for name in measured},
            **known,
        )


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def make_handler(linnix_context):
    def make(**options):
        parts = {key: options.pop(key) for key in ("processes",) if key in options}
        context = linnix_context("handlers.attribution", **parts)
        return AttributionHandler(AttributionConfig(**options), context)

    return make


@pytest.fixture
def handler(make_handler):
    return make_handler()


def _induced(handler, resource=""):
    """Whole microseconds of each pair's counter, by the names in its labels."""
    name = f"linnix_{resource}stall_induced_seconds_total"
    return {
        (_name(metric.labels, "offender"), _name(metric.labels, "victim")): round(
            metric.value * 1e6
        )
        for metric in handler.linnix_metrics()
        if metric.name == name
    }


def _name(labels, side):
    if f"{side}_pod" in labels:
        return f"{labels[f'{side}_namespace']}/{labels[f'{side}_pod']}"
    return labels[side]


def _pressure(handler):
    return {
        _name(metric.labels, "victim"): metric.value
        for metric in handler.linnix_metrics()
        if metric.name == "linnix_pod_psi_pressure_total"
    }


@pytest.fixture(scope="session")
def induced():
    return _induced


@pytest.fixture(scope="session")
def pressure():
    return _pressure
