"""The data that the model is made of: true, the same every time, and none of the held-out."""

import random

import pytest

from linnix_core import CLASSES, parse_answer, render_prompt
from linnix_plugin_insight.chat import gist


def _said(made, confidence=70):
    from training.answers import reply, right_process

    process = right_process(made.request, made.class_, made.culprits)
    return parse_answer(reply(made.request, made.class_, process, confidence), made.request)


@pytest.mark.parametrize("class_", CLASSES)
def test_every_class_is_made_up_with_an_answer_that_fits_the_schema(class_):
    from training.families import drawn

    for seed in range(12):
        made = drawn(seed, class_=class_)
        answer = _said(made)
        assert made.class_ == answer.class_ == class_
        assert answer.confidence == 70
        assert (answer.process is None) is (class_ == "normal")
        assert answer.facts
        assert bool(made.culprits) is (class_ != "normal")


def test_whoever_is_to_blame_is_named_even_if_the_alert_names_nobody():
    from training.families import drawn

    unnamed = [
        made
        for made in (drawn(seed, class_="oom_risk") for seed in range(120))
        if made.request.incident.subject.key is None
    ]
    assert unnamed
    for made in unnamed:
        # Who is not among those that use most is not in the request.
        assert _said(made).process == (made.culprits[0] if made.culprits else None)


def test_the_same_seed_gives_the_same_prompt_and_another_seed_another():
    from training.families import drawn

    first, again, other = (render_prompt(drawn(seed).request) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_every_family_is_drawn():
    from training.families import FAMILIES, drawn

    assert {drawn(seed, others=0).family for seed in range(160)} == set(FAMILIES)


def test_alerts_mislead_now_and_then():
    from training.families import drawn

    made = [drawn(seed, others=0) for seed in range(80)]
    wrong = [each for each in made if each.request.incident.class_ != each.class_]
    incidents = [each for each in wrong if each.class_ != "normal"]
    assert wrong
    assert incidents


def test_a_varied_example_keeps_what_is_true_of_it(examples):
    from training.varied import varied

    draw = random.Random(3)
    for example in examples:
        made = varied(example, examples, draw)
        assert made.class_ == example.label.class_
        assert bool(made.culprits) is bool(example.label.processes)
        assert _said(made).class_ == example.label.class_
        names = [p.comm for p in made.request.processes]
        assert names != [p.comm for p in example.bundle.request.processes]


def test_a_varied_example_has_its_new_pid_in_its_actions(examples):
    from training.varied import varied

    made = varied(examples[0], examples, random.Random(1))
    pid = made.request.incident.subject.key.pid
    assert pid != examples[0].bundle.request.incident.subject.key.pid
    assert made.request.actions[0].text.endswith(f" {pid}")


def test_no_prompt_of_the_training_is_one_of_the_held_out(held_out, examples):
    from training.families import drawn
    from training.varied import varied

    def told(request):
        return gist(render_prompt(request)[1]["content"])

    draw = random.Random(9)
    secret = {told(case.bundle.request) for case in held_out}
    made = [drawn(seed).request for seed in range(60)]
    made += [varied(draw.choice(examples), examples, draw).request for _ in range(100)]
    assert not secret & {told(request) for request in made}


def test_what_is_held_out_is_never_read(held_out, tmp_path):
    from training.corpus import Recorded

    from linnix_plugin_insight.example import dump_example

    path = tmp_path / "recorded.jsonl"
    path.write_text("\n".join(map(dump_example, held_out)))
    assert not Recorded.read([path], validation=False).examples
    assert not Recorded.read([path], validation=True).examples


def test_training_and_validation_share_no_family(tmp_path, examples):
    from training.corpus import Recorded

    from linnix_plugin_insight.example import dump_example

    path = tmp_path / "recorded.jsonl"
    path.write_text("\n".join(map(dump_example, examples)))
    families = [
        {example.family for example in Recorded.read([path], validation=which).examples}
        for which in (False, True)
    ]
    assert all(families)
    assert not families[0] & families[1]


def test_samples_are_the_same_for_the_same_seed_and_survive_a_file(tmp_path, examples):
    from training.corpus import Recorded, load, samples, save
    from training.tokenizing import Tokenizer

    tokenizer, recorded = Tokenizer(), Recorded(examples)
    made = list(samples(tokenizer, 4, 20, recorded))
    assert made == list(samples(tokenizer, 4, 20, recorded))
    save(tmp_path / "a.npz", made)
    assert load(tmp_path / "a.npz") == made
