"""What Python code imports, as far as can be told without running it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

__all__ = ["imports"]

_LINE = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\b|import\s+([\w., \t]+))", re.MULTILINE)


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level module of each import; of code of another Python by its lines.

    >>> list(imports("import os.path\\nimportlib.import_module('torch.nn')"))
    [(1, 'os'), (2, 'torch')]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source.encode("utf-8", "replace"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _by_lines(source)
        return
    for node in ast.walk(tree):
        for name in _of_node(node):
            yield node.lineno, name.split(".")[0]  # type: ignore[attr-defined]


def _of_node(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return [node.module]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        first = node.args[0].value
        if name in ("import_module", "__import__", "importorskip") and isinstance(first, str):
            return [first]
    return []


def _by_lines(source: str) -> Iterator[tuple[int, str]]:
    for match in _LINE.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        for name in (match[1] or match[2]).split(","):
            if words := name.split():
                yield line, words[0].split(".")[0]
