"""Datasets of incidents and their insights, and how well reasoners do on them."""

from linnix_plugin_insight.__about__ import __version__
from linnix_plugin_insight.example import BadExample, Example, Label, dump_example, load_example
from linnix_plugin_insight.making import anonymous, make_example
from linnix_plugin_insight.scoring import Score, score

__all__ = [
    "BadExample",
    "Example",
    "Label",
    "Score",
    "__version__",
    "anonymous",
    "dump_example",
    "load_example",
    "make_example",
    "score",
]
