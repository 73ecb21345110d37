"""Bundles, examples and recordings of the simulated host, and the command."""

import json

import attrs
import pytest
from click.testing import CliRunner

from linnix_core import CLASSES, Bundle, LinnixError, dump_bundle
from linnix_core.testing.records import reason_request
from linnix_plugin_heuristics import HeuristicsReasoner
from linnix_plugin_insight import Label, dump_example
from linnix_plugin_insight.commands import command
from linnix_plugin_insight.making import make_example


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """A configuration of its own, so that nothing of the user's is read."""
    path = tmp_path / "linnix.toml"
    path.write_text("")
    monkeypatch.setenv("LINNIX_CONFIG", str(path))
    return path


@pytest.fixture
def ask(linnix_context):
    return HeuristicsReasoner(None, linnix_context("reasoners.heuristics")).linnix_reason


@pytest.fixture
def bundle():
    return Bundle(reason_request("cpu_spin"))


@pytest.fixture
def example(bundle, ask):
    return make_example(bundle, ask, id="one")


@pytest.fixture(scope="session")
def every_example():
    ask = HeuristicsReasoner(None, None).linnix_reason
    made = []
    for class_ in CLASSES:
        for family in range(4):
            whole = reason_request(class_, name=f"{class_[:8]}{family}", seed=family)
            for number in range(2):
                request = whole
                fact = attrs.evolve(request.facts[0], value=100.0 * (family + 1) + number)
                request = attrs.evolve(request, facts=(fact, *request.facts[1:]))
                label = Label(class_, (), () if class_ == "normal" else ("P1",))
                made.append(
                    make_example(
                        Bundle(request),
                        ask,
                        id=f"{class_}-{family}-{number}",
                        label=label,
                        family=f"{class_}-{family}",
                    )
                )
    return made


@pytest.fixture
def examples(every_example):
    """Labelled ones: for each class four families, each with two incidents that differ a little."""
    return list(every_example)


@pytest.fixture
def write(tmp_path):
    """Write examples, documents or text as a file of lines; its path."""

    def write(lines, name="examples.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{_line(line)}\n" for line in lines))
        return path

    return write


def _line(line):
    if isinstance(line, str):
        return line
    return json.dumps(line) if isinstance(line, dict) else dump_example(line)


@pytest.fixture
def bundle_file(tmp_path, bundle):
    path = tmp_path / "incident.json"
    path.write_bytes(dump_bundle(bundle))
    return path


@attrs.frozen
class Said:
    """What the command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def linnix():
    """Run ``linnix insight`` with these arguments."""

    def linnix(*arguments, code=0, stdin=None):
        result = CliRunner().invoke(command, [str(a) for a in arguments], input=stdin)
        if isinstance(result.exception, LinnixError):
            said = Said(result.exception.exit_code, result.stdout, str(result.exception))
        else:
            said = Said(result.exit_code, result.stdout, result.stderr)
            assert result.exception is None or isinstance(result.exception, SystemExit), (
                result.exc_info
            )
        assert said.code == code, said
        return said

    return linnix
