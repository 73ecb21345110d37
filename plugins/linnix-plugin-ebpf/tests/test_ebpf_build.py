"""How the BPF program gets into a wheel: who compiles it, when, and what is shipped."""

import hashlib
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import hatchling.build
import pytest

PLUGIN = Path(__file__).parents[1]
BPF = "src/linnix_plugin_ebpf/bpf"

# include/uapi/linux/elf-em.h, bpf_common.h and bpf.h
EM_BPF = 247
BPF_JMP32 = 0x06
BPF_ATOMIC = {0xC3, 0xDB}  # of 32 and of 64 bits
BPF_ADD = 0x00

CLANG = shutil.which(os.environ.get("LINNIX_CLANG") or "clang")
#: 90 MB to fetch, so no test requires it; where it is installed, it compiles the real program.
ZIGLANG = importlib.util.find_spec("ziglang") is not None

pytestmark = pytest.mark.skipif(CLANG is None, reason="needs clang (apt install clang)")


def checkout(to):
    """A copy of the plugin with nothing compiled."""
    ignored = shutil.ignore_patterns("linnix.bpf.o*", "__pycache__")
    return Path(shutil.copytree(PLUGIN, to, ignore=ignored))


def wheel(plugin, out, build=hatchling.build.build_wheel):
    """Build as pip does, which calls the backend in the project's folder."""
    here = Path.cwd()
    os.chdir(plugin)
    try:
        return out / build(str(out))
    finally:
        os.chdir(here)


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sections(elf):
    """The content of each section by its name, of a 64-bit little-endian ELF file."""
    assert elf[:6] == b"\x7fELF\x02\x01"
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<I4xQQQQ", elf, table + i * size) for i in range(count)]
    parts = [(name, elf[offset : offset + length]) for name, _, _, offset, length in headers]
    strings = parts[names][1]
    return {strings[name:].split(b"\0")[0].decode(): content for name, content in parts}


def instructions(elf):
    """Operation code and immediate value of each instruction of each program."""
    for name, code in sections(elf).items():
        if name == ".text" or ("/" in name and not name.startswith(".")):
            yield from struct.iter_unpack("<BxxxI", code)


@pytest.fixture
def plugin(tmp_path):
    return checkout(tmp_path / "plugin")


@pytest.fixture
def clang(monkeypatch):
    """Build with clang from here on."""

    def use():
        monkeypatch.setenv("LINNIX_CLANG", CLANG)

    use()
    return use


@pytest.fixture
def hide_compilers(monkeypatch, tmp_path):
    """Build as where there is neither clang nor ziglang from here on."""

    def hide():
        monkeypatch.delenv("LINNIX_CLANG", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "ziglang", None)

    return hide


@pytest.fixture(params=["clang", "ziglang"] if ZIGLANG else ["clang"])
def compiler(request, monkeypatch, tmp_path):
    """Every compiler that is installed here, one at a time, found as it is without a hint."""
    monkeypatch.delenv("LINNIX_CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if request.param == "clang":
        (tmp_path / "clang").symlink_to(CLANG)


# What a wheel holds


def test_a_wheel_holds_the_object_its_hash_and_its_source(compiler, plugin, tmp_path):
    built = wheel(plugin, tmp_path)
    shipped = {
        Path(name).name: content
        for name, content in contents(built).items()
        if name.startswith("linnix_plugin_ebpf/bpf/")
    }
    sources = {path.name for path in (plugin / BPF).glob("*.[ch]")}
    assert set(shipped) == {"linnix.bpf.o", "linnix.bpf.o.sha256"} | sources
    digest = hashlib.sha256(shipped["linnix.bpf.o"]).hexdigest()
    assert shipped["linnix.bpf.o.sha256"] == f"{digest}  linnix.bpf.o\n".encode()


def test_the_object_is_for_bpf_and_can_be_relocated_by_its_btf(compiler, plugin, tmp_path):
    elf = contents(wheel(plugin, tmp_path))["linnix_plugin_ebpf/bpf/linnix.bpf.o"]
    assert struct.unpack_from("<H", elf, 18) == (EM_BPF,)
    held = sections(elf)
    assert {".BTF", ".BTF.ext", ".maps", "license"} <= set(held)
    assert held["license"].startswith(b"Dual MIT/GPL")
    assert held[".BTF"][:2] == b"\x9f\xeb"


def test_kernels_from_5_8_on_know_every_instruction(compiler, plugin, tmp_path):
    """No jumps on half registers and no atomic operation but the addition that returns nothing."""
    wheel(plugin, tmp_path)
    for opcode, immediate in instructions((plugin / BPF / "linnix.bpf.o").read_bytes()):
        assert opcode & 0x07 != BPF_JMP32
        assert opcode not in BPF_ATOMIC or immediate == BPF_ADD


def test_one_wheel_serves_every_platform(clang, plugin, tmp_path):
    assert wheel(plugin, tmp_path).name.endswith("-py3-none-any.whl")


def test_a_wheel_names_the_licenses_of_both_languages(clang, plugin, tmp_path):
    held = {Path(name).name: content for name, content in contents(wheel(plugin, tmp_path)).items()}
    assert b"License-Expression: Apache-2.0 AND (GPL-2.0-only OR MIT)\n" in held["METADATA"]
    assert b"GNU GENERAL PUBLIC LICENSE" in held["GPL-2.0-only.txt"]
    assert b"MIT License" in held["MIT.txt"]


def test_the_same_source_gives_the_same_wheel_wherever_it_lies(compiler, plugin, tmp_path):
    elsewhere = checkout(tmp_path / "another" / "place")
    (tmp_path / "second").mkdir()
    first, second = wheel(plugin, tmp_path), wheel(elsewhere, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_the_object_names_no_folder_of_the_machine_that_built_it(compiler, plugin, tmp_path):
    wheel(plugin, tmp_path)
    held = (plugin / BPF / "linnix.bpf.o").read_bytes()
    for folder in (tmp_path, Path.home(), sys.prefix, "/usr/", "/tmp/"):
        assert os.fsencode(folder) not in held


def test_the_program_compiles_without_a_warning(compiler, plugin, tmp_path, capsys):
    wheel(plugin, tmp_path)
    assert "warning" not in "".join(capsys.readouterr())


# Source distributions and editable installs


def test_a_source_distribution_is_enough_to_build_and_has_no_object(clang, plugin, tmp_path):
    built = wheel(plugin, tmp_path)
    with tarfile.open(wheel(plugin, tmp_path, hatchling.build.build_sdist)) as archive:
        assert not [name for name in archive.getnames() if "linnix.bpf.o" in name]
        # Python 3.11 knows the argument since 3.11.4 only.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = wheel(unpacked, tmp_path / "unpacked")
    assert contents(again) == contents(built)


def test_an_editable_install_leaves_the_object_beside_its_source(clang, plugin, tmp_path):
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    python = fresh / "bin" / "python"
    # hatchling comes from here, so that nothing is fetched.
    environment = os.environ | {"PYTHONPATH": str(Path(hatchling.__file__).parents[1])}
    install = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([python, "-m", "pip", *install, "-e", plugin], env=environment, check=True)
    where = "import importlib.util as u; print(u.find_spec('linnix_plugin_ebpf').origin)"
    found = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    imported = Path(found.stdout.strip()).parent
    assert imported == plugin / "src" / "linnix_plugin_ebpf"
    assert ".maps" in sections((imported / "bpf" / "linnix.bpf.o").read_bytes())
    assert (imported / "bpf" / "linnix.bpf.o.sha256").is_file()


# Who compiles


REQUIREMENTS = {
    "wheel": hatchling.build.get_requires_for_build_wheel,
    "editable": hatchling.build.get_requires_for_build_editable,
}


@pytest.fixture(params=sorted(REQUIREMENTS))
def requirements(request, plugin, monkeypatch):
    """What pip would install before it builds a wheel or installs as editable."""
    monkeypatch.chdir(plugin)
    return REQUIREMENTS[request.param]


def test_with_clang_nothing_else_is_required(clang, requirements):
    assert not [name for name in requirements() if "ziglang" in name]


def test_without_clang_the_build_requires_ziglang(hide_compilers, requirements):
    hide_compilers()
    assert "ziglang>=0.14" in requirements()


def test_a_clang_that_cannot_compile_for_bpf_is_as_good_as_none(
    hide_compilers, requirements, tmp_path
):
    hide_compilers()
    incapable = tmp_path / "clang"  # the PATH is this folder
    incapable.write_text('#!/bin/sh\necho "error: unable to create target" >&2\nexit 1\n')
    incapable.chmod(0o755)
    assert "ziglang>=0.14" in requirements()


def test_a_source_distribution_requires_no_compiler(hide_compilers, plugin, monkeypatch):
    hide_compilers()
    monkeypatch.chdir(plugin)
    assert hatchling.build.get_requires_for_build_sdist() == []


def test_clang_may_be_named_instead_of_found(hide_compilers, requirements, monkeypatch):
    hide_compilers()
    monkeypatch.setenv("LINNIX_CLANG", CLANG)
    assert not [name for name in requirements() if "ziglang" in name]


@pytest.mark.parametrize("named", ["true", "/nowhere/clang"])
def test_a_named_clang_that_cannot_compile_for_bpf_is_an_error(
    requirements, named, monkeypatch, capsys
):
    monkeypatch.setenv("LINNIX_CLANG", named)
    with pytest.raises(SystemExit):
        requirements()
    assert f"LINNIX_CLANG names '{named}', which cannot compile for BPF" in "".join(
        capsys.readouterr()
    )


def test_without_any_compiler_the_build_says_what_to_install(
    hide_compilers, plugin, tmp_path, capsys
):
    hide_compilers()
    with pytest.raises(SystemExit):
        wheel(plugin, tmp_path)
    said = "".join(capsys.readouterr())
    for way_out in ("apt install clang", "LINNIX_CLANG", "pip install 'ziglang>=0.14'"):
        assert way_out in said


def test_ziglang_compiles_and_leaves_nothing_behind(hide_compilers, plugin, tmp_path, monkeypatch):
    """A stand-in, as ziglang 0.17 was seen to behave.

    It takes the options of clang after ``python -m ziglang cc``, except for the name of the
    target, and writes into both folders for caches. Where the real one is installed, the
    tests that take every compiler run it.
    """
    package = tmp_path / "site" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import json, os, pathlib, sys\n"
        "caches = [os.environ[f'ZIG_{which}_CACHE_DIR'] for which in ('GLOBAL', 'LOCAL')]\n"
        "for cache in caches: pathlib.Path(cache, 'z').touch()\n"
        "pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_bytes(b'object')\n"
        f"with open({str(tmp_path / 'seen.json')!r}, 'w') as seen:\n"
        "    json.dump([sys.argv[1:], caches], seen)\n"
    )
    hide_compilers()
    monkeypatch.delitem(sys.modules, "ziglang")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    held = contents(wheel(plugin, tmp_path))
    arguments, caches = json.loads((tmp_path / "seen.json").read_text())
    assert held["linnix_plugin_ebpf/bpf/linnix.bpf.o"] == b"object"
    assert arguments[:3] == ["cc", "-target", "bpfel-freestanding"]
    assert {"-O2", "-g", "-mcpu=v2", "-nostdinc"} <= set(arguments)
    assert arguments[-4:-1] == ["-c", f"{BPF}/linnix.bpf.c", "-o"]
    assert not [cache for cache in caches if Path(cache).exists()]


# What the compiler says


def test_an_error_of_the_compiler_is_shown_with_its_place(compiler, plugin, tmp_path, capsys):
    with (plugin / BPF / "linnix.bpf.c").open("a") as source:
        source.write("\nint broken(void) { return nothing; }\n")
    with pytest.raises(SystemExit):
        wheel(plugin, tmp_path)
    said = "".join(capsys.readouterr())
    assert "The BPF program does not compile" in said
    assert "linnix.bpf.c:" in said
    assert "nothing" in said
    assert not list((plugin / BPF).glob("linnix.bpf.o*"))


def test_a_warning_of_the_compiler_is_shown(compiler, plugin, tmp_path, capsys):
    with (plugin / BPF / "linnix.bpf.c").open("a") as source:
        source.write("\nstatic int nobody_calls_this(void) { return 0; }\n")
    wheel(plugin, tmp_path)
    assert "nobody_calls_this" in "".join(capsys.readouterr())


# When it is compiled again


def test_what_is_unchanged_needs_no_compiler(clang, hide_compilers, plugin, tmp_path):
    first = contents(wheel(plugin, tmp_path))
    hide_compilers()
    assert contents(wheel(plugin, tmp_path)) == first


def test_what_is_unchanged_does_not_ask_for_ziglang(
    clang, hide_compilers, plugin, requirements, tmp_path
):
    wheel(plugin, tmp_path)
    hide_compilers()
    assert not [name for name in requirements() if "ziglang" in name]


@pytest.mark.parametrize(
    "changed",
    [
        f"{BPF}/linnix.bpf.c",
        f"{BPF}/another.h",
        "hatch_build.py",
        f"{BPF}/linnix.bpf.o",
        f"{BPF}/linnix.bpf.o.sha256",
    ],
)
def test_what_is_changed_is_never_shipped_as_it_was(
    clang, hide_compilers, plugin, tmp_path, changed
):
    """Neither after a change of what the object is made from, nor of what came out."""
    wheel(plugin, tmp_path)
    with (plugin / changed).open("a") as file:
        file.write("\n")
    hide_compilers()
    with pytest.raises(SystemExit):
        wheel(plugin, tmp_path)
    clang()
    again = contents(wheel(plugin, tmp_path))
    for made in (plugin / BPF).glob("linnix.bpf.o*"):
        made.unlink()
    assert again == contents(wheel(plugin, tmp_path))


@pytest.mark.parametrize("missing", ["linnix.bpf.o", "linnix.bpf.o.sha256"])
def test_what_is_missing_is_made_again(clang, plugin, tmp_path, missing):
    first = contents(wheel(plugin, tmp_path))
    (plugin / BPF / missing).unlink()
    assert contents(wheel(plugin, tmp_path)) == first


def test_a_changed_program_gives_another_object(clang, plugin, tmp_path):
    wheel(plugin, tmp_path)
    first = (plugin / BPF / "linnix.bpf.o").read_bytes()
    with (plugin / BPF / "linnix.bpf.c").open("a") as source:
        source.write('\nu64 added SEC(".data");\n')
    wheel(plugin, tmp_path)
    held = (plugin / BPF / "linnix.bpf.o").read_bytes()
    assert ".data" not in sections(first)
    assert ".data" in sections(held)
