"""What is converted runs in llama.cpp and says what its checkpoint says, or does not count."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import stat
import sys
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from linnix_core import LinnixError
from linnix_plugin_gguf import architecture, checking, converting, tools
from linnix_plugin_gguf.testing import tiny_adapter
from linnix_plugin_models import check_weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="needs llama-cpp-python"
)

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}


def pairs(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"family": "llama"}, id="llama"),
        pytest.param({"family": "qwen2", "shards": 3}, id="qwen2 in shards"),
        pytest.param({"family": "qwen2", "tied": True, "dtype": "F32"}, id="qwen2 tied"),
        pytest.param({"tied": True, "dtype": "F16", "tokenizer": "smollm"}, id="smollm tied"),
        pytest.param({"tokenizer": "gpt-2", "head_dim": 32}, id="gpt-2, smaller heads"),
        pytest.param({"tokenizer": "sentencepiece", "kv_heads": 1}, id="sentencepiece"),
        pytest.param({"rope_scaling": LLAMA3, "context": 512}, id="llama3 rope"),
        pytest.param({"rope_scaling": {"type": "linear", "factor": 2.0}}, id="linear rope"),
        pytest.param({"family": "qwen2", "rope_scaling": YARN, "context": 1024}, id="yarn"),
        pytest.param(
            {"family": "qwen2", "rope_scaling": {**YARN, "attention_factor": 1.5}},
            id="yarn of another size",
        ),
        pytest.param({"attention_bias": True}, id="llama with biases"),
    ],
)
def test_llama_cpp_says_what_the_checkpoint_says(checkpoint, converted, options):
    made = converted(checkpoint(**options))
    assert made.details["tokens"] == "the same"
    assert made.details["compared_with"] == "the source"
    assert made.details["logits"]["error"] < 0.003
    assert check_weights(made.path).quantization == "F16"


@pytest.mark.usefixtures("in_this_process")
def test_an_adapter_is_merged_before(llama, converted, tmp_path):
    adapter = tiny_adapter(tmp_path / "adapter", llama, base_name="unknown/base")
    made = converted(adapter, base=llama)
    plain = converted(llama)
    assert made.details["logits"]["error"] < 0.003
    a, b = tensors(made.path), tensors(plain.path)
    assert not np.array_equal(a["blk.0.attn_q.weight"].data, b["blk.0.attn_q.weight"].data)
    assert np.array_equal(a["blk.0.attn_k.weight"].data, b["blk.0.attn_k.weight"].data)


@pytest.mark.parametrize(
    ("quantization", "types"),
    [
        ("BF16", {"BF16", "F32"}),
        ("Q8_0", {"Q8_0", "F32"}),
        ("Q4_K_M", {"Q4_K", "Q6_K", "F32"}),
        ("Q3_K_S", {"Q3_K", "Q6_K", "F32"}),
    ],
)
def test_every_quantization_is_really_it(llama, converted, quantization, types):
    made = converted(llama, quantization)
    assert made.made.quantization == quantization
    assert check_weights(made.path).quantization == quantization
    assert {tensor.tensor_type.name for tensor in tensors(made.path).values()} == types
    told = [what for what, *_ in made.steps]
    assert told[0] == "reading the checkpoint"
    written = [step for step in made.steps if step[0] == "writing tensors"]
    assert written[-1][1] == written[-1][2]
    if quantization.startswith("Q"):
        assert ("quantizing", 21, 21) in made.steps


@pytest.mark.usefixtures("in_this_process")
def test_what_a_server_needs_is_kept(checkpoint, converted):
    path = checkpoint("qwen2")
    said = pairs(converted(path).path)
    assert said["general.architecture"] == "qwen2"
    assert said["general.name"] == "tiny"
    assert said["qwen2.context_length"] == 8192
    assert said["qwen2.attention.head_count_kv"] == 2
    assert said["qwen2.rope.freq_base"] == 1000000.0
    assert "<|im_start|>" in said["tokenizer.chat_template"]
    tokens = said["tokenizer.ggml.tokens"]
    assert len(tokens) == said["qwen2.vocab_size"] == 640
    assert tokens[said["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert tokens[said["tokenizer.ggml.padding_token_id"]] == "<|endoftext|>"
    assert said["tokenizer.ggml.add_bos_token"] is False
    assert said["tokenizer.ggml.token_type"][-1] == gguf.TokenType.UNUSED


@pytest.mark.usefixtures("in_this_process")
def test_the_same_checkpoint_makes_the_same_file(llama, converted):
    assert converted(llama).path.read_bytes() == converted(llama).path.read_bytes()


# --- what does not hold does not count ------------------------------------------------


def refused(converted, source, quantization="F16", **more):
    with pytest.raises(LinnixError) as caught:
        converted(source, quantization, **more)
    return f"{caught.value} | {caught.value.hint}"


@pytest.mark.usefixtures("in_this_process")
def test_rows_in_the_wrong_order_are_found_out(llama, converted, monkeypatch):
    monkeypatch.setattr(architecture.Architecture, "_order", lambda *_: None)
    assert "does not say what its source says" in refused(converted, llama)


@pytest.mark.usefixtures("in_this_process")
def test_positions_that_turn_at_another_pace_are_found_out(llama, converted, monkeypatch):
    monkeypatch.setattr(
        architecture.Rope, "frequencies", lambda self: np.zeros(self.dimensions // 2, "f4")
    )
    assert "does not say what its source says" in refused(converted, llama)


@pytest.mark.usefixtures("in_this_process")
def test_text_that_is_cut_another_way_is_found_out(llama, converted, monkeypatch):
    from linnix_plugin_gguf import vocabulary

    monkeypatch.setattr(vocabulary, "_pre_tokenizer", lambda *_: "gpt-2")
    said = refused(converted, llama)
    assert "does not cut text into tokens as the source does" in said


@pytest.mark.usefixtures("in_this_process")
def test_a_quantization_that_lost_too_much_is_found_out(llama, converted, monkeypatch):
    monkeypatch.setitem(checking._CORRELATIONS, "8", 0.999999)
    assert "the Q8_0 that was made does not say" in refused(converted, llama, "Q8_0")


@pytest.mark.usefixtures("in_this_process")
def test_numbers_too_large_for_f16_are_no_infinities(checkpoint, converted):
    path = checkpoint("qwen2", dtype="F32")
    weights = np.memmap(path / "model.safetensors", mode="r+")
    first = 8 + int.from_bytes(bytes(weights[:8]), "little")
    weights[first : first + 4] = np.array([1e6], dtype="<f4").view(np.uint8)
    weights.flush()
    assert "too large for F16 | convert to BF16 or F32" in refused(converted, path)


def test_the_reason_of_llama_cpp_is_told(llama, converted):
    said = refused(converted, llama, "IQ2_XXS")
    assert "llama.cpp cannot quantize it to IQ2_XXS" in said
    assert "imatrix" in said


def test_without_llama_cpp_nothing_begins(llama, converted, monkeypatch):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    said = refused(converted, llama, "Q4_K_M")
    assert "llama-cpp-python is not installed" in said
    assert "pip install 'linnix-plugin-gguf[llama]'" in said
    assert not (converted.place / "tiny.gguf").exists()


def test_a_disk_that_is_too_small_is_noticed_before(llama, converted, monkeypatch):
    free = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda path: free)
    said = refused(converted, llama, "Q4_K_M")
    assert "0.0 GB free" in said
    assert "deployment.local_models_dir" in said
    assert list((converted.place / "work").iterdir()) == []


@pytest.mark.usefixtures("in_this_process")
def test_what_is_no_text_is_no_token(checkpoint, converted):
    def edit(tree):
        tree["added_tokens"][-1]["content"] = "\ud800"

    path = checkpoint(edit={"tokenizer.json": edit})
    assert "holds what is no text" in refused(converted, path)


# --- other programs -------------------------------------------------------------------


@pytest.fixture
def llama_cpp(tmp_path):
    """A folder as that of llama.cpp, with programs that a test writes in Python."""

    def make(place, code):
        path = tmp_path / "llama.cpp" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport os, shutil, sys\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "llama.cpp"

    return make


def test_the_users_own_llama_quantize_is_used(llama, converted, llama_cpp):
    folder = llama_cpp(
        "build/bin/llama-quantize",
        "print('[   3/  21] blk.0.attn_k.weight - converting to q8_0', flush=True)\n"
        "print('x' * 1_000_000)\n"  # more than a pipe holds
        "source, target, kind, threads = sys.argv[1:]\n"
        "assert kind == 'Q8_0' and int(threads) > 0\n"
        "shutil.copy(source, target)",
    )
    made = converted(llama, "Q8_0", llama_cpp_dir=folder)
    assert ("quantizing", 3, 21) in made.steps
    assert "BF16" in {t.tensor_type.name for t in tensors(made.path).values()}  # a stand-in


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit('error: unsupported type')", "to Q8_0: error: unsupported type"),
        ("os.kill(os.getpid(), 11)", "signal 11 ended it (Segmentation fault)"),
        ("", "llama.cpp made no Q8_0"),
    ],
)
def test_a_tool_that_fails_is_an_error_and_no_silent_f16(llama_cpp, tmp_path, code, said):
    quantizer = tools.Quantizer.find(llama_cpp("llama-quantize", code))
    with pytest.raises(LinnixError, match=re.escape(said)):
        quantizer.quantize(tmp_path / "f16.gguf", tmp_path / "q.gguf", "Q8_0", lambda *step: None)
    assert not (tmp_path / "q.gguf").exists()


def other(checkpoint):
    return checkpoint(
        edit={"config.json": lambda tree: tree.update(architectures=["PhiForCausalLM"])}
    )


def test_another_architecture_needs_llama_cpps_converter(checkpoint, converted, tmp_path):
    said = refused(converted, other(checkpoint))
    assert "models of the kind 'PhiForCausalLM' are not converted here" in said
    assert "set deployment.llama_cpp_dir in sync.toml" in said
    assert "convert_hf_to_gguf.py" in refused(
        converted, tmp_path / "checkpoint", llama_cpp_dir=tmp_path
    )


def test_llama_cpps_converter_is_run_where_the_user_has_it(
    llama, checkpoint, converted, llama_cpp, tmp_path
):
    ready = converted(llama).path
    strange = {"tokenizer.json": lambda tree: tree.update(pre_tokenizer=None)}
    asked = tmp_path / "asked"
    folder = llama_cpp(
        "convert_hf_to_gguf.py",
        "source, _, target, _, kind = sys.argv[1:]\n"
        "assert kind in ('f16', 'auto') and source.endswith('checkpoint')\n"
        f"open({str(asked)!r}, 'w').write(kind)\n"
        f"shutil.copy({str(ready)!r}, target)",
    )
    made = converted(other(checkpoint), "Q8_0", llama_cpp_dir=folder)
    assert asked.read_text() == "auto"  # BF16 stays BF16 until it is quantized
    assert made.details["converted_by"] == "llama.cpp"
    assert made.details["compared_with"] == "what llama.cpp's script made, not the source"
    assert 0 < made.details["logits"]["error"] < 0.2
    assert check_weights(made.path).quantization == "Q8_0"
    # Nobody compared this one, and nobody says so.
    made = converted(other(checkpoint), "F16", llama_cpp_dir=folder)
    assert asked.read_text() == "f16"
    assert made.details["logits"] == "not compared with the source"
    assert "compared_with" not in made.details
    # A tokenizer that nobody knows here is one that it may know.
    said = refused(converted, checkpoint(edit=strange), llama_cpp_dir=folder)
    assert "does not cut text into tokens as the source does" in said
    assert "is none that is known here" in refused(converted, checkpoint(edit=strange))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "evil.Config"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a/b--evil.Tokenizer", None]}}),
        ("preprocessor_config.json", {"auto_map": {}}),
        ("config.4.0.0.json", {"auto_map": {"AutoConfig": "evil.Config"}}),
        ("config.json", {"configuration_files": ["further/config.4.0.0.json"]}),
    ],
)
def test_code_that_a_checkpoint_brings_is_not_run(
    checkpoint, converted, llama_cpp, tmp_path, file, said
):
    """llama.cpp's converter loads some tokenizers with trust_remote_code=True."""
    folder = llama_cpp("convert_hf_to_gguf.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = other(checkpoint)
    tree = json.loads((path / file).read_text()) if (path / file).exists() else {}
    (path / file).write_text(json.dumps({**tree, **said}))
    told = refused(converted, path, llama_cpp_dir=folder)
    assert f"{file} names code of its own ({next(iter(said))})" in told
    assert "if you trust it" in told
    assert not (tmp_path / "ran").exists()


def test_llama_cpps_converter_says_why_it_fails(checkpoint, converted, llama_cpp):
    folder = llama_cpp("convert_hf_to_gguf.py", "sys.exit('NotImplementedError: no such pre')")
    said = refused(converted, other(checkpoint), llama_cpp_dir=folder)
    assert "convert_hf_to_gguf.py cannot convert it: NotImplementedError: no such pre" in said


def test_a_file_of_the_current_folder_is_not_taken_for_a_library(
    llama, converted, tmp_path, monkeypatch
):
    (tmp_path / "numpy.py").write_text("raise SystemExit('no')")
    monkeypatch.chdir(tmp_path)
    assert converted(llama).path.exists()


def test_who_gives_up_leaves_nobody_at_work(llama, converted, llama_cpp, tmp_path):
    mark = tmp_path / "pid"
    folder = llama_cpp(
        "llama-quantize",
        f"open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "print('[1/21] x', file=sys.stderr, flush=True)\n"
        "import signal; signal.pause()",
    )

    class GaveUp(BaseException):
        pass

    def progress(what, done, total):
        if what == "quantizing":
            raise GaveUp

    request = converting.ConversionRequest(
        model_id="tiny", source=llama, target=tmp_path / "x.gguf", work=tmp_path,
        quantization="Q8_0", llama_cpp_dir=folder, progress=progress,
    )  # fmt: skip
    with pytest.raises(GaveUp):
        converting.convert(request)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), signal.SIG_DFL)
