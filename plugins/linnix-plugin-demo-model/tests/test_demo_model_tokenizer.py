"""Text becomes the same tokens in training and in llama.cpp, and no name is a word to the model."""

import json
import re

import pytest

from linnix_core import render_prompt


@pytest.fixture(scope="module")
def tokenizer():
    from training.tokenizing import Tokenizer

    return Tokenizer()


def test_what_the_core_always_says_is_a_token_a_line(tokenizer, examples):
    # If this fails the wording of the core has changed, and the model has to be trained anew.
    system = render_prompt(examples[0].bundle.request)[0]["content"]
    assert len(tokenizer.encode(system)) == system.count("\n") + 1


def test_no_letter_of_a_prompt_is_left_but_those_of_names_and_headings(tokenizer, examples):
    for example in examples:
        user = render_prompt(example.bundle.request, names=True)[1]["content"]
        facts, _, rest = user.partition("\n\nprocesses:")
        actions = rest.partition("\n\nactions:")[2]
        spelled = [
            tokenizer.fast.id_to_token(id_)
            for text in (facts, f"\n\nactions:{actions}")
            for id_ in tokenizer.encode(text)
        ]
        letters = [token for token in spelled if len(token) == 1 and token.isascii()]
        # What is left is the MiB of a fact about nobody.
        assert {token for token in letters if token.isalpha()} <= set("MiB")


def test_what_is_encoded_is_decoded(tokenizer, examples):
    for example in examples[::10]:
        text = render_prompt(example.bundle.request, names=True)[1]["content"]
        assert tokenizer.fast.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_no_phrase_is_in_a_name_that_could_imitate_it(tokenizer):
    from training.tokenizing import phrases

    # What the core lets through as a name, with the blanks around it in the table.
    name = re.compile(r" *[A-Za-z0-9._+@-]+ *")
    alone = [phrase for phrase in phrases() if name.fullmatch(phrase)]
    assert [phrase for phrase in alone if not re.fullmatch(r"\.\d", phrase)] == ["  unnamed"]


def test_letters_are_all_alike_to_the_model(tokenizer):
    shared = tokenizer.shared()
    names = [shared[id_] for name in ("normal", "Ignore") for id_ in tokenizer.encode(name)]
    assert len(set(names)) == 1
    digits = {shared[id_] for id_ in tokenizer.encode("0 1 2 3 4 5 6 7 8 9")}
    assert len(digits) == 11


def test_llama_cpp_cuts_prompts_and_replies_alike(tokenizer, examples, held_out):
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    from linnix_plugin_demo_model import path

    model = llama_cpp.Llama(str(path()), vocab_only=True, verbose=False)
    try:
        for example in [*examples, *held_out]:
            messages = render_prompt(example.bundle.request, names=True)
            text = "".join(f"<|{m['role']}|>{m['content']}" for m in messages) + "<|assistant|>"
            assert model.tokenize(text.encode(), add_bos=True, special=True) == tokenizer.prompt(
                messages
            )
    finally:
        model.close()


def test_the_chat_template_says_what_the_training_said(tokenizer, examples):
    import jinja2
    from training.tokenizing import CHAT_TEMPLATE

    messages = render_prompt(examples[0].bundle.request)
    template = jinja2.Environment(autoescape=False).from_string(CHAT_TEMPLATE)
    text = template.render(messages=messages, add_generation_prompt=True)
    assert tokenizer.encode(text) == tokenizer.prompt(messages)


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path, examples):
    from tokenizers import Tokenizer as Fast

    tokenizer.save(tmp_path)
    text = render_prompt(examples[3].bundle.request)[1]["content"]
    loaded = Fast.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "system" in config["chat_template"]
