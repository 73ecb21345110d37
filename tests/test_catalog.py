"""What is installed: one scan of metadata, which imports nothing and says what stands against use.

Architecture, section 3. The distributions are files, as ``pip install`` leaves them.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from linnix_core.__about__ import __version__
from linnix_core.catalog import ALIASES, GROUPS, Catalog, PluginRecord, canonical
from linnix_core.errors import PluginError
from linnix_core.loading import load
from linnix_core.testing.distributions import write_distribution


@pytest.fixture
def site(tmp_path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


def scan(*folders: Path, allow: str | None = None) -> Catalog:
    return Catalog.scan([str(folder) for folder in folders], allow=allow)


def offer(folder: Path, name: str = "linnix-plugin-fake", plugin: str = "fake", **parts) -> Path:
    """Install a distribution that offers one handler."""
    entry_points = {"linnix.handlers": {plugin: "fake_module:Fake"}}
    return write_distribution(folder, name, **{"entry_points": entry_points, **parts})


def only(catalog: Catalog) -> PluginRecord:
    (record,) = catalog
    return record


# --- the scan -----------------------------------------------------------------------------


def test_a_record_is_what_the_metadata_says(site):
    offer(site, version="1.2", summary="Do things", requires=["linnix-core>=0.1,<0.2", "attrs"])
    record = only(scan(site))
    assert (record.kind, record.name, record.value) == ("handlers", "fake", "fake_module:Fake")
    assert (record.distribution, record.version) == ("linnix-plugin-fake", "1.2")
    assert record.source == "linnix-plugin-fake 1.2"
    assert (record.summary, record.requires) == ("Do things", ">=0.1,<0.2")
    assert (record.state, record.code, record.reason) == ("available", "", "")


def test_a_scan_imports_no_plugin(linnix_distribution, tmp_path):
    trace = tmp_path / "imported"
    linnix_distribution(
        entry_points={f"linnix.{kind}": {"fake": "linnix_traced:Fake"} for kind in GROUPS},
        modules={"linnix_traced.py": f"import pathlib; pathlib.Path({str(trace)!r}).touch()"},
    )
    catalog = Catalog.scan()
    assert len([record for record in catalog if record.name == "fake"]) == len(GROUPS)
    for kind in GROUPS:
        assert catalog.find(kind, "fake").state == "available"
    assert not trace.exists()
    with pytest.raises(PluginError):
        load(catalog.find("handlers", "fake"))
    assert trace.exists()


def test_every_group_is_a_kind_and_other_groups_are_nobodys(site):
    groups = {f"linnix.{kind}": {"a": "m:A"} for kind in GROUPS}
    others = {
        "linnix.gadgets": {"a": "m:A"},
        "linnix": {"a": "m:A"},
        "console_scripts": {"a": "m:a"},
    }
    offer(site, entry_points={**groups, **others})
    assert [record.kind for record in scan(site)] == list(GROUPS)


def test_records_are_sorted_whatever_the_order_on_the_disk(site):
    for name in ("zeta", "alpha", "midway"):
        offer(site, f"linnix-plugin-{name}", name)
    offer(site, "linnix-plugin-c", entry_points={"linnix.collectors": {"zz": "m:C"}})
    catalog = scan(site)
    assert [record.name for record in catalog] == ["zz", "alpha", "midway", "zeta"]
    assert [record.name for record in catalog.of_kind("handlers")] == ["alpha", "midway", "zeta"]
    assert len(catalog) == 4


def test_of_two_copies_on_the_path_the_first_counts_as_it_does_for_imports(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    offer(first, version="1.0")
    offer(second, "Linnix_Plugin.Fake", version="2.0")
    assert only(scan(first, second)).version == "1.0"
    assert only(scan(second, first)).version == "2.0"


def test_without_plugins_the_catalog_is_empty(site):
    write_distribution(site, "something-else", modules={"other.py": ""})
    assert list(scan(site)) == []


def test_the_real_path_is_scanned_by_default(site, monkeypatch):
    monkeypatch.syspath_prepend(str(offer(site, "linnix-plugin-unheard-of", "unheard-of")))
    assert Catalog.scan().find("handlers", "unheard-of").distribution == "linnix-plugin-unheard-of"


def test_a_zip_file_on_the_path_is_searched_and_a_broken_one_is_nothing(site, tmp_path):
    wheel, broken = tmp_path / "fake.whl", tmp_path / "broken.whl"
    offer(site)
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in site.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(site).as_posix())
    broken.write_bytes(b"PK")
    assert only(scan(broken, tmp_path / "nowhere", wheel)).source == "linnix-plugin-fake 1.0"


@pytest.mark.parametrize("value", ["m:A.b", " m : A.b [extra]", "m:A.b[extra]"])
def test_the_value_of_an_entry_point_may_have_dots_blanks_and_extras(linnix_distribution, value):
    folder = linnix_distribution(
        entry_points={"linnix.commands": {"a": value}, "linnix.handlers": {"a": value}},
        modules={"m.py": "class A: b = 7"},
    )
    assert [load(record) for record in scan(folder)] == [7, 7]


# --- conflicts ----------------------------------------------------------------------------


def test_two_that_offer_the_same_name_are_both_left_alone_and_both_named(site):
    offer(site, "linnix-plugin-one", version="1.0")
    offer(site, "linnix-plugin-two", version="2.0")
    catalog = scan(site)
    reason = "linnix-plugin-one 1.0 and linnix-plugin-two 2.0 both offer handlers.fake"
    assert {(r.state, r.code, r.reason) for r in catalog} == {("unavailable", "conflict", reason)}
    with pytest.raises(PluginError, match=reason) as error:
        catalog.find("handlers", "fake")
    assert error.value.code == "conflict"
    assert error.value.hint == 'choose one: plugin = "linnix-plugin-one:fake"'


def test_a_user_chooses_between_them_by_the_distribution(site):
    offer(site, "linnix-plugin-one")
    offer(site, "linnix-plugin-two")
    catalog = scan(site)
    assert catalog.find("handlers", "linnix-plugin-two:fake").distribution == "linnix-plugin-two"
    assert catalog.find("handlers", "Linnix_Plugin_One:fake").distribution == "linnix-plugin-one"


def test_a_choice_that_leads_nowhere_is_unknown(site):
    offer(site, "linnix-plugin-one")
    with pytest.raises(PluginError) as error:
        scan(site).find("handlers", "linnix-plugin-two:fake")
    assert error.value.code == "unknown"


def test_one_name_of_two_kinds_is_no_conflict(site):
    groups = {"linnix.reasoners": {"ollama": "m:R"}, "linnix.deployers": {"ollama": "m:D"}}
    offer(site, entry_points=groups)
    assert {record.state for record in scan(site)} == {"available"}


def test_one_that_is_blocked_is_no_rival(site):
    offer(site, "linnix-plugin-one")
    offer(site, "linnix-plugin-two")
    catalog = scan(site, allow="linnix-plugin-two")
    assert {record.distribution: record.code for record in catalog} == {
        "linnix-plugin-one": "blocked",
        "linnix-plugin-two": "",
    }


# --- what stands against using one --------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "state"),
    [
        (None, "available"),
        ("linnix-plugin-fake", "available"),
        ("other, Linnix_Plugin.FAKE", "available"),
        ("other", "unavailable"),
        ("", "unavailable"),
        ("fake", "unavailable"),
    ],
)
def test_linnix_plugins_allows_distributions_by_name(site, monkeypatch, allow, state):
    offer(site)
    if allow is not None:
        monkeypatch.setenv("LINNIX_PLUGINS", allow)
    else:
        monkeypatch.delenv("LINNIX_PLUGINS", raising=False)
    catalog = scan(site)
    assert only(catalog).state == state
    if state == "unavailable":
        with pytest.raises(PluginError, match="not among those that LINNIX_PLUGINS") as error:
            catalog.find("handlers", "fake")
        assert error.value.code == "blocked"


@pytest.mark.parametrize(
    "requirement",
    [
        "linnix-core>=0.1,<0.2",
        "linnix-core (>=0.1,<0.2)",
        "linnix-core",
        "Linnix_Core ~= 0.1",
        "linnix-core==0.1.*",
        "linnix-core[testing]>=0.1",
        "linnix-core>=0.1.0,<0.2; python_version >= '3.8'",
        "linnix-core>=9; python_version < '3'",
        "linnix-core>=9; extra == 'tests'",
        f"linnix-core=={__version__}",
    ],
)
def test_a_plugin_for_this_core_is_available(site, requirement):
    offer(site, requires=["attrs>=1", requirement])
    assert only(scan(site)).state == "available", only(scan(site)).reason


@pytest.mark.parametrize(
    "requirement",
    [
        "linnix-core>=0.2,<0.3",
        "linnix-core<0.1",
        "linnix-core<0.1.0",
        "linnix-core (>=7)",
        "linnix-core==9.*",
        "linnix-core>=0.10",
        "linnix-core!=0.1.0,>=0.1",
    ],
)
def test_a_plugin_for_another_core_says_what_it_needs(site, requirement):
    offer(site, requires=[requirement])
    record = only(scan(site))
    assert (record.state, record.code) == ("unavailable", "incompatible")
    assert record.reason.startswith("linnix-plugin-fake 1.0 needs linnix-core ")
    assert record.reason.endswith(f"; this is {__version__}")
    with pytest.raises(PluginError) as error:
        scan(site).find("handlers", "fake")
    assert (error.value.code, error.value.hint) == ("incompatible", None)


def test_a_plugin_that_asks_for_no_core_is_available(site):
    offer(site, requires=["attrs"])
    assert (only(scan(site)).state, only(scan(site)).requires) == ("available", None)


@pytest.mark.parametrize("requirement", ["linnix-core >= ", "linnix-core>=x", "@@@"])
def test_a_requirement_that_cannot_be_read_is_said(site, requirement):
    offer(site, requires=[requirement])
    record = only(scan(site))
    assert (record.state, record.code) == ("unavailable", "metadata")
    assert "has a requirement that cannot be read" in record.reason


@pytest.mark.parametrize(
    "name", ["Fake", "fake.dot", "fake name", "1fake", "-fake", "fäke", "f_ke"]
)
def test_a_name_that_cannot_stand_in_a_configuration_is_said(site, name):
    offer(site, plugin=name)
    record = only(scan(site))
    assert (record.name, record.state, record.code) == (name, "unavailable", "metadata")
    assert record.reason == (
        f"linnix-plugin-fake calls it {name!r}: names are made of small letters, digits and dashes"
    )


GOOD = {"METADATA": "Name: linnix-plugin-broken\nVersion: 1\n"}


@pytest.mark.parametrize(
    "files",
    [
        {"entry_points.txt": "[linnix.handlers]\nbroken = m:C\n"},
        {**GOOD, "entry_points.txt": "[linnix.handlers]\nno equals sign\n"},
        {**GOOD, "entry_points.txt": "[linnix.handlers]\n= m:C\n"},
        {**GOOD, "entry_points.txt": "[linnix.handlers]\nbroken =\n"},
        {**GOOD, "entry_points.txt": "[linnix.handlers\nbroken = m:C\n"},
        {**GOOD, "entry_points.txt": b"[linnix.handlers]\nbroken = \xff\xfe\n"},
        {"METADATA": b"\xff\xfe", "entry_points.txt": "[linnix.handlers]\nbroken = m:C\n"},
        {"METADATA": "no colon", "entry_points.txt": "[linnix.handlers]\nbroken = m:C\n"},
        {"METADATA": "", "entry_points.txt": "[linnix.handlers]\nbroken = m:C\n"},
    ],
)
def test_metadata_that_is_broken_takes_nobody_else_down(site, files):
    offer(site)
    info = site / "linnix_plugin_broken-1.dist-info"
    info.mkdir()
    for name, content in files.items():
        (info / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    catalog = scan(site)
    assert catalog.find("handlers", "fake").state == "available"
    for record in catalog:
        if record.distribution != "linnix-plugin-fake":
            # Either there is enough to try it, or it says that there is not.
            assert record.state == "available" or record.code == "metadata"
            assert record.state == "available" or record.reason
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "plugins", "list"],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fake" in done.stdout


# --- names --------------------------------------------------------------------------------


@pytest.fixture
def shop(site) -> Catalog:
    groups = {
        "linnix.handlers": {"jsonl": "m:H", "console": "m:H"},
        "linnix.reasoners": {"llama-cpp": "m:R", "heuristics": "m:R"},
    }
    return scan(offer(site, entry_points=groups))


@pytest.mark.parametrize(
    ("kind", "name", "said", "hint"),
    [
        ("handlers", "jsnol", "called 'jsnol'; did you mean 'jsonl'?", None),
        ("handlers", "kafka", "a handler called 'kafka'", "pip install linnix-plugin-kafka"),
        ("reasoners", "jsonl", "(it is one of the handlers)", None),
        ("collectors", "ebpf", "a collector called 'ebpf'", "pip install linnix-plugin-ebpf"),
        ("handlers", "Kafka!", "'Kafka!'", "names are made of small letters, digits and dashes"),
        ("handlers", "", "''", "names are made of small letters, digits and dashes"),
        ("handlers", "a; rm -rf /", "'a; rm", "names are made of small letters, digits and dashes"),
    ],
)
def test_an_unknown_name_is_met_with_what_to_type_next(shop, kind, name, said, hint):
    with pytest.raises(PluginError) as error:
        shop.find(kind, name)
    assert error.value.code == "unknown"
    assert said in str(error.value)
    assert error.value.hint == hint


@pytest.mark.parametrize("typed", ["llama.cpp", "llamacpp", "llama-cpp"])
def test_aliases_lead_to_the_canonical_name(shop, typed):
    assert canonical(typed) == "llama-cpp"
    assert shop.find("reasoners", typed).name == "llama-cpp"


def test_an_alias_is_never_a_name_of_its_own():
    assert not set(ALIASES) & set(ALIASES.values())
    assert all(canonical(canonical(name)) == canonical(name) for name in ALIASES)
    assert canonical("halext-node") == "halext"
