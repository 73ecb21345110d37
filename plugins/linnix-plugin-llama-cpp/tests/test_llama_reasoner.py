"""The reasoner: its answers, what its keys do, what it says of itself, and a run with it."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import attrs
import pytest

from linnix_core import Alert, Answer, Evidence, IncidentProcess, LinnixError, Subject, hookimpl
from linnix_core.testing.injections import injected
from linnix_core.testing.records import reason_request
from linnix_plugin_llama_cpp import LlamaCppReasoner, LlamaCppReasonerConfig, weights
from linnix_plugin_openai import PromptTooLong, Refused, TooLate

PATIENCE_S = 60.0

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, which is built for ten minutes")


@pytest.fixture(scope="module")
def reasoner(make_model):
    """One that is asked by several tests."""
    reasoner = LlamaCppReasoner(LlamaCppReasonerConfig(model=make_model(), threads=1, nice=7), None)
    reasoner.linnix_start()
    yield reasoner
    reasoner.linnix_stop(time.monotonic() + PATIENCE_S)


def pid_of(reasoner):
    return reasoner._child.pid


def about(class_):
    return reason_request(class_, timeout_s=PATIENCE_S)


def contents(asked):
    return [[message["content"] for message in request["messages"]] for request in asked()]


# --- answers ------------------------------------------------------------------------------


def test_an_answer_is_made_of_what_was_given(reasoner):
    request = about("fork_storm")
    answer = reasoner.linnix_reason(request)
    assert answer.class_ in request.classes
    assert {*answer.facts} <= {fact.id for fact in request.facts}
    assert {*answer.actions} <= {action.id for action in request.actions}


def test_the_model_stays_in_memory_from_one_turn_to_the_next(reasoner):
    reasoner.linnix_reason(about("cpu_spin"))
    first = pid_of(reasoner)
    reasoner.linnix_reason(about("oom_risk"))
    assert pid_of(reasoner) == first


def test_the_same_question_has_the_same_answer_whatever_was_asked_before(make_reasoner, reasoner):
    request = about("cpu_spin")
    expected = make_reasoner().linnix_reason(request)
    reasoner.linnix_reason(about("io_saturation"))
    assert reasoner.linnix_reason(request) == expected
    assert reasoner.linnix_reason(request) == expected


def test_two_who_ask_at_once_take_turns(reasoner):
    with ThreadPoolExecutor(2) as pool:
        requests = [about("cpu_spin"), about("oom_risk")]
        together = list(pool.map(reasoner.linnix_reason, requests))
    assert together == [reasoner.linnix_reason(request) for request in requests]


def test_whoever_waits_too_long_for_a_turn_is_told(reasoner):
    with reasoner._turn, pytest.raises(TooLate, match="busy"):
        reasoner.linnix_reason(reason_request("cpu_spin", timeout_s=0.01))


def test_a_request_without_facts_is_not_for_a_model(make_reasoner):
    reasoner = make_reasoner()
    bare = attrs.evolve(about("cpu_spin"), facts=())
    assert reasoner.linnix_reason(bare) is None
    assert reasoner._child is None


def test_a_reply_that_is_no_answer_is_sent_back_once(make_reasoner, stand_in):
    stand_in("""
import json, sys
about = {"name": "", "quantization": "F32", "context": 4096, "template": True}
print(json.dumps({"loaded": about}), flush=True)
good = '{"class": "cpu_spin", "confidence": 9, "process": "P1", "facts": ["f1"], "actions": []}'
for text, line in zip(["nothing", good], sys.stdin):
    said = {"why": "done", "text": text, "input": 10, "output": 5, "seconds": 0.5}
    print(json.dumps(said), flush=True)
""")
    reasoner = make_reasoner()
    assert reasoner.linnix_reason(about("cpu_spin")).confidence == 9
    metrics = {m.name: m.value for m in reasoner.linnix_metrics()}
    assert metrics["linnix_llm_repairs"] == 1


# --- what the model is told ---------------------------------------------------------------


def test_the_model_sees_nothing_that_a_process_has_chosen(make_reasoner, asked):
    reasoner = make_reasoner()
    request = about("cpu_spin")
    reasoner.linnix_reason(request)
    for _, hostile in injected(request):
        reasoner.linnix_reason(hostile)
    (told,) = {tuple(each) for each in contents(asked)}
    assert "P1" in told[1]
    assert "java" not in told[1]


def test_names_are_shown_if_wanted(make_reasoner, asked):
    make_reasoner(names=True).linnix_reason(about("cpu_spin"))
    assert "java" in contents(asked)[0][1]


def test_the_demo_model_is_never_shown_names(make_reasoner, asked, tiny, monkeypatch):
    monkeypatch.setattr(weights, "find", lambda model: model or tiny)
    make_reasoner(model=None, names=True).linnix_reason(about("cpu_spin"))
    assert "java" not in contents(asked)[0][1]


def test_command_lines_are_shown_if_wanted(make_reasoner, asked):
    request = about("cpu_spin")
    subject = IncidentProcess(request.processes[0].key, "subject", args=("make", "-j99"))
    request = attrs.evolve(request, incident=attrs.evolve(request.incident, tree=(subject,)))
    make_reasoner().linnix_reason(request)
    make_reasoner(arguments=True).linnix_reason(request)
    without, with_them = contents(asked)
    assert "-j99" not in without[1]
    assert "-j99" in with_them[1]


def test_a_sentence_is_asked_for_if_wanted(make_reasoner, asked):
    make_reasoner().linnix_reason(about("cpu_spin"))
    make_reasoner(sentence=True).linnix_reason(about("cpu_spin"))
    assert ["sentence ::=" in request["grammar"] for request in asked()] == [False, True]


def test_what_looks_like_a_mark_of_the_model_is_told_as_text(reasoner):
    """As many tokens as any other word of its length; a mark would be one."""

    def tokens(text):
        child = reasoner._loaded()
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": text}]
        request = {"messages": messages, "grammar": 'root ::= "{}"', "max_tokens": 9}
        return child.ask(request, time.monotonic() + PATIENCE_S)["input"]

    assert tokens("<|im_end|>" * 7) == tokens("0123456789" * 7)


@pytest.mark.parametrize("template", [None, "refusing", "deaf"])
def test_the_instructions_arrive_whatever_the_template_makes_of_them(
    make_model, make_reasoner, template
):
    refusing = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
    )
    deaf = (
        "{% for message in messages %}{% if message['role'] != 'system' %}"
        "<|im_start|>{{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    templates = {None: None, "refusing": refusing, "deaf": deaf}
    reasoner = make_reasoner(model=make_model(template=templates[template]))
    assert reasoner.linnix_reason(about("cpu_spin")).facts
    metrics = {(m.name, *m.labels.values()): m.value for m in reasoner.linnix_metrics()}
    # The instructions alone have more than 1300 letters, each of which is a token.
    assert metrics["linnix_llm_tokens", "input"] > 1500
    plain = "the model has no chat template: it gets plain text"
    assert (plain in reasoner.linnix_health().limits) is (template is None)


# --- bounds -------------------------------------------------------------------------------


def test_what_a_model_cannot_hold_is_cut(make_reasoner):
    request = about("fork_storm")
    whole, cut = make_reasoner(), make_reasoner(context=2000)
    whole.linnix_reason(request)
    answer = cut.linnix_reason(request)
    assert {*answer.facts} <= {f"f{n}" for n in range(1, 9)}
    requests = {m.labels.get("outcome"): m.value for m in cut.linnix_metrics()}
    assert requests["answered"] == 1
    assert requests["failed"] == 1


def test_what_no_cut_makes_fit_is_declined_with_the_numbers(make_reasoner):
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens, and the model's context 512,"):
        make_reasoner(context=512).linnix_reason(about("fork_storm"))


def test_a_model_is_not_asked_for_more_than_it_was_trained_for(make_model, make_reasoner):
    small = make_reasoner(model=make_model(context=512), context=4096)
    with pytest.raises(PromptTooLong, match="context 512,"):
        small.linnix_reason(about("fork_storm"))


def test_a_reply_that_is_too_long_says_what_to_raise(make_reasoner):
    with pytest.raises(Refused, match="not done after 5 tokens") as caught:
        make_reasoner(max_tokens=5).linnix_reason(about("fork_storm"))
    assert caught.value.hint == "raise max_tokens"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context", 0),
        ("threads", 0),
        ("nice", 20),
        ("nice", -1),
        ("memory", 0),
        ("idle_after", 0.0),
        ("timeout", 0.0),
        ("max_tokens", 0),
    ],
)
def test_a_bound_that_makes_no_sense_is_a_mistake(key, value):
    with pytest.raises(ValueError, match=key):
        LlamaCppReasonerConfig(**{key: value})


def test_the_process_of_the_model_steps_back(reasoner):
    reasoner.linnix_reason(about("cpu_spin"))
    process = Path(f"/proc/{pid_of(reasoner)}")
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid_of(reasoner)) == min(ours + 7, 19)
    assert (process / "oom_score_adj").read_text() == "1000\n"
    assert "Max core file size        0" in (process / "limits").read_text()


def test_the_process_of_the_model_has_no_keys_of_others(make_reasoner, monkeypatch, stand_in):
    monkeypatch.setenv("OPENAI_API_KEY", "of-somebody-else")
    stand_in("import os, sys; sys.exit(' '.join(os.environ))")
    with pytest.raises(LinnixError, match="PATH") as caught:
        make_reasoner().linnix_reason(about("cpu_spin"))
    assert "OPENAI" not in str(caught.value)


def test_as_many_threads_compute_as_are_wanted(make_reasoner):
    counts = []
    for threads in (1, 3):
        reasoner = make_reasoner(threads=threads)
        reasoner.linnix_reason(about("cpu_spin"))
        counts.append(len(os.listdir(f"/proc/{pid_of(reasoner)}/task")))
    assert counts[1] == counts[0] + 2


def test_without_a_number_half_of_the_processors_compute(make_reasoner):
    usable = len(os.sched_getaffinity(0))
    assert make_reasoner(threads=None)._settings()["threads"] == max(usable // 2, 1)


def test_a_model_that_wants_more_memory_than_it_may_have_is_not_loaded(make_reasoner):
    with pytest.raises(LinnixError, match="model"):
        make_reasoner(memory=50_000_000).linnix_reason(about("cpu_spin"))


@pytest.mark.parametrize("memory", [None, 1 << 40])
def test_what_could_help_depends_on_whether_memory_is_bounded(make_reasoner, stand_in, memory):
    stand_in("""print('{"failed": "std::bad_alloc"}', flush=True)""")
    with pytest.raises(LinnixError, match="cannot be loaded: std::bad_alloc") as caught:
        make_reasoner(memory=memory).linnix_reason(about("cpu_spin"))
    assert ("more than memory allows" in caught.value.hint) == (memory is not None)


# --- what it says of itself ---------------------------------------------------------------


def test_a_model_that_was_not_needed_yet_is_not_in_memory(make_reasoner, tiny):
    health = make_reasoner().linnix_health()
    assert (health.status, health.reason) == ("ok", "")
    assert health.limits[0] == f"{tiny.name}; not in memory"


def test_health_says_which_model_it_is_and_how_fast_it_writes(reasoner):
    reasoner.linnix_reason(about("cpu_spin"))
    said, structured = reasoner.linnix_health().limits
    name, _, speed = said.rpartition(": ")
    assert name == "Tiny, F32"
    assert speed.endswith(" tokens/s")
    assert float(speed.split()[0]) > 0
    assert structured == "structured: enforced (grammar)"


def test_trouble_is_health_until_it_is_over(reasoner):
    with pytest.raises(LinnixError):
        reasoner.linnix_reason(reason_request("cpu_spin", timeout_s=0.001))
    assert reasoner.linnix_health().status == "degraded"
    reasoner.linnix_reason(about("cpu_spin"))
    assert reasoner.linnix_health().status == "ok"


def test_metrics_count_what_the_model_read_and_wrote(reasoner):
    reasoner.linnix_reason(about("cpu_spin"))
    metrics = {(m.name, *m.labels.values()): m.value for m in reasoner.linnix_metrics()}
    assert metrics["linnix_llm_requests", "answered"] >= 1
    assert metrics["linnix_llm_tokens", "input"] > metrics["linnix_llm_tokens", "output"] > 50
    assert metrics["linnix_llm_time",] > 0


# --- in a run -----------------------------------------------------------------------------


class Keeper:
    """A handler that hears the insights."""

    def __init__(self):
        self.insights = SimpleQueue()

    @hookimpl
    def linnix_insight(self, insight):
        self.insights.put(insight)


class Last:
    """The reasoner that is asked last."""

    @hookimpl
    def linnix_reason(self, request):
        return Answer("cpu_spin", 60, "P1", ("f1",), ("a1",))


@pytest.mark.parametrize("model", ["tiny", "broken"])
def test_an_incident_is_explained_and_no_process_is_left(
    linnix_runtime, linnix_records, tiny, tmp_path, model
):
    path = tiny
    if model == "broken":
        path = tmp_path / "broken.gguf"
        path.write_bytes(tiny.read_bytes()[:5000])
    keeper = Keeper()
    agent = linnix_runtime(
        handlers={"keeper": keeper},
        reasoners={"llama-cpp": LlamaCppReasoner, "last": Last()},
        options={"reasoners.llama-cpp": {"model": str(path), "threads": 1}},
        agent={"reason_timeout_s": PATIENCE_S},
        records=linnix_records(400),
    )
    assert agent.wait_idle(PATIENCE_S)
    process = next(p for p in agent.processes.view if p.sample is not None)
    agent.submit(
        Alert(
            "spin",
            "medium",
            "it spins",
            "cpu_spin",
            Subject(process.key, process.exe, process.comm, process.cgroup),
            (Evidence("cpu", 99, "%"), Evidence("threshold", 70, "%")),
            ts_ns=time.time_ns(),
        )
    )
    insight = keeper.insights.get(timeout=PATIENCE_S)
    assert insight.reasoner == ("llama-cpp" if model == "tiny" else "last")
    (component,) = (c for c in agent.host.components if c.name == "llama-cpp")
    child = component.instance._child
    agent.stop()
    assert child._process.returncode is not None
