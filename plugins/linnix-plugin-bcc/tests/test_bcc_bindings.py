"""The bindings are the distribution's, or they are not used."""

import sys

import pytest

from linnix_core import PluginUnavailable
from linnix_plugin_bcc import bindings
from linnix_plugin_bcc.bindings import load_bcc


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The only folder in which packages are found."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(bindings, "SYSTEM_PACKAGES", tmp_path / "system")
    yield folder
    sys.modules.pop("bcc", None)


def put(folder, name, text=""):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def missing():
    with pytest.raises(PluginUnavailable) as caught:
        load_bcc()
    return str(caught.value), caught.value.hint


def test_where_there_are_none_the_package_is_named(packages):
    said, hint = missing()
    assert said.endswith("are not installed")
    assert hint.startswith("apt install python3-bpfcc")


def test_where_they_are_hidden_the_venv_is_named(packages, tmp_path):
    (tmp_path / "system/bcc").mkdir(parents=True)
    said, hint = missing()
    assert "does not see" in said
    assert "--system-site-packages" in hint
    assert "apt" not in hint


def test_another_package_of_the_name_is_never_run(packages):
    put(packages, "bcc/__init__.py", "raise SystemExit('run')")
    said, hint = missing()
    assert "is not the BPF Compiler Collection" in said
    assert hint == "pip uninstall bcc, then apt install python3-bpfcc"


@pytest.mark.parametrize(
    ("installer", "trusted"), [("pip", False), ("uv", False), ("rpm", True), (None, True)]
)
def test_who_installed_them_matters(packages, installer, trusted):
    put(packages, "bcc/__init__.py", "BPF = 'the real one'")
    put(packages, "bcc/libbcc.py")
    put(packages, "bcc-0.26.0.dist-info/METADATA", "Name: bcc\nVersion: 0.26.0\n")
    if installer:
        put(packages, "bcc-0.26.0.dist-info/INSTALLER", f"{installer}\n")
    if trusted:
        assert load_bcc().BPF == "the real one"
    else:
        said, _ = missing()
        assert f"installed by {installer}" in said


def test_without_metadata_the_files_decide(packages):
    put(packages, "bcc/__init__.py", "BPF = 'the real one'")
    put(packages, "bcc/libbcc.py")
    assert load_bcc().BPF == "the real one"


def test_without_the_library_the_packages_are_named(packages):
    put(packages, "bcc/__init__.py", "raise OSError('libbcc.so.0: cannot open shared object file')")
    put(packages, "bcc/libbcc.py")
    said, hint = missing()
    assert "libbcc.so.0" in said
    assert hint.startswith("apt install")
    assert "libbpfcc" in hint
