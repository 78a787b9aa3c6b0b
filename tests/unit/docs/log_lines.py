# SPDX-License-Identifier: Apache-2.0
"""Every line that the package can write to the log, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import airflow_dispatch_provider

PACKAGE = Path(airflow_dispatch_provider.__file__).parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_PLACEHOLDER = re.compile(r"%(?:\.\d+)?[srdf]")
_VALUE = r"(?:'?<[^<>]+>'?(?:\.? <[^<>]+>)*|\.\.\.)"
_PLACEHOLDERS = re.compile(rf"(?:{_PLACEHOLDER.pattern})+")


@dataclass(frozen=True)
class LogLine:
    """One call of a logger."""

    place: str
    """File and line."""

    template: str
    """With the placeholders of ``logging``."""

    levels: frozenset[str]
    """Those that it can have, e.g. ERROR the first time and DEBUG after that."""

    @property
    def passes_on(self) -> bool:
        """Whether the text is made elsewhere."""
        return not re.search(r"\w", _PLACEHOLDER.sub("", self.template))

    @property
    def warns(self) -> bool:
        return not self.levels <= {"DEBUG", "INFO"}

    def may_read(self, text: str) -> bool:
        """Whether a page may quote it so: with ``<...>`` for each value, or ``...``. What the line begins with may be
        in other words, since that names what it is about."""
        subject, *pieces = map(re.escape, _PLACEHOLDERS.split(" ".join(self.template.split())))
        values = "".join(f"{_VALUE}{piece}" for piece in pieces[not subject :])
        return re.fullmatch((subject or f".+{pieces[0]}") + values, text) is not None


def log_lines() -> list[LogLine]:
    return [line for file in sorted(PACKAGE.rglob("*.py")) for line in _of_file(file)]


def assigned(file: str, name: str) -> list[LogLine]:
    """The texts that a module assigns to a name, for those that are logged elsewhere."""
    tree = ast.parse((PACKAGE / file).read_text())
    return [LogLine(f"{file}: {name}", text, frozenset()) for text in _texts(_values(tree, name))]


def told_by_the_life_cycle() -> list[LogLine]:
    """Texts of ``actions.Log``, which the dispatch loop logs."""
    return [line for file in sorted((PACKAGE / "lifecycle").glob("*.py")) for line in _told(file)]


def _told(file: Path) -> Iterator[LogLine]:
    tree = ast.parse(file.read_text())
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "Log":
            is_error, text, *_ = call.args
            assert isinstance(is_error, ast.Constant)
            level = "ERROR" if is_error.value else "INFO"
            for template in _texts(_resolved(text, tree)):
                yield LogLine(f"{file.name}:{call.lineno}", template, frozenset({level}))


def _of_file(file: Path) -> Iterator[LogLine]:
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for call in (node for node in ast.walk(tree) if _is_log_call(node)):
        assert isinstance(call, ast.Call)
        around = [function for function in functions if function.lineno <= call.lineno <= function.end_lineno]
        place = f"{file.relative_to(PACKAGE)}:{call.lineno}"
        yield from _lines(call, around[-1] if around else tree, place)


def _is_log_call(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    logger = node.func.value
    name = logger.id if isinstance(logger, ast.Name) else getattr(logger, "attr", None)
    return name in ("log", "_log", "logger") and node.func.attr in METHODS


def _lines(call: ast.Call, scope: ast.AST, place: str) -> Iterator[LogLine]:
    assert isinstance(call.func, ast.Attribute)
    method, arguments = call.func.attr, call.args
    if method == "log":
        level, *arguments = arguments
        levels = _levels(_resolved(level, scope))
    else:
        levels = frozenset({"ERROR" if method == "exception" else method.upper()})
    texts = list(_texts(_resolved(arguments[0], scope)))
    assert texts, (
        f"{place}: the text of this log line is neither a constant nor a local variable that has one"
    )
    assert levels, f"{place}: the level of this log line is not to be found"
    for text in texts:
        yield LogLine(place, text, levels)


def _resolved(node: ast.expr, scope: ast.AST) -> list[ast.expr]:
    return _values(scope, node.id) if isinstance(node, ast.Name) else [node]


def _values(scope: ast.AST, name: str) -> list[ast.expr]:
    return [
        node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]


def _texts(values: list[ast.expr]) -> Iterator[str]:
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.JoinedStr):
            yield "".join(_piece(piece) for piece in value.values)


def _piece(piece: ast.expr) -> str:
    return str(piece.value) if isinstance(piece, ast.Constant) else "%s"


def _levels(values: list[ast.expr]) -> frozenset[str]:
    nodes = [node for value in values for node in ast.walk(value)]
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.isupper())
