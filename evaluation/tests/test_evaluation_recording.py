"""A program is run, recorded by the real agent, and found again in the recording."""

import os
import shutil
from pathlib import Path

import pytest

from evaluation.cases import Case, Family, Plan
from evaluation.judging import judge
from evaluation.recorder import record
from evaluation.recordings import recordings, replay

TURNS = 600

#: By cgroup, as anything may go on beside the test.
RULES = """
- {name: storm, detector: fork_burst, scope: cgroup, threshold: 300, window_seconds: 5}
"""


def may_record():
    group = Path("/sys/fs/cgroup")
    return os.geteuid() == 0 and any(
        os.access(folder, os.W_OK) and (folder / "cgroup.procs").exists()
        for folder in (group / "memory", group)
    )


@pytest.mark.skipif(not may_record(), reason="recording needs root and cgroups")
@pytest.mark.skipif(shutil.which("bash") is None, reason="the program is a loop of bash")
def test_a_storm_is_recorded_and_told(tmp_path):
    loop = f"for n in $(seq {TURNS}); do (:); done; echo '{{\"count\": {TURNS}}}'; sleep 1"
    family = Family("loop", "fork_storm", "development", lambda draw: Plan(("bash",), 1))
    case = Case(family, 1, Plan(("bash", "-c", loop), 20, least=50), {})
    folder = record([[case]], tmp_path, "one", lead_s=0.5)

    (recording,) = recordings(tmp_path)
    assert recording.folder == folder
    (truth,) = recording.truth["cases"]
    assert truth["happened"], truth
    assert truth["counted"] == TURNS
    assert truth["host"]["forks"] >= TURNS

    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    played = replay(recording, [rules, None])
    assert played.lost == 0
    assert played.events >= 2 * TURNS
    (outcome,) = judge("one", recording.truth, played.alerts[0]).outcomes
    assert outcome.detected_s is not None, played.alerts[0]
    assert outcome.offender, outcome
    assert replay(recording, [rules, None]).alerts == played.alerts
    assert not any((tmp_path / "work").iterdir())
