#!/usr/bin/env python3
"""Ask a served model about one incident of each class, and show what it makes of them.

    . scripts/.env.distilled && python scripts/test_h200_model.py

The incidents are made up and small. The exit code is 1 if an answer was not usable, whatever
it said: how good a model is, `nox -s score` measures.
"""

# ruff: noqa: T201 - to print is what it is for

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import get_args

from linnix_core import IncidentClass, LinnixError, answer_schema, parse_answer, render_prompt
from linnix_core.testing.records import reason_request
from linnix_plugin_openai import Chat, Exchange, parse_address


def main() -> int:
    """Print a line for each incident."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--endpoint", default=os.environ.get("LLM_ENDPOINT", "http://127.0.0.1:8090/v1")
    )
    parser.add_argument("--model", default=os.environ.get("LLM_MODEL"))
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each answer")
    asked = parser.parse_args()
    url = parse_address(asked.endpoint)
    exchange = Exchange(url, api_key=os.environ.get("OPENAI_API_KEY", ""))
    chat = Chat(exchange, url, model=asked.model, max_tokens=400)
    right = unusable = 0
    classes = get_args(IncidentClass)
    for wanted in classes:
        request = reason_request(wanted)
        began = time.monotonic()
        try:
            text = chat.complete(render_prompt(request), answer_schema(request), asked.timeout)
            answer = parse_answer(text, request)
        except LinnixError as error:
            unusable += 1
            print(f"{wanted:16} no answer: {error}")
            continue
        right += answer.class_ == wanted
        print(
            f"{wanted:16} {answer.class_:16} {answer.confidence:3} %  {answer.process or 'none':5}"
            f" {','.join(answer.facts):12} {time.monotonic() - began:6.2f} s"
        )
    print(f"{right} of {len(classes)} classes right, {unusable} without a usable answer")
    return 1 if unusable else 0


if __name__ == "__main__":
    sys.exit(main())
