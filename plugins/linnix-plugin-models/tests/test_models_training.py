"""A training run is registered with what its own files say."""

from __future__ import annotations

import json
import math

import pytest

from linnix_core import LinnixError
from linnix_plugin_models import ModelRegistry, register_training_run
from linnix_plugin_models.training import described_by, model_id_of


def test_the_documented_call_after_a_training(checkpoint):  # hafs: always a TypeError
    path = checkpoint()
    metadata = register_training_run(
        model_path=path,
        config={"base_model": "Qwen/Given", "role": "asm", "lora": {"r": 8}, "dataset": "d"},
        metrics={"loss": 0.5, "train_samples": 10, "quality": {"acceptance_rate": 0.9}},
        location="linux",
    )
    stored = ModelRegistry().get(path.name)
    assert stored.as_dict() == metadata.as_dict()
    # What is given goes before what the files say.
    assert (stored["base_model"], stored["role"]) == ("Qwen/Given", "asm")
    assert (stored["final_loss"], stored["train_samples"]) == (0.5, 10)
    assert stored["lora_config"] == {"r": 8}
    # The rest is theirs.
    assert stored["display_name"] == "Oracle: Farore"
    assert stored["eval_loss"] == 0.9
    assert stored["best_loss"] == 0.81
    assert stored["training_duration_minutes"] == 42
    assert stored["hardware"] == "rtx-5060"
    assert stored["git_commit"] == "19b447b"
    assert "trainer_state.json" in stored["metrics"]["read_from"]


def test_every_file_has_its_size_and_digest(checkpoint):
    import hashlib

    path = checkpoint()
    model = register_training_run(path)
    (artifact,) = model.artifacts
    assert (artifact.format, artifact.location) == ("safetensors", "linux")
    by_path = {file.path: file for file in artifact.files}
    assert set(by_path) == {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    weights = (path / "model.safetensors").read_bytes()
    assert by_path["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    assert by_path["model.safetensors"].size == len(weights)
    without = register_training_run(path, model_id="quick", hashes=False)
    assert without.artifacts[0].digest is None


def test_a_windows_path_is_on_windows_and_need_not_be_here():
    model = register_training_run("D:/hafs_training/models/oracle-x", {"base_model": "b"})
    assert model.model_id == "oracle-x"
    assert model.locations == {"windows": "D:/hafs_training/models/oracle-x"}


def test_through_a_mount_the_files_of_the_run_are_read(checkpoint, tmp_path, sync_toml):
    checkpoint(tmp_path / "mount" / "models" / "oracle-x")
    sync_toml(f'[mounts.w]\nlocal_path = "{tmp_path}/mount"\nremote_path = "D:/hafs_training"\n')
    model = register_training_run(r"d:\hafs_training\models\oracle-x")
    assert model["final_loss"] == 0.8245
    assert model.artifacts[0].size > 0
    # And the other way round, as the old documentation registers it.
    again = register_training_run(tmp_path / "mount/models/oracle-x", {}, {}, "windows")
    assert again.locations == {"windows": "D:/hafs_training/models/oracle-x"}


def test_what_is_not_here_is_told(tmp_path):
    with pytest.raises(LinnixError, match="there is nothing at") as error:
        register_training_run(tmp_path / "none")
    assert "--location" in error.value.hint
    with pytest.raises(LinnixError, match="not absolute"):
        register_training_run("models/x", location="cloud")


def test_an_adapter_says_what_it_adapts():
    found = described_by(
        {
            "adapter_config.json": json.dumps(
                {"base_model_name_or_path": "Qwen/Q", "r": 16, "target_modules": ["q"], "x": 1}
            ).encode(),
            "all_results.json": b'{"train_loss": 0.4, "perplexity": 2.5, "train_runtime": 600}',
            "config.json": b'{"_name_or_path": "Other/O"}',
        }
    )
    assert found["base_model"] == "Qwen/Q"
    assert found["lineage"] == {"adapter_of": "Qwen/Q"}
    assert found["lora_config"] == {"r": 16, "target_modules": ["q"]}
    assert (found["final_loss"], found["perplexity"]) == (0.4, 2.5)
    assert found["training_duration_minutes"] == 10


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b'{"log_history": 3}', b'{"log_history": [1, {}]}',
                b'{"log_history": [{"loss": NaN}]}', b"[" * 200_000],
)  # fmt: skip
def test_files_that_say_nothing_are_left_out(content):
    found = described_by({"trainer_state.json": content, "metadata.json": content})
    assert not found.get("final_loss")
    assert not any(isinstance(v, float) and math.isnan(v) for v in found.values())


def test_a_damaged_model_is_not_registered(checkpoint):
    path = checkpoint()
    (path / "model.safetensors").write_bytes(b"\1\2\3")
    with pytest.raises(LinnixError, match="no safetensors file"):
        register_training_run(path)
    assert ModelRegistry().models() == []


def test_an_id_is_made_from_any_path():
    assert model_id_of(r"D:\models\My Model (1)") == "My-Model-1"
    assert model_id_of("/m/tiny-Q4_K_M.gguf") == "tiny-Q4_K_M"
    assert model_id_of("/") == "model"
