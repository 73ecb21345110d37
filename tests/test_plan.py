"""What a run consists of: what is configured, what was typed, and what runs by default.

Architecture, sections 6 and 8.
"""

from __future__ import annotations

import pytest

from linnix_core import LinnixError
from linnix_core.catalog import Catalog, PluginRecord
from linnix_core.config import ComponentSettings, Settings, read
from linnix_core.plan import Plan, make_plan

EVERYTHING = {
    "collectors": "ebpf bcc psutil psi replay",
    "handlers": "rules console prometheus http jsonl slack",
    "reasoners": "heuristics ollama llama-cpp openai",
    "deployers": "ollama",
}
BARE = {"collectors": "psutil", "handlers": "rules console jsonl", "reasoners": "heuristics"}


def catalog(offered: dict[str, str]) -> Catalog:
    return Catalog(
        PluginRecord(kind, name, "m:C", f"linnix-plugin-{name}", "1")
        for kind, names in offered.items()
        for name in names.split()
    )


@pytest.fixture
def plan_of(tmp_path):
    """The plan for a ``linnix.toml`` and what was typed."""

    def plan(toml: str = "", offered: dict[str, str] = EVERYTHING, **typed) -> Plan:
        settings = Settings()
        if toml:
            file = tmp_path / "linnix.toml"
            file.write_text(toml)
            settings = read(file, environ={})
        return make_plan(settings, catalog(offered), **typed)

    return plan


def paths(chosen: tuple[ComponentSettings, ...], kind: str = "") -> list[str]:
    return [c.path for c in chosen if c.path.startswith(kind)]


def test_without_anything_the_default_set_runs(plan_of):
    plan = plan_of()
    assert paths(plan.ladder) == ["collectors.ebpf", "collectors.bcc", "collectors.psutil"]
    assert paths(plan.components) == [
        "collectors.psi",
        "handlers.rules",
        "handlers.console",
        "handlers.prometheus",
        "handlers.http",
        "reasoners.heuristics",
    ]
    assert {c.origin for c in (*plan.components, *plan.ladder)} == {"default"}
    assert not any(c.required for c in (*plan.components, *plan.ladder))


def test_defaults_are_as_far_as_they_are_installed(plan_of):
    plan = plan_of(offered=BARE)
    assert paths(plan.ladder) == ["collectors.psutil"]
    assert paths(plan.components) == ["handlers.rules", "handlers.console", "reasoners.heuristics"]


def test_without_any_plugin_there_is_nothing_to_run(plan_of):
    assert plan_of(offered={}) == Plan()


def test_tables_add_to_the_defaults_and_come_first(plan_of):
    plan = plan_of("[handlers.jsonl]\npath = 'x'\n[reasoners.ollama]\n[deployers.ollama]\n")
    assert paths(plan.components, "handlers") == [
        "handlers.jsonl",
        "handlers.rules",
        "handlers.console",
        "handlers.prometheus",
        "handlers.http",
    ]
    assert paths(plan.components, "reasoners") == ["reasoners.ollama", "reasoners.heuristics"]
    assert paths(plan.components, "deployers") == ["deployers.ollama"]
    assert paths(plan.ladder) == ["collectors.ebpf", "collectors.bcc", "collectors.psutil"]


def test_a_table_of_a_default_configures_it_and_does_not_run_it_twice(plan_of):
    plan = plan_of("[handlers.console]\nmode = 'plain'\n")
    consoles = [c for c in plan.components if c.name == "console"]
    assert [(c.origin, c.options) for c in consoles] == [("configuration", {"mode": "plain"})]


def test_handlers_run_in_the_order_of_the_file(plan_of):
    plan = plan_of("[handlers.slack]\n[handlers.rules]\n[handlers.jsonl]\n")
    assert paths(plan.components, "handlers")[:3] == [
        "handlers.slack",
        "handlers.rules",
        "handlers.jsonl",
    ]


def test_enabled_false_takes_a_default_away(plan_of):
    plan = plan_of(
        "[handlers.console]\nenabled = false\n[reasoners.heuristics]\nenabled = false\n"
        "[collectors.psi]\nenabled = false\n[collectors.ebpf]\nenabled = false\n"
    )
    assert paths(plan.components) == ["handlers.rules", "handlers.prometheus", "handlers.http"]
    assert paths(plan.ladder) == ["collectors.bcc", "collectors.psutil"]


def test_a_table_of_a_collector_of_events_replaces_the_ladder(plan_of):
    plan = plan_of("[collectors.psutil]\ninterval = '1s'\n")
    assert plan.ladder == ()
    assert paths(plan.components, "collectors") == ["collectors.psutil", "collectors.psi"]


def test_a_table_of_a_companion_does_not(plan_of):
    plan = plan_of("[collectors.psi]\ninterval = '1s'\n")
    assert len(plan.ladder) == 3
    assert [c.origin for c in plan.components if c.name == "psi"] == ["configuration"]


def test_a_companion_under_another_name_is_one_still(plan_of):
    plan = plan_of("[collectors.pressure]\nplugin = 'linnix-plugin-psi:psi'\n")
    assert len(plan.ladder) == 3


def test_collector_on_the_command_line_replaces_the_ladder_and_keeps_companions(plan_of):
    plan = plan_of("[collectors.bcc]\n", collectors=["psutil"])
    assert plan.ladder == ()
    assert paths(plan.components, "collectors") == ["collectors.psutil", "collectors.psi"]
    plan = plan_of(collectors=["psutil", "replay"])
    assert paths(plan.components, "collectors") == [
        "collectors.psutil",
        "collectors.replay",
        "collectors.psi",
    ]


def test_what_is_played_back_is_not_mixed_with_what_is_measured_here(plan_of):
    assert paths(plan_of(collectors=["replay"]).components, "collectors") == ["collectors.replay"]
    plan = plan_of("[collectors.yesterday]\nplugin = 'replay'\n")
    assert paths(plan.components, "collectors") == ["collectors.yesterday"]


def test_handler_and_reasoner_on_the_command_line_add_to_what_runs(plan_of):
    plan = plan_of("[handlers.slack]\n", handlers=["jsonl:out.jsonl"], reasoners=["openai"])
    assert paths(plan.components, "handlers") == [
        "handlers.jsonl",
        "handlers.slack",
        "handlers.rules",
        "handlers.console",
        "handlers.prometheus",
        "handlers.http",
    ]
    assert paths(plan.components, "reasoners") == ["reasoners.openai", "reasoners.heuristics"]


def test_what_is_typed_is_required_and_so_is_what_says_so(plan_of):
    plan = plan_of("[handlers.slack]\nrequired = true\n", handlers=["jsonl"])
    assert {c.name: c.required for c in plan.components if c.kind == "handlers"} == {
        "jsonl": True,
        "slack": True,
        "rules": False,
        "console": False,
        "prometheus": False,
        "http": False,
    }


@pytest.mark.parametrize(
    ("typed", "argument"),
    [("jsonl", None), ("jsonl:", ""), ("jsonl:a.jsonl", "a.jsonl"), ("jsonl:C:/x:y", "C:/x:y")],
)
def test_the_argument_is_what_follows_the_first_colon(plan_of, typed, argument):
    first = plan_of(handlers=[typed]).components[1]
    assert (first.path, first.argument) == ("handlers.jsonl", argument)


def test_a_typed_name_takes_its_table_along_also_when_that_is_disabled(plan_of):
    toml = "[handlers.jsonl]\nenabled = false\nmax_bytes = 5\nqueue = 3\n"
    (typed,) = (c for c in plan_of(toml, handlers=["jsonl:x"]).components if c.name == "jsonl")
    assert typed.options == {"max_bytes": 5}
    assert (typed.reserved.enabled, typed.reserved.queue) == (True, 3)
    assert (typed.argument, typed.origin) == ("x", "command line")


def test_the_same_handler_twice_is_two_components_of_one_plugin(plan_of):
    plan = plan_of(handlers=["jsonl:a", "jsonl:b", "jsonl:c"])
    three = plan.components[1:4]
    assert [(c.name, c.plugin, c.argument) for c in three] == [
        ("jsonl", "jsonl", "a"),
        ("jsonl-2", "jsonl", "b"),
        ("jsonl-3", "jsonl", "c"),
    ]


def test_a_second_one_takes_no_name_that_the_file_has_given(plan_of):
    toml = "[handlers.jsonl-2]\nplugin = 'jsonl'\npath = 'of-the-file'\n"
    plan = plan_of(toml, handlers=["jsonl:a", "jsonl:b"])
    assert [(c.name, c.argument) for c in plan.components if c.plugin == "jsonl"] == [
        ("jsonl", "a"),
        ("jsonl-3", "b"),
        ("jsonl-2", None),
    ]


def test_an_instance_under_another_name_can_be_typed(plan_of):
    toml = "[handlers.archive]\nplugin = 'jsonl'\n"
    (typed,) = (c for c in plan_of(toml, handlers=["archive:x"]).components if c.argument)
    assert (typed.path, typed.plugin) == ("handlers.archive", "jsonl")


@pytest.mark.parametrize("written", ["llama.cpp", "llamacpp", "llama-cpp"])
def test_aliases_are_accepted_where_people_type(plan_of, written):
    assert paths(plan_of(reasoners=[written]).components, "reasoners")[0] == "reasoners.llama-cpp"
    plan = plan_of(f"[reasoners.'{written}']\n")
    assert paths(plan.components, "reasoners") == ["reasoners.llama-cpp", "reasoners.heuristics"]


def test_heuristics_are_asked_last_wherever_they_are_named(plan_of):
    last = ["reasoners.ollama", "reasoners.openai", "reasoners.heuristics"]
    toml = "[reasoners.heuristics]\n[reasoners.ollama]\n[reasoners.openai]\n"
    assert paths(plan_of(toml).components, "reasoners") == last
    plan = plan_of("[reasoners.openai]\n", reasoners=["heuristics", "ollama"])
    assert paths(plan.components, "reasoners") == last


def test_heuristics_of_a_chosen_distribution_are_asked_last_too(plan_of):
    toml = "[reasoners.rules]\nplugin = 'linnix-plugin-heuristics:heuristics'\n[reasoners.ollama]\n"
    plan = plan_of(toml, offered={"reasoners": "ollama"})
    assert paths(plan.components, "reasoners") == ["reasoners.ollama", "reasoners.rules"]


def test_reasoners_are_asked_in_the_order_in_which_they_were_typed_and_written(plan_of):
    plan = plan_of("[reasoners.openai]\n[reasoners.llama-cpp]\n", reasoners=["ollama"])
    assert paths(plan.components, "reasoners") == [
        "reasoners.ollama",
        "reasoners.openai",
        "reasoners.llama-cpp",
        "reasoners.heuristics",
    ]


def test_no_plugins_runs_only_what_was_typed(plan_of):
    toml = "[handlers.slack]\n[handlers.jsonl]\nmax_bytes = 5\n[deployers.ollama]\n"
    plan = plan_of(toml, collectors=["psutil"], handlers=["jsonl:x"], no_plugins=True)
    assert paths(plan.components) == ["collectors.psutil", "handlers.jsonl"]
    assert plan.ladder == ()
    assert plan.components[1].options == {"max_bytes": 5}


def test_no_plugins_without_a_collector_says_what_to_type(plan_of):
    with pytest.raises(LinnixError, match="no collector is") as error:
        plan_of(no_plugins=True, handlers=["jsonl"])
    assert "--collector" in error.value.hint


def test_what_is_not_installed_stays_in_the_plan_so_that_the_run_can_say_so(plan_of):
    plan = plan_of("[handlers.kafka]\n", handlers=["splunk"], offered=BARE)
    assert paths(plan.components, "handlers")[:2] == ["handlers.splunk", "handlers.kafka"]
