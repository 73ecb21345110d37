"""What is skipped has failed where CI=true, however it was skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "test_some.py": """
import pytest

@pytest.fixture
def dog():
    pytest.skip("needs a dog")

def test_by_its_fixture(dog):
    pass

@pytest.mark.skipif(True, reason="needs a dog")
def test_by_a_mark():
    pass

@pytest.mark.xfail
def test_that_is_expected_to_fail():
    assert 0

def test_that_passes():
    pass
""",
    "test_whole_file.py": """
import pytest

pytest.importorskip("no_such_dog", reason="needs a dog")
""",
}


@pytest.fixture
def run(tmp_path):
    """Run those tests below the repository's conftest.py; the exit code and what was said."""
    conftest = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())

    def run(*options, ci, files=TESTS):
        for name in files:
            (tmp_path / name).write_text(TESTS[name])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["here", "by a worker"])
def test_what_is_skipped_fails_in_ci_and_is_named_with_the_reason(run, options):
    code, said = run(*options, ci="true")
    assert code == 1
    assert "1 passed, 3 skipped, 1 xfailed" in said
    told = [line for line in said.splitlines() if line.startswith("skipped in CI")]
    assert sorted(told) == [
        f"skipped in CI, which counts as failed: {each}"
        for each in (
            "test_some.py::test_by_a_mark: Skipped: needs a dog",
            "test_some.py::test_by_its_fixture: Skipped: needs a dog",
            "test_whole_file.py: Skipped: needs a dog",
        )
    ]


def test_elsewhere_a_skip_is_no_failure(run):
    code, said = run(ci="", files=["test_some.py"])
    assert (code, "counts as failed" in said) == (0, False)
