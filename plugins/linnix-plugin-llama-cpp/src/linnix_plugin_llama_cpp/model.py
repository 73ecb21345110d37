"""A model in the memory of this process: what it is asked, and how long that may take."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Model"]

#: Tokens of the context that are kept free for a reply, if that may be so long.
ROOM = 160

#: Bytes of the text of one token.
MAX_PIECE = 256

#: How marks that begin or end a turn look: one word in angle or square brackets.
_MARK = re.compile(r"\s*(<[^<>\s]+>|\[[^\[\]\s]+\])\s*")

_UNUSUAL = re.compile(r"[^A-Za-z0-9\s.,:;=()%@+/-]")


class Late(Exception):
    """The time of a request is over."""


class Model:
    """A model that answers with what a grammar allows; for one thread."""

    def __init__(self, path: str, *, context: int, threads: int) -> None:
        # Any: what the bindings say of their types is not what they take.
        self._cpp = llama_cpp = _import("llama_cpp")
        formatting = _import("llama_cpp.llama_chat_format")
        self._llm = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        self._vocab = llama_cpp.llama_model_get_vocab(self._llm.model)
        trained = llama_cpp.llama_model_n_ctx_train(self._llm.model)
        self._limit = min(self._llm.n_ctx(), trained)
        self._bos = self._text(self._llm.token_bos())
        template = self._llm.metadata.get("tokenizer.chat_template")
        #: What the template is, and what fills it in.
        self._form = template or ""
        self._template = template and formatting.Jinja2ChatFormatter(
            template, eos_token=self._text(self._llm.token_eos()), bos_token=self._bos
        )
        #: What the model has read and remembers: how all prompts began so far.
        self._head: list[int] = []
        self._ends = 0.0
        # Kept here, since llama.cpp keeps addresses only.
        self._abort = llama_cpp.ggml_abort_callback(lambda _data: time.monotonic() > self._ends)
        self._never = llama_cpp.ggml_abort_callback()

    def about(self) -> dict[str, Any]:
        """What there is to know of it: name, quantization, context, whether it has a template."""
        buffer = ctypes.create_string_buffer(MAX_PIECE)
        self._cpp.llama_model_desc(self._llm.model, buffer, len(buffer))
        return {
            "name": self._llm.metadata.get("general.name", ""),
            # "llama 256M Q4_1": what is in the middle is guessed from the number of layers.
            "quantization": buffer.value.decode(errors="replace").rpartition(" ")[2],
            "context": self._limit,
            "template": bool(self._template),
        }

    def reply(
        self, messages: Sequence[Mapping[str, str]], grammar: str, max_tokens: int, ends: float
    ) -> dict[str, Any]:
        """A reply that fits the grammar, by a moment of ``time.monotonic()``.

        ``why`` is ``done``, ``cut`` or ``late``, or ``too long`` where the prompt is.
        """
        self._ends = ends
        prompt = self._prompt(messages)
        room = min(max_tokens, self._limit - len(prompt))
        if room < min(max_tokens, ROOM):
            return {"why": "too long", "input": len(prompt), "limit": self._limit}
        said: dict[str, Any] = {
            "why": "late",
            "text": "",
            "input": len(prompt),
            "output": 0,
            "seconds": 0.0,
        }
        try:
            self._read(prompt, self._beginning(prompt, messages))
        except Late:
            return said
        began = time.monotonic()
        for piece in itertools.islice(self._pieces(grammar), room):
            said["text"] += piece
            said["output"] += 1
            said["seconds"] = time.monotonic() - began
            # No text holds a brace: this is the end, whatever the model would add.
            if "}" in piece:
                return {**said, "why": "done"}
            if time.monotonic() > ends:
                return said
        return {**said, "why": "cut"}

    # --- the prompt -------------------------------------------------------------------

    def _prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        plain = [{**each, "content": self._plain(each["content"])} for each in messages]
        text = self._rendered(plain)
        begun = bool(self._bos) and text.startswith(self._bos)
        return self._tokens(text, add_bos=not begun, special=True)

    def _plain(self, content: str) -> str:
        """The content without what this model takes for its marks, such as ``<|im_end|>``."""
        for said in (content, _UNUSUAL.sub("?", content)):
            tokens = self._tokens(said, special=True)
            if tokens == self._tokens(said, special=False) and not self._marked(tokens):
                return said
        raise ValueError("what the model is told cannot be told apart from its own marks")

    def _marked(self, tokens: Sequence[int]) -> bool:
        """Whether there are marks among them that are found whether one wants them or not.

        Some files call the marks of a chat ordinary ("user-defined") tokens.
        """
        kind, ordinary = self._cpp.llama_vocab_get_attr, self._cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        found = {self._text(token) for token in tokens if kind(self._vocab, token) & ordinary}
        return any(_MARK.fullmatch(text) or self._begins_turn(text.strip()) for text in found)

    def _begins_turn(self, text: str) -> bool:
        """Whether the chat template writes this beside what it is given: ``USER:``."""
        return len(text) > 1 and text in self._form

    def _rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages as the model was trained to read them; one below the other if unknown."""
        if not self._template:
            return "".join(f"{each['content']}\n\n" for each in messages)
        system, user, *more = messages
        try:
            text = self._templated(messages)
        except Exception:  # noqa: BLE001 - a program of the model's; many refuse the role "system"
            text = ""
        if system["content"] not in text:
            both = {**user, "content": f"{system['content']}\n\n{user['content']}"}
            text = self._templated([both, *more])
        return text

    def _templated(self, messages: Sequence[Mapping[str, str]]) -> str:
        # A reply that has to be JSON leaves no room for thoughts.
        text: str = self._template(messages=messages, enable_thinking=False).prompt
        return text

    def _beginning(self, prompt: list[int], messages: Sequence[Mapping[str, str]]) -> list[int]:
        """What the prompt has in common with all that have the same instructions."""
        other = self._prompt([messages[0], {"role": "user", "content": "?"}])
        pairs = zip(prompt, other, strict=False)
        same = [mine for mine, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
        # Without the last token of the prompt, after which the reply begins.
        return same[: len(prompt) - 1]

    # --- the model --------------------------------------------------------------------

    def _read(self, prompt: list[int], head: list[int]) -> None:
        """Have the model read the prompt, except for a head that it remembers.

        In two parts also at the first time, so that one prompt always gives the same reply.
        """
        llm, cpp = self._llm, self._cpp
        memory = cpp.llama_get_memory(llm.ctx)
        cpp.llama_set_abort_callback(llm.ctx, self._abort, None)
        try:
            # Some kinds of models cannot forget a part.
            if head != self._head or not cpp.llama_memory_seq_rm(memory, 0, len(head), -1):
                self._head = []
                llm.reset()
                self._eval(head)
                self._head = head
            llm.n_tokens = len(head)
            self._eval(prompt[len(head) :])
        finally:
            # Reading goes in large steps. Writing does not, and would be slowed down.
            cpp.llama_set_abort_callback(llm.ctx, self._never, None)

    def _eval(self, tokens: list[int]) -> None:
        try:
            self._llm.eval(tokens)
        except RuntimeError:
            if time.monotonic() > self._ends:
                raise Late from None
            raise

    def _pieces(self, grammar: str) -> Iterator[str]:
        rules = self._cpp.LlamaGrammar.from_string(grammar, verbose=False)
        for token in self._llm.generate([], reset=False, temp=0.0, grammar=rules):
            yield self._text(token)

    def _tokens(self, text: str, *, add_bos: bool = False, special: bool) -> list[int]:
        tokens: list[int] = self._llm.tokenize(text.encode(), add_bos=add_bos, special=special)
        return tokens

    def _text(self, token: int) -> str:
        if token < 0:  # the model has no such mark
            return ""
        buffer = ctypes.create_string_buffer(MAX_PIECE)
        size = self._cpp.llama_token_to_piece(self._vocab, token, buffer, MAX_PIECE, 0, True)
        return buffer.raw[: max(size, 0)].decode(errors="replace")


def _import(name: str) -> Any:
    return importlib.import_module(name)
