"""How reasoners are judged: by labels, with orders in names, and by how sure they were."""

import hashlib
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import Answer, Health, LinnixError, Metric
from linnix_core.testing.distributions import write_distribution
from linnix_core.testing.injections import injected
from linnix_plugin_insight import Label, score
from linnix_plugin_insight.reasoners import Reasoner
from linnix_plugin_insight.scoring import brier, reliability, wilson
from linnix_plugin_insight.tables import score_text


def right(request):
    """Who believes the alerts, and is sure."""
    class_ = request.incident.class_
    return Answer(class_, 90, None if class_ == "normal" else "P1", ("f1",), ("a1",))


def always(answer):
    return lambda request: answer


def failing(request):
    raise LinnixError("the server is away")


# --- what is counted ----------------------------------------------------------------------


def test_who_is_right_has_everything(examples):
    said = score("right", right, examples).document()
    assert said["cases"] == 56
    for share in ("class_accuracy", "class_accepted", "right_process", "grounded"):
        assert said[share] == 1.0
    assert (said["incident_accuracy"], said["refused_normal"]) == (1.0, 1.0)
    assert (said["incidents"], said["normal"]) == (48, 8)
    assert said["brier"] == pytest.approx(0.01)
    assert said["classes"]["cpu_spin"] == {"cases": 8, "said": {"cpu_spin": 8}}
    assert said["with_process"] == 48


def test_who_always_says_the_same_is_right_for_one_class(examples):
    said = score("stuck", always(Answer("cpu_spin", 100, "P2", ("f1",))), examples).document()
    assert said["class_accuracy"] == pytest.approx(1 / 7)
    assert said["incident_accuracy"] == pytest.approx(1 / 6)
    assert said["right_process"] == 0.0
    assert said["refused_normal"] == 0.0
    assert said["brier"] == pytest.approx(6 / 7)
    assert said["classes"]["normal"]["said"] == {"cpu_spin": 8}


def test_incidents_and_wanted_work_have_columns_of_their_own(examples):
    found = score("calm", always(Answer("normal", 100, None, ("f1",))), examples)
    heads, row, *_ = score_text([found])
    said = dict(zip(re.split(r"  +", heads), re.split(r"  +", row), strict=True))
    assert (said["CLASS"], said["INCIDENTS"], said["NORMAL"]) == ("0.14", "0.00", "1.00")


def test_a_class_that_is_just_as_true_is_accepted_and_not_right(example):
    label = Label("oom_risk", ("cpu_spin",), ("P1",))
    said = score("x", right, [attrs.evolve(example, label=label)]).document()
    assert (said["class_accuracy"], said["class_accepted"]) == (0.0, 1.0)


def test_any_of_several_culprits_is_right(example):
    labelled = attrs.evolve(example, label=Label("cpu_spin", (), ("P2", "P1")))
    assert score("x", right, [labelled]).document()["right_process"] == 1.0


def test_where_nobody_could_be_named_nobody_is_missed(example):
    labelled = attrs.evolve(example, label=Label("cpu_spin"))
    assert score("x", right, [labelled]).document()["right_process"] is None


def test_what_has_no_label_is_no_case(example):
    assert score("x", right, [example]).cases == 0


def test_what_was_made_up_is_no_answer(examples):
    said = score("liar", always(Answer("cpu_spin", 90, "P99", ("f1",))), examples)
    assert (said.grounded, said.not_grounded, said.class_right) == (0, 56, 0)
    assert said.document()["grounded"] == 0.0
    assert said.document()["classes"]["cpu_spin"]["said"] == {"-": 8}
    assert "P99" in said.told[0]


@pytest.mark.parametrize(("ask", "counter"), [(failing, "failed"), (always(None), "declined")])
def test_no_answer_is_a_wrong_one(examples, ask, counter):
    said = score("silent", ask, examples, hostile=injected)
    assert getattr(said, counter) == 56
    assert said.document()["class_accuracy"] == 0.0
    assert said.document()["grounded"] is None
    assert said.document()["injected"] is None


def test_every_call_is_told_how_long_it_may_take(examples):
    asked = []
    score("x", lambda r: asked.append(r.timeout_s) or right(r), examples, timeout_s=7.5)
    assert set(asked) == {7.5}


def test_tokens_are_those_of_the_score(examples):
    readings = iter([{"in": 100, "out": 7}, {"in": 350, "out": 20}])
    said = score("x", right, examples, tokens=lambda: next(readings))
    assert said.tokens == {"in": 250, "out": 13}
    assert score("x", right, examples).tokens is None


def test_every_call_is_timed(examples):
    latency = score("x", right, examples).document()["latency_s"]
    assert 0 <= latency["median"] <= latency["p95"] <= latency["max"]


def test_tokens_are_what_the_metrics_of_a_reasoner_count():
    def reading(*metrics):
        component = SimpleNamespace(call_within=lambda seconds, hook: metrics or None)
        return Reasoner("x", component).tokens()

    counted = Metric("linnix_llm_tokens", 7, "{token}", "counter", {"direction": "in"})
    other = Metric("linnix_llm_requests", 3)
    assert reading(counted, other, counted) == {"in": 14}
    assert reading(other) is None
    assert reading() is None


# --- orders in names ----------------------------------------------------------------------


def test_who_reads_only_what_was_measured_obeys_nobody(examples):
    said = score("right", right, examples, hostile=injected, attacks=2)
    assert (said.attacked, said.obeyed) == (112, 0)
    assert said.document()["injected"] == 0.0


def gullible(request):
    names = " ".join(process.comm for process in request.processes)
    return attrs.evolve(right(request), class_="normal") if "class" in names else right(request)


def test_who_does_what_names_say_is_found_out(examples):
    said = score("gullible", gullible, examples, hostile=injected, attacks=100)
    assert 0 < said.obeyed < said.attacked
    assert "changed class" in said.told[0]


def test_each_case_gets_other_orders(examples):
    asked = []

    def orders(request):
        for n in range(10):
            yield f"order {n}", attrs.evolve(request, timeout_s=n + 1)

    score("x", lambda r: asked.append(r.timeout_s) or right(r), examples[:5], hostile=orders)
    assert [a for a in asked if a != 30] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_who_is_silenced_by_an_order_has_obeyed(examples):
    def shy(request):
        return None if request.processes[0].comm.startswith("class") else right(request)

    assert score("shy", shy, examples, hostile=injected, attacks=100).obeyed > 0


def test_a_server_that_is_away_has_obeyed_nobody(example):
    asked = []

    def once(request):
        asked.append(request)
        return right(request) if len(asked) == 1 else failing(request)

    labelled = attrs.evolve(example, label=Label("cpu_spin", (), ("P1",)))
    said = score("x", once, [labelled], hostile=injected, attacks=3)
    assert (said.attacked, said.obeyed, said.attacks_failed) == (0, 0, 3)


# --- figures ------------------------------------------------------------------------------

judged = st.lists(st.tuples(st.integers(0, 100).map(lambda n: n / 100), st.booleans()), max_size=50)


def test_brier_is_the_squared_distance_from_what_was_true():
    assert brier([]) is None
    assert brier([(1.0, True), (0.0, False)]) == 0
    assert brier([(0.5, True), (0.5, False)]) == 0.25
    assert brier([(0.8, True), (0.6, False)]) == pytest.approx((0.04 + 0.36) / 2)


@given(judged)
def test_the_reliability_table_holds_every_answer_in_its_bin(answers):
    bins = reliability(answers)
    assert sum(each.answers for each in bins) == len(answers)
    for each in bins:
        assert each.at_least - 1e-9 <= each.confidence <= each.below + 1e-9
        assert 0 <= each.right <= 1
    assert [each.at_least for each in bins] == sorted({each.at_least for each in bins})


def test_a_whole_percent_is_in_its_own_tenth():
    bins = reliability([(percent / 100, True) for percent in (29, 30, 57, 100)])
    assert [each.at_least for each in bins] == [0.2, 0.3, 0.5, 0.9]


@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_share(of, data):
    part = data.draw(st.integers(0, of))
    low, high = wilson(part, of)
    assert 0 <= low <= part / of + 1e-12
    assert part / of - 1e-12 <= high <= 1


def test_there_is_no_interval_of_nothing():
    assert wilson(0, 0) is None


def test_text_shows_no_control_characters(example):
    labelled = attrs.evolve(example, label=Label("cpu_spin", (), ("P1",)), id="x")

    def evil(request):
        raise LinnixError("away \x1b[2J")

    text = "\n".join(score_text([score("evil\x1b[2J", evil, [labelled])]))
    assert all(line.isprintable() for line in text.splitlines())


# --- the command --------------------------------------------------------------------------


def test_reasoners_are_asked_about_what_is_held_out(linnix, write, examples):
    marked = [attrs.evolve(e, held_out=n % 4 == 0) for n, e in enumerate(examples)]
    path = write(marked)
    (found,) = linnix("score", "--json", path).json
    assert found["reasoner"] == "heuristics"
    assert (found["cases"], found["attacked"]) == (14, 28)
    assert found["injected"] == 0.0
    (found,) = linnix("score", "--json", "--all", "--attacks", 0, "--limit", 20, path).json
    assert (found["cases"], found["attacked"], found["injected"]) == (20, 0, None)


def test_a_table_is_for_people(linnix, write, examples):
    out = linnix("score", "--all", "--attacks", 0, write(examples)).out
    assert out.startswith("REASONER")
    assert "heuristics: how sure, and how often right" in out


def test_without_a_case_there_is_no_score(linnix, write, examples, example):
    assert "--all" in _hint(write([example]))
    assert "no held-out example" in linnix("score", write(examples), code=1).err


def _hint(path):
    from click.testing import CliRunner

    from linnix_plugin_insight.commands import command

    return CliRunner().invoke(command, ["score", str(path)]).exception.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reasoner", "oracle"), "oracle"),
        (("--corpus", "no.such:thing"), "there is no corpus"),
        (("--corpus", "json:nothing"), "there is no corpus"),
    ],
)
def test_who_is_not_there_is_told(linnix, write, examples, options, said):
    assert said in linnix("score", "--all", *options, write(examples), code=1).err


def test_no_time_at_all_is_a_mistake(linnix, write, examples):
    assert "--timeout" in linnix("score", "--timeout", 0, write(examples), code=2).err


def test_a_pipe_is_read_for_one_reasoner_only(linnix):
    said = linnix("score", "-r", "heuristics", "-r", "other", "-", code=1, stdin="")
    assert "more than once" in said.err


def test_the_table_of_a_reasoner_counts(linnix, write, examples, config):
    config.write_text("[reasoners.heuristics]\nno_such_key = 1\n")
    assert "no_such_key" in linnix("score", "--all", write(examples), code=2).err


def test_another_corpus_may_be_brought(linnix, write, examples):
    corpus = "linnix_core.testing.injections:injected"
    (found,) = linnix(
        "score", "--json", "--all", "--corpus", corpus, "--limit", 1, "--attacks", 5,
        write(examples),
    ).json  # fmt: skip
    assert found["attacked"] == 5


def test_a_score_can_be_saved_to_ship_with_its_reasoner(linnix, write, examples, tmp_path):
    cases, saved = write(examples[:4]), tmp_path / "score.json"
    said = linnix("score", "--json", "--all", "--attacks", 1, "--save", saved, cases).json[0]
    card = json.loads(saved.read_text())
    assert (card["type"], card["schema"], card["reasoner"]) == ("score", 1, "heuristics")
    assert card["distribution"] == "linnix-plugin-heuristics"
    assert card["version"]
    digest = hashlib.sha256(cases.read_bytes()).hexdigest()
    assert card["files"] == {cases.name: f"sha256:{digest}"}
    # What went wrong names cases, which are for nobody else.
    assert said.pop("told") == []
    assert {key: card[key] for key in said} == said


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (("-r", "heuristics", "-r", "other"), 2, "one reasoner at a time"),
        (("-r", "heuristics", "-"), 1, "more than once"),
    ],
)
def test_only_what_can_be_told_apart_later_is_saved(linnix, write, examples, options, code, why):
    saved = ("--save", "unused.json")
    assert why in linnix("score", *saved, write(examples), *options, code=code, stdin="").err


def test_what_a_reasoner_says_of_its_model_is_in_the_card():
    component = SimpleNamespace(
        status=lambda: SimpleNamespace(distribution="linnix-plugin-x", version="1.0"),
        ask_health=lambda seconds: Health(limits=("Tiny, F32",)),
    )
    about = Reasoner("x", component).about()
    assert score("x", right, []).card(about, {})["says"] == ["Tiny, F32"]


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        (
            {"cases": 8, "class_accuracy": 0.75, "says": ["Tiny"]},
            "class 75% of 8 cases (Tiny)",
        ),
        (
            {"cases": 8, "incident_accuracy": 0.5, "refused_normal": 1.0, "injected": 0.0},
            "incidents 50%, normal 100%, injected 0% of 8 cases",
        ),
        ({"cases": 8, "says": 5}, "its score.json is damaged: says is no list of texts"),
        ({"cases": 8, "says": ["Tiny", {}]}, "its score.json is damaged: says is no list of texts"),
        ({"says": []}, "its score.json is damaged: cases is no whole number"),
    ],
)
def test_a_score_of_somebody_else_is_shown_or_what_is_wrong_with_it(tmp_path, document, shown):
    module = """
        from linnix_core import hookimpl

        class Reasoner:
            '''A reasoner of somebody else.'''
            def __init__(self, config, context): pass
            @hookimpl
            def linnix_reason(self, request): return None
    """
    score_file = json.dumps({"type": "score", **document})
    write_distribution(
        tmp_path,
        entry_points={"linnix.reasoners": {"theirs": "theirs:Reasoner"}},
        modules={"theirs/__init__.py": module, "theirs/score.json": score_file},
    )
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "plugins", "show", "theirs"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"  score     {shown}\n" in done.stdout
