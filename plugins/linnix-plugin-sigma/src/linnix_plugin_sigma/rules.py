"""Sigma's rules: from the text of a file to what can be asked of an exec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import attrs
import yaml
from sigma.collection import SigmaCollection
from sigma.conditions import ConditionOR
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule, SigmaYAMLLoader

from linnix_core import printable
from linnix_plugin_sigma.config import Level
from linnix_plugin_sigma.matching import (
    POLICY,
    Predicate,
    Unsupported,
    compile_condition,
    image_names,
)

__all__ = ["Rule", "parse_rules"]

#: The level of a rule that has none.
DEFAULT_LEVEL: Level = "medium"

#: Sigma's conditions are a line; parsing one takes a while for each character.
MAX_CONDITION_CHARS = 4096

#: Levels of lists and mappings within each other. libyaml composes them recursively, and a
#: text that consists of brackets would end the process.
MAX_DEPTH = 200

_MAX_TAGS = 16


@attrs.frozen(eq=False)
class Rule:
    """What to ask of an exec, in ``matches``, and what to say if it is so.

    The texts are safe to show. ``images`` are the names one of which the executable must
    have, in small letters; None is any.
    """

    id: str
    title: str
    level: Level
    author: str
    tags: tuple[str, ...]
    images: frozenset[str] | None
    matches: Predicate


def parse_rules(text: str) -> Iterator[Rule | str]:
    """Each rule of a file, or the reason why there is none that can be used."""
    try:
        documents = _documents(text)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        yield f"it is no YAML: {error.problem or error}{where}"
        return
    except Exception as error:  # noqa: BLE001 - numbers and dates raise what they like
        yield f"it is no YAML: {error}"
        return
    for prefix, group in _groups(documents):
        for rule in _rules(group):
            yield f"{prefix}{rule}" if isinstance(rule, str) else rule
    if not documents:
        yield "it is empty"


def _documents(text: str) -> list[Any]:
    # No text is deeper than it has signs to make it so.
    if sum(map(text.count, "[{-?:")) > MAX_DEPTH:
        _check_depth(text)
    every = yaml.load_all(text, SigmaYAMLLoader)
    return [document for document in every if document is not None]


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, SigmaYAMLLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise Unsupported(f"more than {MAX_DEPTH} levels of lists within lists")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _groups(documents: list[Any]) -> Iterable[tuple[str, list[Any]]]:
    """Documents that are rules of their own, or all of them where one is about the others.

    Each with what comes before a reason, to tell it from others of the file.
    """
    collected = any(isinstance(document, dict) and "action" in document for document in documents)
    if collected or len(documents) == 1:
        return [("", documents)]
    return [(f"document {number}: ", [document]) for number, document in enumerate(documents, 1)]


def _rules(documents: list[Any]) -> Iterator[Rule | str]:
    try:
        for document in documents:
            _check_document(document, alone=len(documents) == 1)
        collection = SigmaCollection.from_dicts(
            documents, collect_errors=True, resolve_references=False, policy=POLICY
        )
        if not collection.rules:
            yield _said(collection.errors[0]) if collection.errors else "there is no rule in it"
    except Unsupported as error:
        yield str(error)
        return
    except Exception as error:  # noqa: BLE001 - pySigma takes some types for granted
        yield _said(error)
        return
    for parsed in collection.rules:
        try:
            yield _compile(parsed)
        except Unsupported as error:
            yield str(error)
        except RecursionError:
            yield "its condition is nested too deeply"
        except Exception as error:  # noqa: BLE001
            yield _said(error)


def _check_document(document: Any, *, alone: bool) -> None:
    """Refuse what is known not to work, before it is parsed at length."""
    if not isinstance(document, dict):
        raise Unsupported("it is no rule: a rule is a mapping")
    if "correlation" in document:
        raise Unsupported("correlations of several events are not supported")
    if "filter" in document:
        raise Unsupported("filters for other rules are not supported")
    if alone and isinstance(source := document.get("logsource"), dict):
        _check_logsource(source.get("product"), source.get("category"), source.get("service"))
    if isinstance(detection := document.get("detection"), dict):
        if "timeframe" in detection:
            raise Unsupported("counting events in a timeframe is not supported")
        conditions = detection.get("condition")
        for condition in conditions if isinstance(conditions, list) else [conditions]:
            if len(str(condition)) > MAX_CONDITION_CHARS:
                raise Unsupported(f"a condition is longer than {MAX_CONDITION_CHARS} characters")


def _check_logsource(product: Any, category: Any, service: Any) -> None:
    if product not in (None, "linux"):
        raise Unsupported(f"its logsource has the product {product}, and not linux")
    if category != "process_creation":
        found = "no category" if category is None else f"the category {category}"
        raise Unsupported(f"its logsource has {found}, and not process_creation")
    if service is not None:
        raise Unsupported(f"its logsource has the service {service}, and not none")


def _compile(parsed: Any) -> Rule:
    if parsed.errors:
        raise Unsupported(_said(parsed.errors[0]))
    if not isinstance(parsed, SigmaRule):
        raise Unsupported("it is no rule about single events")
    source = parsed.logsource
    _check_logsource(source.product, source.category, source.service)
    # Of several conditions one has to be met.
    condition = ConditionOR([each.parsed for each in parsed.detection.parsed_condition])
    return Rule(
        id="" if parsed.id is None else str(parsed.id),
        title=printable(parsed.title, 160),
        level=DEFAULT_LEVEL if parsed.level is None else cast(Level, parsed.level.name.lower()),
        author=printable(parsed.author or "", 200),
        tags=tuple(printable(str(tag), 64) for tag in parsed.tags[:_MAX_TAGS]),
        images=image_names(condition),
        matches=compile_condition(condition),
    )


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, SigmaError) else f"{type(error).__name__}: {text}"
