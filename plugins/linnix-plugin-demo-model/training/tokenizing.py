"""The tokenizer: bytes, and the constant phrases of a prompt as one token each.

The prompt of the core is mostly constant. A phrase that it always words alike is one token, so a
prompt of 4 kB has some 500; whatever else there is, is spelled byte by byte. No phrase is a blank
and then what could be a name: the names of processes, which follow a blank, are always spelled.

All letters share one embedding (see `Tokenizer.shared`): the model sees how long a name is, and
cannot read it. What a process calls itself, orders included, is lost on it by construction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Fast

from linnix_core import CLASSES, Evidence, ReasonRequest, render_prompt
from linnix_core.prompting import Message
from training.hosts import Host

__all__ = ["CHAT_TEMPLATE", "SPECIALS", "Tokenizer", "phrases"]

#: Roles are marks that no text can hold; a message ends with the next mark.
SPECIALS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}<|system|>{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% else %}<|assistant|>{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

MAX_FACTS, MAX_PROCESSES, MAX_ACTIONS = 64, 20, 12

#: Names of facts and units that the core and the plugins of this repository give.
_NAMES = """
alerts|threshold|window|forks|short jobs|execs|executions|crashes|oom kills|offender share|processes
cpu|io|rss|read|write|threads|fds|zombies|rss growth|rss growth at least|confidence|limit
time until limit|psi cpu some|psi cpu full|psi memory some|psi memory full|psi io some|psi io full
offender io|offender rss|offender cpu|offender forks|median lifetime|median lifetime limit
usual|surprise|descendants alive|descendants that ended lately|their median life
share with an exec|programs|CPU|RSS|reads|writes|machine CPU|cores|CPU stall, some|CPU stall, full
memory stall, some|memory stall, full|I/O stall, some|I/O stall, full|memory available|swap used
disk reads|disk writes|records lost within a minute|cgroup CPU|cgroup throttled|cgroup memory
cgroup memory limit|cgroup memory used|cgroup OOM kills|cgroup CPU stall, some
cgroup CPU stall, full|cgroup memory stall, some|cgroup memory stall, full
cgroup I/O stall, some|cgroup I/O stall, full|memory used|cpu percent|rss bytes
"""

_UNITS = (  # noqa: SIM905 - a list of words
    "% s MiB MiB/s By By/s forks short_jobs processes programs oom_kills kills records execs "
    "executions crashes threads zombies descriptors jobs"
).split()


def phrases() -> list[str]:
    """Every phrase that is one token, from what the core renders and the shape of a reply."""
    found: dict[str, None] = {}

    def add(*texts: str) -> None:
        found.update(dict.fromkeys(texts))

    for class_ in (*CLASSES, None):
        system, user = render_prompt(_bare_request(class_))
        add(*(f"{line}\n" for line in system["content"].split("\n") if line))
        add(system["content"].rpartition("\n")[2])
        for line in re.findall(r"^a\d+ (.*)$", user["content"], re.MULTILINE):
            add(*(part for part in re.split(r"4242", line) if len(part) > 2 and part != " 1"))
        add(f"detected: {class_ or 'unknown'}\n\nfacts:")
        if class_:
            add(f'{{"class": "{class_}", "confidence": ')
    add("\n\nprocesses:\nid", "\n\nactions:", "cpu%  rss_mib")
    for name in re.split(r"[|\n]", _NAMES.strip()):
        add(f"{name} = ")
    for unit in _UNITS:
        add(*(f" {unit} (P{n})" for n in range(1, MAX_PROCESSES + 1)))
        if not unit.replace("_", "").isalpha():
            add(f" {unit}")
    for n in range(1, MAX_PROCESSES + 1):
        add(f" (P{n})", f"\nP{n}", f"\nthe alerts name P{n}", f'"P{n}"')
    for n in range(1, MAX_FACTS + 1):
        add(f"\nf{n} ", f'"f{n}"')
    for n in range(1, MAX_ACTIONS + 1):
        add(f"\na{n} ", f'"a{n}"')
    add(*(f".{digit}" for digit in range(10)), *(" " * width for width in range(2, 17)))
    # How a process is shown whose name is kept back.
    add("  unnamed")
    add('"none"', ', "process": ', ', "facts": [', '], "actions": [', ", ", "]}")
    return list(found)


def _bare_request(class_: str | None) -> ReasonRequest:
    import random

    host = Host(random.Random(1))  # noqa: S311 - nothing is drawn that shows
    subject = host.process("x")
    subject.pid = 4242
    return host.request(class_, subject, [Evidence("alerts", 1, "alerts")])  # type: ignore[arg-type]


class Tokenizer:
    """Encodes as the shipped model's tokenizer does, in Python and in llama.cpp."""

    def __init__(self) -> None:
        # Bytes in the alphabet of GPT-2. One merge, of what is never in a text: readers of
        # GGUF want some.
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
        vocabulary = {char: index for index, char in enumerate(alphabet)}
        merge = (alphabet[0], alphabet[1])
        vocabulary["".join(merge)] = len(vocabulary)
        self.fast = Fast(models.BPE(vocab=vocabulary, merges=[merge]))
        self.fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.fast.decoder = decoders.ByteLevel()
        self.fast.add_special_tokens(list(SPECIALS))
        self.fast.add_tokens([AddedToken(text, normalized=False) for text in phrases()])
        self.size = self.fast.get_vocab_size()

    def shared(self) -> list[int]:
        """For each token the one whose embedding it has: that of ``x`` for every letter."""
        ids = list(range(self.size))
        letter = self.fast.token_to_id("x")
        digits = {self.fast.token_to_id(digit) for digit in "0123456789"}
        spelled = {self.fast.token_to_id(char) for char in pre_tokenizers.ByteLevel.alphabet()}
        keep = {self.fast.token_to_id(char) for char in "Ġ-="} | digits
        return [letter if id_ in spelled - keep else id_ for id_ in ids]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, marks included."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def id_of(self, token: str) -> int:
        """The id of what is one token; `KeyError` if it is none."""
        found: int | None = self.fast.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return found

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """What the chat template makes of the messages, up to where the model goes on."""
        return self.encode(
            "".join(f"<|{m['role']}|>{m['content']}" for m in messages) + "<|assistant|>"
        )

    def kinds(self) -> Iterable[tuple[str, str]]:
        """Each token with its kind: ``normal``, ``control`` or ``phrase``."""
        byte_like = 257
        for id_ in range(self.size):
            token = self.fast.id_to_token(id_)
            kind = "normal" if id_ < byte_like else "phrase"
            yield token, "control" if token in SPECIALS else kind

    def save(self, folder: Path) -> None:
        """``tokenizer.json`` and ``tokenizer_config.json`` as transformers reads them."""
        self.fast.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|system|>",
            "eos_token": "<|end|>",
            "pad_token": "<|pad|>",
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "chat_template": CHAT_TEMPLATE,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _byte_of(char: str) -> int:
    return _BYTES[char]


def _gpt2_bytes() -> dict[str, int]:
    """Which byte each character of the alphabet stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    mapped = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in set(plain)]
    return mapped | {chr(256 + n): byte for n, byte in enumerate(rest)}


_BYTES = _gpt2_bytes()
