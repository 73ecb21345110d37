"""``linnix anomaly score``: the same folder as the benchmark's, and what is no such folder."""

import json
import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from linnix_core import LinnixError
from linnix_plugin_anomaly.commands import command

START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(i):
    return (START + timedelta(minutes=5 * i)).strftime("%Y-%m-%d %H:%M:%S")


def write(folder, name, values):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    rows = (f"{moment(i)},{value}" for i, value in enumerate(values))
    path.write_text("\n".join(["timestamp,value", *rows]) + "\n")


def label(folder, windows):
    (folder / "windows.json").write_text(json.dumps(windows))


@pytest.fixture
def folder(tmp_path):
    """Two series with a day and a night: one with two windows, one with none."""
    generator = random.Random(9)
    values = [
        50 + 30 * math.sin(i / 288 * 2 * math.pi) + generator.gauss(0, 1) for i in range(2000)
    ]
    write(tmp_path, "quiet/a.csv", values)
    values[1000], values[1600] = 200.0, -100.0
    write(tmp_path, "loud/b.csv", values)
    windows = [[f"{moment(at)}.000000", f"{moment(at + 50)}.000000"] for at in (980, 1580)]
    label(tmp_path, {"quiet/a.csv": [], "loud/b.csv": windows})
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(command, ["score", *map(str, arguments)], catch_exceptions=False)


def refused(folder):
    with pytest.raises(LinnixError) as caught:
        run(folder, "--json")
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_json_has_the_profiles_of_both_and_the_cost(folder):
    report = json.loads(run(folder, "--json").stdout)
    profiles = {"standard", "low_fp", "low_fn"}
    assert report.keys() == profiles | {"windowed_gaussian", "microseconds_per_point"}
    assert report["windowed_gaussian"].keys() == profiles
    # Both windows are found, well before their middle.
    assert 90 < report["standard"] <= 100
    assert report["microseconds_per_point"] > 0


def test_people_get_a_table(folder):
    shown = run(folder).stdout
    assert "windowed Gaussian" in shown
    assert "2 series, 4000 points" in shown


def test_scores_come_out_the_same_each_time(folder):
    first, second = (json.loads(run(folder, "--json").stdout) for _ in range(2))
    del first["microseconds_per_point"], second["microseconds_per_point"]
    assert first == second


def test_a_series_that_is_not_there_is_named_and_left_out(folder):
    windows = json.loads((folder / "windows.json").read_text())
    label(folder, windows | {"gone/c\x1b.csv": []})
    result = run(folder, "--json")
    assert result.stderr == "not there: gone/c\\x1b.csv\n"
    assert json.loads(result.stdout)["standard"] > 90


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "a.csv:1: expected the columns"),
        ("when,what\n", "a.csv:1: expected the columns"),
        ("timestamp,value\n", "has no points"),
        ("timestamp,value\n2026-01-01 00:00:00\n", "a.csv:2: no timestamp and value"),
        ("timestamp,value\nyesterday,1\n", "a.csv:2: no timestamp and value: yesterday,1"),
        ("timestamp,value\n2026-01-01 00:00:00,nan\n", "a.csv:2: no timestamp and value"),
        ("timestamp,value\n2026-01-01 00:00:00,1e999\n", "a.csv:2: no timestamp and value"),
        ("timestamp,value\n2026-01-01 00:00:00,\x1b[2J\n", "\\x1b[2J"),
        ("timestamp,value\n" + "9" * 200_000, "a.csv"),
    ],
    ids=range(9),
)
def test_a_file_that_is_no_series_is_named_with_the_line(folder, content, complaint):
    (folder / "quiet/a.csv").write_text(content)
    assert complaint in refused(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "quiet/a.csv").write_bytes(b"\xff\xfe\x00")
    assert "is not text" in refused(folder)


@pytest.mark.parametrize(
    ("windows", "complaint"),
    [
        ([], "has to map"),
        ({}, "has to map"),
        ({"../secret.csv": []}, "outside of the folder"),
        ({"/etc/passwd": []}, "outside of the folder"),
        ({"gone.csv": []}, "none of the series"),
        ({"loud/b.csv": {}}, "needs a list of windows"),
        ({"loud/b.csv": [["2026-01-01"]]}, "windows of two timestamps"),
        ({"loud/b.csv": [[1, 2]]}, "windows of two timestamps"),
        ({"loud/b.csv": [["2027-01-01", "2027-01-02"]]}, "no point of loud/b.csv lies in"),
        ({"loud/b.csv": [[moment(9), moment(20)], [moment(20), moment(30)]]}, "overlap"),
        ({"loud/b.csv": []}, "no labelled window"),
    ],
    ids=range(11),
)
def test_labels_that_are_none_are_refused(folder, windows, complaint):
    label(folder, windows)
    assert complaint in refused(folder)


def test_labels_that_are_no_json_are_refused(folder):
    (folder / "windows.json").write_text("{")
    assert "is not JSON" in refused(folder)


def test_a_folder_without_labels_is_refused(tmp_path):
    assert "cannot read" in refused(tmp_path)
