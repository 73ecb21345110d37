"""Chat templates for models that bring none, or none that Ollama knows.

Ollama runs no Jinja. It compares the template of a GGUF with those that it knows, and where
none is near, prompts reach the model without any marks. So a model gets the template of its
family here, in Ollama's own language, but only where Ollama has found none itself.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

import attrs

__all__ = ["FAMILIES", "RAW", "Family", "family_of", "read_chat_template"]

#: What Ollama shows for a model without a template.
RAW = "{{ .Prompt }}"

#: Bytes of a file in which its chat template is looked for, and of the template.
MAX_HEADER = 64 << 20
MAX_TEMPLATE = 1 << 20


@attrs.frozen
class Family:
    """How models of one kind are talked to.

    ``bases`` finds them by the last part of the base model's name, ``marks`` are found in
    their own templates: all of them must be there.
    """

    name: str
    bases: str
    marks: tuple[str, ...]
    template: str
    stop: tuple[str, ...]


_PHI4 = "{{ range .Messages }}<|im_start|>{{ .Role }}<|im_sep|>{{ .Content }}<|im_end|>{{ end }}"
_GEMMA = (
    "<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}<end_of_turn>\n"
    "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n"
)

#: Those with rarer marks first: some marks are parts of others' templates.
FAMILIES = (
    Family(
        "phi4",
        r"phi-?4(?!-mini)",
        ("<|im_sep|>",),
        f"{_PHI4}<|im_start|>assistant<|im_sep|>",
        ("<|im_start|>", "<|im_end|>"),
    ),
    Family(
        "chatml",
        r"qwen|smollm|chatml",
        ("<|im_start|>",),
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    Family(
        "llama3",
        r"(?<!tiny)llama-?_?3",
        ("<|start_header_id|>",),
        "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Family("gemma", r"gemma", ("<start_of_turn>",), _GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    Family(
        "phi3",
        r"phi-?3|phi-?4-mini",
        ("<|end|>", "<|assistant|>"),
        "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        ("<|end|>", "<|user|>", "<|assistant|>"),
    ),
    Family(
        "llama2",
        r"(?<!tiny)llama-?2|codellama",
        ("[INST]", "<<SYS>>"),
        "[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST]"
        " {{ .Response }}</s><s>",
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    Family(
        "mistral",
        r"mistral|mixtral",
        ("[INST]",),
        "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }} [/INST]"
        " {{ .Response }}</s>",
        ("[INST]", "[/INST]"),
    ),
    Family(
        "alpaca",
        r"alpaca",
        ("### Instruction",),
        "{{ if .System }}{{ .System }}\n\n{{ end }}### Instruction:\n{{ .Prompt }}\n\n"
        "### Response:\n{{ .Response }}\n\n",
        ("### Instruction:", "### Response:"),
    ),
)


def family_of(base_model: str, chat_template: str | None) -> Family | None:
    """The family by a model's own template, else by what it was made from; None if unknown.

    >>> family_of("Qwen/Qwen2.5-Coder-1.5B", None).name
    'chatml'
    >>> family_of("someone/else", "{% for m in messages %}[INST] …").name
    'mistral'
    """
    if chat_template is not None:
        for family in FAMILIES:
            if all(mark in chat_template for mark in family.marks):
                return family
    name = base_model.rpartition("/")[2].casefold()
    return next((family for family in FAMILIES if re.search(family.bases, name)), None)


def read_chat_template(path: Path) -> str | None:
    """The chat template that a GGUF brings, None without one. Raises `OSError`."""
    key = b"tokenizer.chat_template"
    # A text of GGUF is its length and its bytes; 8 is the type of a text.
    begin = struct.pack("<Q", len(key)) + key + struct.pack("<I", 8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as header:
        found = header.find(begin, 0, MAX_HEADER)
        start = found + len(begin) + 8
        if found < 0 or start > len(header):
            return None
        (length,) = struct.unpack("<Q", header[start - 8 : start])
        text = header[start : start + min(length, MAX_TEMPLATE)]
    return text.decode("utf-8", "replace") if 0 < length == len(text) else None
