"""A real vLLM, which is large and starts slowly: where LINNIX_TEST_VLLM names its Python.

Pytest does not look into this file unless it is told to, as ``nox -s vllm`` does; see the
README for how to install vLLM for it.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from linnix_core import ModelSpec, Secret
from linnix_core.testing.records import reason_request
from linnix_core.testing.waiting import eventually
from linnix_plugin_openai import Exchange, OpenAIConfig, OpenAIReasoner
from linnix_plugin_vllm import VllmDeployer, VllmDeployerConfig

PYTHON = os.environ.get("LINNIX_TEST_VLLM", "")

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="LINNIX_TEST_VLLM names no Python that has vLLM"),
    pytest.mark.timeout(1200),
]

#: For the build without a GPU; the rest of what it takes is memory for the context.
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
ARGUMENTS = (
    *("--max-num-seqs", "4", "--enforce-eager"),
    # Random weights would write blanks for ever, where a grammar allows them.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)

#: Makes a tiny model of random weights in one folder, and an adapter for it in another; vLLM's
#: Python has what is needed for that.
MAKER = """
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\\n"
    "{{ m['content'] }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)
WIDTH, RANK = 128, 8


def write_checkpoint(folder):
    torch.manual_seed(0)
    special = ["<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate([*letters, *special])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1]
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16384,
        bos_token_id=words[special[0]], eos_token_id=words[special[1]],
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def write_adapter(folder, base):
    folder.mkdir()
    said = {
        "base_model_name_or_path": str(base), "peft_type": "LORA", "task_type": "CAUSAL_LM",
        "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    tensors = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, WIDTH)
        tensors[f"{name}.lora_B.weight"] = torch.randn(WIDTH, RANK)
    save_file(tensors, folder / "adapter_model.safetensors")


write_checkpoint(Path(sys.argv[1]))
write_adapter(Path(sys.argv[2]), Path(sys.argv[1]))
"""


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / "checkpoint", tmp_path / "adapter"
    subprocess.run([PYTHON, "-c", MAKER, *map(str, made)], check=True, cwd=tmp_path)
    return made


def test_a_real_server_does_what_the_stand_in_does(folders, linnix_context):
    checkpoint, adapter = folders
    key = Secret("k1")
    config = VllmDeployerConfig(
        port=0, python=Path(PYTHON), context=16384, dtype="bfloat16", arguments=ARGUMENTS,
        environment=ENVIRONMENT, api_key=key, probe_timeout=120.0,
    )  # fmt: skip
    deployer = VllmDeployer(config, linnix_context("deployers.vllm"))
    spec = ModelSpec(
        "oracle",
        str(checkpoint),
        format="safetensors",
        options={"model_id": "m1", "lora": {"asm": str(adapter)}},
    )
    began = time.monotonic()
    made = deployer.linnix_deploy(spec)
    print(f"ready after {time.monotonic() - began:.0f} s")
    try:
        health = deployer.linnix_probe(made)
        assert (health.status, health.limits) == ("ok", ("structured: enforced (json_schema)",))
        assert deployer.linnix_deploy(spec) == made
        assert deployer.linnix_deployments() == [made]
        _answers_as_seen(made)
        context = linnix_context("reasoners.openai", deployment={"oracle": made}.get)
        config = OpenAIConfig(deployment="oracle", api_key=key, max_tokens=4000)
        request = reason_request("fork_storm", timeout_s=300.0)
        assert OpenAIReasoner(config, context).linnix_reason(request).class_ in request.classes
        # Its engine is a process of its own, which outlives the server that is killed.
        server = deployer.servers.find("oracle")
        server.supervisor.send(signal.SIGKILL)
        assert server.process.wait(30)
    finally:
        deployer.linnix_undeploy(made)
    eventually(lambda: _session(server.process.pid), lambda left: not left)
    assert deployer.linnix_deployments() == []


def _session(leader):
    """The processes of a session that are still there."""
    done = subprocess.run(
        ["ps", "-s", str(leader), "-o", "stat=,args="], capture_output=True, text=True
    )
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


def _answers_as_seen(made):
    """What the stand-in copies."""
    url = f"{made.endpoint}/chat/completions"
    asked = {
        "model": "oracle",
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": 16,
    }
    with_key, without = (Exchange(made.endpoint, api_key=key) for key in ("k1", ""))
    assert without.get(made.endpoint.removesuffix("/v1") + "/health", 30).status == 200
    assert without.post(url, asked, 30).status == 401
    assert with_key.post(url, {**asked, "model": "unknown"}, 30).status == 404
    assert with_key.post(url, {**asked, "model": "asm"}, 120).is_success
    listed = with_key.get(f"{made.endpoint}/models", 30).document["data"]
    assert [model["id"] for model in listed] == ["oracle", "asm"]
    with_key.close()
    without.close()
