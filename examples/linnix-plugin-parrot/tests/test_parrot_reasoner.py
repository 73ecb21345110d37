"""The reasoner repeats what a real server says, and nothing that is no answer."""

import json

import pytest

from linnix_core import Answer, Deployment, PluginUnavailable
from linnix_plugin_parrot.reasoner import ParrotConfig, ParrotReasoner

ANSWER = {
    "class": "fork_storm",
    "confidence": 80,
    "process": "P1",
    "facts": ["F1"],
    "actions": ["a1"],
}


@pytest.fixture
def make_reasoner(linnix_context):
    """A reasoner that finds this deployment under the name parrot, or none."""

    def make(deployment=None, name="parrot"):
        context = linnix_context("reasoners.parrot", deployment={"parrot": deployment}.get)
        return ParrotReasoner(ParrotConfig(deployment=name), context)

    return make


@pytest.fixture
def make_liar(make_reasoner, serve):
    """A reasoner whose server gives this reply to everything."""

    def make(reply, **options):
        return make_reasoner(Deployment("parrot", "parrot", "m", serve(reply, **options), "d"))

    return make


def test_it_repeats_the_class_and_the_first_facts(make_reasoner, deployer, spec, request_about):
    reasoner = make_reasoner(deployer.linnix_deploy(spec))
    reasoner.linnix_start()

    assert reasoner.linnix_reason(request_about("fork_storm")) == Answer(
        class_="fork_storm", confidence=80, process="P1", facts=("F1", "F2"), actions=("a1",)
    )


@pytest.mark.parametrize("class_", ["oom_risk", None])
def test_it_declines_what_the_model_never_heard_of(
    make_reasoner, deployer, spec, request_about, class_
):
    reasoner = make_reasoner(deployer.linnix_deploy(spec))
    assert reasoner.linnix_reason(request_about(class_)) is None


@pytest.mark.parametrize("deployment", ["parrot", "small"])
def test_without_a_deployment_it_says_what_to_type(make_reasoner, deployment):
    with pytest.raises(PluginUnavailable, match=f"deployed as {deployment}") as caught:
        make_reasoner(name=deployment).linnix_start()
    assert caught.value.hint == f"linnix parrot deploy FILE --name {deployment}"


def test_a_server_that_is_gone_is_told(make_reasoner, deployer, spec, request_about):
    deployment = deployer.linnix_deploy(spec)
    deployer.linnix_undeploy(deployment)
    with pytest.raises(PluginUnavailable, match="does not answer"):
        make_reasoner(deployment).linnix_reason(request_about("fork_storm"))


def test_it_waits_no_longer_than_it_may(make_liar, request_about):
    with pytest.raises(PluginUnavailable, match="timed out"):
        make_liar(None).linnix_reason(request_about("fork_storm", timeout_s=0.5))


def test_a_true_answer_is_believed(make_liar, request_about):
    reply = json.dumps({"digest": "d", "answer": ANSWER}).encode()
    answer = make_liar(reply).linnix_reason(request_about("fork_storm"))
    assert answer == Answer("fork_storm", 80, process="P1", facts=("F1",), actions=("a1",))


@pytest.mark.parametrize(
    "reply",
    [b"", b"hello", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 100_000]
    + [
        json.dumps(reply).encode()
        for reply in (
            {"digest": "another", "answer": ANSWER},
            {"digest": "d", "answer": "fork_storm"},
            *(
                {"digest": "d", "answer": {**ANSWER, **lie}}
                for lie in (
                    {"class": "earthquake"},
                    {"class": ["fork_storm"]},
                    {"confidence": 101},
                    {"confidence": -1},
                    {"confidence": True},
                    {"confidence": "80"},
                    {"process": "P9"},
                    {"process": {}},
                    {"facts": ["F9"]},
                    {"facts": "F1"},
                    {"facts": None},
                    {"actions": [["a1"]]},
                    {"actions": ["a1", "a2", "a1", "a2"]},
                )
            ),
        )
    ],
    ids=lambda reply: reply[:80].decode(errors="replace"),
)
def test_nonsense_is_declined(make_liar, request_about, reply):
    assert make_liar(reply).linnix_reason(request_about("fork_storm")) is None


def test_an_error_is_no_answer(make_liar, request_about):
    reply = json.dumps({"digest": "d", "answer": ANSWER}).encode()
    assert make_liar(reply, status=500).linnix_reason(request_about("fork_storm")) is None
