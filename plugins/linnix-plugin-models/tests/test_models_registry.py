"""The registry cannot be lost: not by a crash, a mistake, another tool, or eighty at once.

The cases that say "hafs" are those in which the tool before this one lost it.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import LinnixError
from linnix_plugin_models import Model, ModelRegistry
from linnix_plugin_models.registry import (
    FLAT_KEYS,
    Artifact,
    ModelFile,
    RegistryError,
    backend_name,
    check_id,
    default_path,
)

#: The sample that the documentation of the old tool shows.
SAMPLE = {
    "model_id": "oracle-farore-general-qwen25-coder-15b-20251222",
    "locations": {
        "windows": "D:/hafs_training/models/oracle-farore-...",
        "mac": "/Users/scawful/Code/hafs/models/oracle-farore-...",
    },
    "formats": ["pytorch", "gguf"],
    "deployed_backends": ["ollama"],
    "metrics": {"final_loss": 0.8245, "acceptance_rate": 0.867},
}


@pytest.fixture
def registry(registry_file):
    return ModelRegistry()


def artifact(path="/m/a.gguf", **parts):
    known = {"location": "linux", "format": "gguf", "quantization": "Q4_K_M"}
    files = (ModelFile(path.rpartition("/")[2], 7, "a" * 64),)
    return Artifact(path=path, **{**known, "files": files, **parts})


# --- the file -------------------------------------------------------------------------


def test_without_a_file_there_are_no_models_and_looking_makes_none(registry):
    assert registry.models() == []
    assert json.loads(b"".join(registry.listing())) == {"models": [], "total": 0}
    assert not registry.path.exists()  # hafs: constructing one writes it
    assert not registry.path.parent.exists()


def test_the_file_is_private_and_where_the_old_tools_look(registry, home):
    registry.register("m")
    assert registry.path == home / ".context" / "models" / "registry.json"
    assert stat.S_IMODE(registry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(registry.path.parent.stat().st_mode) == 0o700


def test_the_place_can_be_chosen(monkeypatch, home, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert default_path() == tmp_path / "xdg" / "linnix" / "models" / "registry.json"
    usual = home / ".context" / "models" / "registry.json"
    usual.parent.mkdir(parents=True)
    usual.write_text('{"models": {}}')
    assert default_path() == usual  # what is there already is not left behind
    monkeypatch.setenv("LINNIX_MODELS_REGISTRY", "~/mine.json")
    assert default_path() == home / "mine.json"


def test_a_model_has_exactly_the_keys_that_the_old_tools_know(registry):
    registry.register(
        "m", role="asm", location="windows", path="D:/m", aliases=["a"], lineage={"parent": "l"}
    )
    registry.register("m", artifacts=[artifact()])
    tree = json.loads(registry.path.read_text())
    # Its reader calls cls(**data): one more key and it believes that the registry is empty.
    assert list(tree["models"]["m"]) == list(FLAT_KEYS)
    assert len(FLAT_KEYS) == 36
    assert tree["version"] == "1.0"
    assert set(tree) == {"version", "updated_at", "models", "linnix"}
    assert tree["models"]["m"]["locations"] == {"windows": "D:/m"}
    assert tree["linnix"]["m"]["artifacts"][0]["digest"] == "sha256:" + "a" * 64


def test_the_sample_of_the_old_documentation_is_read_and_imported(registry, tmp_path):
    path = tmp_path / "sample.json"
    path.write_text(json.dumps(SAMPLE))
    assert [m.model_id for m in ModelRegistry(path).models()] == [SAMPLE["model_id"]]
    assert registry.import_models(path) == [SAMPLE["model_id"]]
    model = registry.get(SAMPLE["model_id"])
    assert model["final_loss"] == 0.8245
    assert model["dataset_quality"] == {"acceptance_rate": 0.867}
    assert model.locations == SAMPLE["locations"]
    assert model["formats"] == ["pytorch", "gguf"]
    assert [m.model_id for m in registry.models(backend="ollama", location="windows")] != []


def test_keys_of_others_are_kept(registry):
    registry.path.parent.mkdir(parents=True)
    registry.path.write_text(
        json.dumps({"models": {"old": {"role": "asm", "colour": 7}}, "theirs": [1]})
    )
    registry.register("new")
    registry.register("old", notes="seen")
    tree = json.loads(registry.path.read_text())
    assert tree["theirs"] == [1]  # hafs: one unknown key, and the next write empties the file
    assert tree["models"]["old"]["colour"] == 7
    assert tree["models"]["old"]["notes"] == "seen"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"models": []}', b'{"models": {"a": 1}}',
        b'{"models": {}, "linnix": 3}', b'{"models": {"a": {}}, "linnix": {"a": [1, 2]}}',
        b'{"models": {"a": {\n      "model_id": "a"}}, "linnix": {"a": [1, 2]}}',
        b'{"models": {}, "linnix": {"orphan": 1}}', b'{"models": {"a": {"role": "\xff"}}}',
        b'{"models": {"a": {"role": "\xed\xa0\x80"}}}', b'{"models": {"a": {"role": 01}}}',
        b'{"models": {"a": {"role": "\n"}}}', b"[" * 200_000,
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_stays_as_it_is(registry, content):
    registry.path.parent.mkdir(parents=True)
    registry.path.write_bytes(content)
    touches = (
        registry.models,
        registry.listing,
        lambda: registry.models(role="x"),
        lambda: registry.listing(tag="x"),
        lambda: registry.register("m"),
    )
    for touch in touches:
        with pytest.raises(RegistryError, match="stays as it is") as error:
            touch()
        assert "move it away" in error.value.hint
    assert registry.path.read_bytes() == content


def test_the_file_has_a_line_for_each_model_to_search_and_to_compare(registry):
    registry.register("a", notes="ü\n{}", artifacts=[artifact()])
    registry.register("b", location="linux", path="/m/b")
    tree = json.loads(registry.path.read_text())
    before = registry.path.read_text().splitlines()
    assert [line[:5] for line in before if line.startswith(('"a": {', '"b": {'))] == [
        '"a": ', '"b": ', '"a": ', '"b": ',
    ]  # fmt: skip
    registry.register("a", role="asm")
    after = registry.path.read_text().splitlines()
    assert len(after) == len(before)
    changed = [line for line in after if line not in before]
    assert all(line.startswith(('"a": ', '"updated_at": ')) for line in changed)
    flat = {"role": "asm", "updated_at": registry.get("a")["updated_at"]}
    tree["models"]["a"].update(flat)
    assert json.loads("\n".join(after)) == {**tree, "updated_at": flat["updated_at"]}


def test_the_version_before_is_a_backup_that_works(registry):
    registry.register("first")
    registry.register("second")
    backup = registry.path.with_name("registry.json.bak")
    assert [m.model_id for m in ModelRegistry(backup).models()] == ["first"]
    registry.path.write_text("{")
    with pytest.raises(RegistryError) as error:
        registry.register("third")
    assert str(backup) in error.value.hint


def test_a_value_of_a_wrong_type_reads_as_missing_and_is_kept(registry):
    registry.path.parent.mkdir(parents=True)
    registry.path.write_text(json.dumps({"models": {"m": {"locations": 3, "tags": "x"}}}))
    model = registry.get("m")
    assert model.locations == {}
    assert model["tags"] == []
    registry.register("n")
    assert json.loads(registry.path.read_text())["models"]["m"]["locations"] == 3


def test_a_link_to_the_file_stays_a_link(registry, tmp_path):
    real = tmp_path / "real.json"
    real.write_text('{"models": {}}')
    registry.path.parent.mkdir(parents=True)
    registry.path.symlink_to(real)
    registry.register("m")
    assert registry.path.is_symlink()
    assert "m" in json.loads(real.read_text())["models"]


def test_a_full_disk_is_a_sentence_and_the_file_stays(registry, monkeypatch):
    registry.register("m")
    before = registry.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryError, match="No space left"):
        registry.register("n")
    monkeypatch.undo()
    assert registry.path.read_bytes() == before
    assert [p.name for p in registry.path.parent.iterdir() if p.name.startswith(".registry-")] == []


# --- many at once, and killed ---------------------------------------------------------

REGISTER = """
import sys
from linnix_plugin_models import ModelRegistry
registry = ModelRegistry(sys.argv[1])
for number in range(int(sys.argv[3])):
    registry.register(f"model-{sys.argv[2]}-{number}", role="asm")
    print(number, flush=True)
"""


def start(registry, name, count):
    command = [sys.executable, "-c", REGISTER, registry.path, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_eighty_registrations_at_once_all_survive(registry):  # hafs: 4 of 80
    running = [start(registry, name, 20) for name in "abcd"]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    assert len(registry.models()) == 80


def test_a_registration_that_is_killed_leaves_a_whole_file_and_no_lock(registry):
    registry.register("before")
    for _ in range(5):
        process = start(registry, "k", 100_000)
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        models = {model.model_id for model in registry.models()}
        assert {"before", "model-k-0"} <= models
    registry.register("after")
    assert "after" in {model.model_id for model in registry.models()}


# --- models ---------------------------------------------------------------------------


def test_registering_again_adds_and_loses_nothing(registry):  # hafs: replaces the record
    registry.register("m", role="asm", location="windows", path="D:/m", tags=["a"])
    registry.update("m", lambda m: m.put_deployment({"name": "o", "deployer": "ollama"}))
    first = registry.get("m")
    registry.register("m", base_model="Qwen/Q", location="linux", path="/m", tags=["b"], role="")
    again = registry.get("m")
    assert again.locations == {"windows": "D:/m", "linux": "/m"}
    assert again["primary_location"] == "windows"
    assert (again["role"], again["base_model"], again["tags"]) == ("asm", "Qwen/Q", ["a", "b"])
    assert again["deployed_backends"] == ["ollama"]
    assert again["ollama_model_name"] == "o"
    assert again["created_at"] == first["created_at"]


def test_formats_are_noted_once(registry):  # hafs: ["pytorch", "gguf", "gguf"]
    registry.register("m", artifacts=[artifact()])
    registry.register("m", artifacts=[artifact(), artifact("/m/b.gguf", quantization="Q8_0")])
    model = registry.get("m")
    assert model["formats"] == ["gguf"]
    assert [a.quantization for a in model.artifacts] == ["Q4_K_M", "Q8_0"]
    assert model.artifact("linux", quantization="q8_0").path == "/m/b.gguf"
    assert model.artifact("linux", quantization="Q2_K") is None
    assert model.artifact("mac") is None


def test_a_folder_has_one_digest_whatever_the_order_of_its_files():
    files = (ModelFile("b", 1, "b" * 64), ModelFile("a", 1, "a" * 64))
    one, other = artifact(files=files), artifact(files=files[::-1])
    assert one.digest == other.digest != artifact().digest
    assert artifact(files=(ModelFile("a", 1),)).digest is None
    assert one.size == 2


def test_filters_must_all_fit_and_backends_have_several_spellings(registry):
    registry.register("a", role="asm", location="windows", path="D:/a", tags=["gold"])
    registry.register("b", role="debug", location="windows", path="D:/b")
    registry.update("b", lambda m: m.put_deployment({"name": "b", "deployer": "llama-cpp"}))

    def ids(**wanted):
        return [model.model_id for model in registry.models(**wanted)]

    assert ids() == ["a", "b"]
    assert ids(location="windows", role="asm") == ["a"]
    assert ids(tag="gold") == ["a"]
    assert ids(location="mars") == []
    assert ids(backend="llama.cpp") == ids(backend="llamacpp") == ids(backend="llama-cpp") == ["b"]
    # The readers of the file know the old spelling.
    assert registry.get("b")["deployed_backends"] == ["llama.cpp"]
    assert backend_name("halext", old=True) == "halext-node"
    assert backend_name("halext-node") == "halext"


def test_what_is_undeployed_is_no_longer_said_to_be_deployed(registry):
    registry.register("m", deployed_backends=["vllm"])
    for name in ("one", "two"):
        entry = {"name": name, "deployer": "halext", "node": "node1"}
        registry.update("m", lambda m, entry=entry: m.put_deployment(entry))
    assert registry.get("m")["deployed_backends"] == ["vllm", "halext-node"]
    assert registry.get("m")["halext_node_id"] == "node1"
    registry.update("m", lambda m: m.drop_deployment("one"))
    assert "halext-node" in registry.get("m")["deployed_backends"]
    registry.update("m", lambda m: m.drop_deployment("two"))
    assert registry.get("m")["deployed_backends"] == ["vllm"]
    assert registry.get("m")["halext_node_id"] is None


def test_an_alias_names_the_model_that_got_it_last(registry):
    registry.register("v1", aliases=["latest"])
    registry.register("v2", aliases=["latest"], version="v2", lineage={"parent": "v1"})
    assert registry.get("latest").model_id == "v2"
    assert registry.get("v1").aliases == ()
    assert registry.get("v2")["lineage"] == {"parent": "v1"}
    with pytest.raises(RegistryError, match="is the id of a model"):
        registry.register("v3", aliases=["v1"])
    with pytest.raises(RegistryError, match="no alias"):
        registry.register("v3", aliases=["a/b"])


def test_an_unknown_name_is_met_with_the_closest_one(registry):
    registry.register("oracle-farore")
    with pytest.raises(RegistryError, match="no model 'oracle-farori'") as error:
        registry.get("oracle-farori")
    assert "oracle-farore" in error.value.hint
    assert registry.get_model("nobody") is None


def test_a_place_can_be_forgotten(registry):
    registry.register("m", location="linux", path="/m", artifacts=[artifact()])
    registry.register("m", location="mac", path="/u/m")
    registry.update("m", lambda m: m.drop_location("linux"))
    model = registry.get("m")
    assert (model.locations, model["primary_location"], model.artifacts) == (
        {"mac": "/u/m"}, "mac", (),
    )  # fmt: skip
    registry.delete("m")
    assert registry.models() == []
    with pytest.raises(RegistryError):
        registry.delete("m")


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\b", "-rf", ".hidden", "a..b", "con", "NUL.gguf", "ü", "a" * 200,
             "a b", "a\n", "a."],
)  # fmt: skip
def test_an_id_that_cannot_name_a_file_everywhere_is_refused(registry, name):
    with pytest.raises(RegistryError, match="no model id"):  # hafs: ../x writes outside
        registry.register(name)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True))
def test_an_id_that_is_taken_stays_in_its_folder(name):
    try:
        check_id(name)
    except LinnixError:
        return
    assert os.path.normpath(f"/models/{name}") == f"/models/{name}"


def test_the_fast_listing_says_what_the_models_say(registry):
    registry.register("a", location="linux", path='/m/"quoted"', artifacts=[artifact()])
    registry.register("b", notes="}{")
    tree = json.loads(registry.path.read_text())
    tree["models"]["c"] = {"role": "asm"}
    tree["models"]["d"] = {"model_id": "other", "role": "asm"}
    registry.path.write_text(json.dumps(tree))
    registry.register("e")
    filters = ({}, {"role": "asm"}, {"tag": None, "location": "linux"}, {"backend": "vllm"})
    for total, wanted in [*zip((5, 2, 1, 0), filters, strict=True)] * 2:
        listed = json.loads(b"".join(registry.listing(**wanted)))
        assert listed["models"] == [model.as_dict() for model in registry.models(**wanted)]
        assert listed["total"] == total
        registry.path.write_text(json.dumps(json.loads(registry.path.read_text())))


@pytest.mark.parametrize("more", ["{}", "{ }", "{\n}", '{"tags": 1}', '{\t"aliases" :["x"] }'])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_a_listing_joins_both_halves_of_every_model(registry, more, count):
    registry.path.parent.mkdir(parents=True)
    flats = ",".join(f'"m{n}": {{"model_id": "m{n}", "role": "asm"}}' for n in range(count))
    mores = ",".join(f'"m{n}": {more}' for n in range(0, count, 2))
    registry.path.write_text(f'{{"models": {{{flats}}}, "linnix": {{{mores}}}}}')
    listed = json.loads(b"".join(registry.listing()))
    assert listed == {"models": [m.as_dict() for m in registry.models()], "total": count}


HOSTILE = "\x1b[2J \x85 \u202e \u2028 ü 🦊 \ud83e\udd8a".encode("utf-16", "surrogatepass").decode(
    "utf-16"
)


@pytest.mark.parametrize("more", [{}, {"aliases": ["ü"]}])
@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize("model_id", ["m", "other", HOSTILE])
def test_a_listing_is_ascii_whatever_is_in_the_file(registry, more, indent, model_id):
    flat = {"model_id": model_id, "notes": HOSTILE, HOSTILE: [HOSTILE], "tags": ["x"]}
    tree = {"models": {"m": flat, HOSTILE: flat}, "linnix": {"m": more}}
    registry.path.parent.mkdir(parents=True)
    registry.path.write_text(json.dumps(tree, ensure_ascii=False, indent=indent))
    for wanted in ({}, {"tag": "x"}):
        listed = b"".join(registry.listing(**wanted))
        assert listed.isascii()
        assert b"\x1b" not in listed
        assert json.loads(listed) == {
            "models": [{**flat, "model_id": "m", **more}, {**flat, "model_id": HOSTILE}],
            "total": 2,
        }


def test_a_filter_reads_what_is_of_a_wrong_type_as_missing(registry):
    registry.path.parent.mkdir(parents=True)
    odd = {"model_id": "m", "role": 3, "locations": [], "tags": {"x": 1}, "deployed_backends": "b"}
    registry.path.write_text(json.dumps({"models": {"m": odd}}))
    for wanted in ({"role": "3"}, {"location": "linux"}, {"tag": "x"}, {"backend": "b"}):
        assert registry.models(**wanted) == []
    assert [model.as_dict() for model in registry.models(role="")] == [odd]


def test_a_model_is_a_mapping_of_all_its_keys():
    model = Model({"model_id": "m", "theirs": 1})
    assert model["theirs"] == 1
    assert model["tags"] == []
    assert dict(model)["model_id"] == "m"
    assert len(model) == len(list(model))
    with pytest.raises(KeyError):
        model["nothing"]
