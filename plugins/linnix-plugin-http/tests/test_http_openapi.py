"""The answers are what the document says, and nothing that is asked breaks the server."""

import json

import jsonschema
import pytest
import schemathesis
from click.testing import CliRunner
from http_client import Alarm, Guess, Reader, family
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from linnix_plugin_http.command import command
from linnix_plugin_http.openapi import describe
from linnix_plugin_http.operations import OPERATIONS

STREAMS = {each.path for each in OPERATIONS if each.media == "text/event-stream"}

#: Requests of each kind for each of about thirty operations; wrong ones take long to think of.
EXAMPLES = {GenerationMode.POSITIVE: 5, GenerationMode.NEGATIVE: 3}


@pytest.fixture(scope="module")
def described():
    return describe()


def test_the_document_is_the_one_that_is_served(busy, described):
    _, client = busy
    assert client.get("/openapi.json") == described
    done = CliRunner().invoke(command, ["openapi"])
    assert json.loads(done.output) == described


def test_the_document_names_every_operation(described):
    found = {(path, method.upper()) for path, item in described["paths"].items() for method in item}
    assert found == {(each.path, each.method) for each in OPERATIONS}
    for path, item in described["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (path, method)
            assert operation["x-linnix-scope"] == ("read" if method == "get" else "act")
    ids = [op["operationId"] for item in described["paths"].values() for op in item.values()]
    assert len(set(ids)) == len(ids)


def ask(operation, mode, client, known):
    """Ask one operation in many ways; how often that was."""
    asked = 0

    @settings(
        max_examples=EXAMPLES[mode],
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        nonlocal asked
        if operation.path == "/alerts":
            case.headers["Accept"] = "application/json"
        paths = [case.path_parameters]
        if "{id}" in operation.path and mode is GenerationMode.POSITIVE:
            paths.append({"id": known})
        for case.path_parameters in paths:
            response = case.call(base_url=client.url)
            assert response.status_code < 500 or response.status_code == 503
            assert "Traceback" not in response.text
            case.validate_response(response)
            asked += 1

    check()
    return asked


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_what_the_document_says(busy, described, mode):
    _, client = busy
    (incident,) = client.get("/incidents")
    (insight,) = client.get("/insights/recent")
    asked = 0
    for result in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = result.ok()
        if operation.path in STREAMS:
            continue
        if mode is GenerationMode.NEGATIVE and not operation_takes_anything(operation):
            continue
        known = insight["insight"]["id"] if "insights" in operation.path else incident["id"]
        asked += ask(operation, mode, client, known)
    assert asked > 40
    assert client.get("/healthz")["status"] == "ok"


def operation_takes_anything(operation):
    """Whether there is something in it that can be wrong."""
    raw = operation.definition.raw
    return bool(raw["parameters"] or raw.get("requestBody"))


def test_what_is_streamed_is_what_the_document_says(serve, described):
    _, client = serve(family(), handlers={"alarm": Alarm}, reasoners={"guess": Guess})
    shapes = {
        "event": "StreamedEvent",
        "alert": "Alert",
        "incident": "Incident",
        "insight": "Insight",
        "system": "SystemSample",
    }
    seen = set()
    with Reader(client, "/stream?type=all&last_event_id=0") as reader:
        while seen < set(shapes):
            (event,) = reader.events(1)
            if "id" not in event:
                continue
            kind = event["data"]["type"]
            seen.add(kind)
            schema = {
                "$ref": f"#/components/schemas/{shapes[kind]}",
                "components": described["components"],
            }
            jsonschema.Draft202012Validator(schema).validate(event["data"])
