"""What is installed is what `importlib.metadata` says is installed."""

from __future__ import annotations

import email
import shutil
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from linnix_core import catalog
from linnix_core.distributions import Distribution, distributions
from linnix_core.testing.distributions import write_distribution

FILES = ("METADATA", "PKG-INFO", "entry_points.txt", "RECORD")


def ours(path):
    found = distributions(path)
    return sorted((d.folder, *(d.read_text(name) or "" for name in FILES)) for d in found)


def theirs(path):
    found = metadata.distributions(path=path)
    return sorted((d._path.name, *(d.read_text(name) or "" for name in FILES)) for d in found)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return target


@pytest.fixture
def layouts(tmp_path) -> dict[str, Path]:
    """One folder or file of each kind that may be on the path."""
    points = {"linnix.commands": {"fake": "m:c"}}
    wheel = write_distribution(tmp_path / "wheel", "in-wheel", entry_points=points)
    infos = write_distribution(tmp_path / "infos", "in-folder", entry_points=points)
    write_distribution(infos, "other")
    (infos / "upper-1.DIST-INFO").mkdir()
    (infos / "a_file-1.egg-info").write_text("Name: a-file\n")
    eggs = tmp_path / "eggs"
    shutil.copytree(next(wheel.glob("*.dist-info")), eggs / "in_egg_info.egg-info")
    shutil.copytree(next(wheel.glob("*.dist-info")), tmp_path / "in.egg" / "EGG-INFO")
    (infos / "windows-1.dist-info").mkdir()
    (infos / "windows-1.dist-info" / "METADATA").write_bytes(b"Name: w\r\nVersion: 1\r\r\n")
    return {
        "infos": infos,
        "eggs": eggs,
        "an egg": tmp_path / "in.egg",
        "a zip file": zipped(wheel, tmp_path / "wheel.zip"),
        "nothing": tmp_path / "nowhere",
        "a broken zip file": infos / "a_file-1.egg-info",
        "within a zip file": tmp_path / "wheel.zip" / "inside",
        "a link": (tmp_path / "link"),
    }


@pytest.fixture
def path(layouts) -> list[str]:
    layouts["a link"].symlink_to(layouts["infos"])
    return [str(folder) for folder in layouts.values()]


def test_every_kind_of_folder_is_searched_as_the_library_does(path):
    assert ours(path) == theirs(path)
    assert ours(path[::-1]) == theirs(path[::-1])
    assert len(ours(path)) > len(path)
    for entry in path:
        assert ours([entry]) == theirs([entry]), entry


def test_the_real_path_is_searched_by_default():
    core = metadata.distribution("linnix-core")
    found = [(d.folder, d.read_text("METADATA")) for d in distributions()]
    assert (core._path.name, core.read_text("METADATA")) in found


def test_the_current_folder_is_searched_where_the_path_says_so(layouts, monkeypatch):
    monkeypatch.chdir(layouts["infos"])
    assert ours([""]) == theirs([""]) == ours([str(layouts["infos"])])


def test_what_is_no_string_on_the_path_is_passed_over_as_imports_do(layouts):
    assert ours([layouts["infos"], b"/", None]) == []


def test_other_finders_are_asked_as_well(path, monkeypatch):
    class Finder:
        @staticmethod
        def find_distributions(context):
            return [metadata.PathDistribution(Path(entry) / "x") for entry in context.path]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert ours(path) == theirs(path)
    monkeypatch.setattr(sys, "meta_path", [Finder])
    assert ours(path) == theirs(path)
    assert [folder for folder, *_ in ours(path)] == ["x"] * len(path)


def test_fields_and_entry_points_of_all_that_is_installed_read_as_the_library_reads_them():
    for found in distributions():
        text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
        message = email.message_from_string(text)
        if message["Name"]:
            described = catalog._described(Distribution(found.folder, {"METADATA": text}.get))
            for field in ("Name", "Version", "Summary", "Requires-Dist", "Requires-Python"):
                assert described.get(field.lower(), []) == (message.get_all(field) or []), found
        offered = found.read_text("entry_points.txt") or ""
        assert catalog._entry_points(offered) == by_library(offered)


def by_library(offered):
    return [(e.group, e.name, e.value) for e in metadata.EntryPoints._from_text(offered)]


@pytest.mark.parametrize(
    "offered",
    [
        "", "[a]", "[a]\nx=y", "[a]\n x = y : z [b] \n\n# no\n;no=1\n[[b]]\n=\nx==",
        "x\n[a]\nx = y", "[]\nx=y", "[a]\r\nx = y\r\n", "[a\nx=y", "[a]\nx = y\x0cz = w",
    ],
)  # fmt: skip
def test_entry_points_are_read_as_the_library_reads_them(offered):
    assert catalog._entry_points(offered) == by_library(offered)
