# SPDX-License-Identifier: Apache-2.0
"""Finds ``queue=`` and ``executor=`` in the source of Dags, without running it."""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from airflow_dispatch_provider.migration.uses import Unread, Use

NAMES = ("queue", "executor")

Given = dict[str, ast.expr]
"""The expressions given for queue and executor at one place."""


def scan_source(source: bytes, name: str) -> tuple[list[Use], list[Unread]]:
    """Queues and executors that one Python file names: keyword arguments of every call (operators, ``@task(...)``,
    ``.override(...)``, ``.partial(...)``, ``dict(...)``), keys of every dict (``default_args``), ``x["queue"] = ...``,
    ``x.queue = ...``, attributes of classes, ``setattr`` and ``setdefault``.

    A name that is given one text at the top of the file, and nothing else anywhere in it, counts as that text. ``None``
    counts as not given. Never raises for a file that is no Python: that is something unread, too.

    :param name: how the file is called in what is found
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        constants = _constants(tree)
        places = [(node, given) for node in ast.walk(tree) if (given := _given(node))]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return [], [Unread(name, f"is no Python that can be read{f' (line {line})' if line else ''}")]
    uses: list[Use] = []
    unread: list[Unread] = []
    for node, given in sorted(places, key=lambda place: getattr(place[0], "lineno", 0)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        found, missed = _read(given, where, constants)
        uses += found
        unread += missed
    return uses, unread


def _given(node: ast.AST) -> Given:
    if isinstance(node, ast.Call):
        return {word.arg: word.value for word in node.keywords if word.arg in NAMES} or _set_by_call(node)
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {name: value for key, value in pairs if (name := _name(key)) is not None}
    if isinstance(node, ast.ClassDef):
        return {name: value for statement in node.body for name, value in _set_by(statement, of_class=True)}
    return dict(_set_by(node))


def _set_by(statement: ast.AST, of_class: bool = False) -> Iterator[tuple[str, ast.expr]]:
    """Names and values that an assignment sets.

    :param of_class: whether it stands in a class, where a bare name is an attribute
    """
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
        return
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        name: str | None = None
        if isinstance(target, ast.Name) and of_class:
            name = target.id
        elif isinstance(target, ast.Attribute) and not of_class:
            name = target.attr
        elif isinstance(target, ast.Subscript) and not of_class:
            name = _name(target.slice)
        if name in NAMES:
            yield name, statement.value


def _set_by_call(call: ast.Call) -> Given:
    """``setattr(x, "queue", value)`` and ``x.setdefault("queue", value)``."""
    function = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
    if function not in ("setattr", "setdefault") or len(call.args) < 2:
        return {}
    name = _name(call.args[-2])
    return {} if name is None else {name: call.args[-1]}


def _name(key: ast.expr | None) -> str | None:
    return key.value if isinstance(key, ast.Constant) and key.value in NAMES else None


def _read(given: Given, where: str, constants: Mapping[str, str]) -> tuple[list[Use], list[Unread]]:
    texts = {name: list(_texts(value, constants)) for name, value in given.items()}
    unread = [
        Unread(where, f"{name}= is computed", computed=True) for name in texts if _COMPUTED in texts[name]
    ]
    queues, executors = (
        [text for text in texts.get(name, [None]) if text is not _COMPUTED] or [None] for name in NAMES
    )
    pairs = dict.fromkeys(product(queues, executors))
    return [Use(where, queue, executor) for queue, executor in pairs if queue or executor], unread


_COMPUTED = "\0computed"
"""Stands for a text that is not known. No queue has a NUL in its name."""


def _texts(value: ast.expr, constants: Mapping[str, str]) -> Iterator[str | None]:
    """Everything that an expression may come to, as far as it stands there; None for None."""
    if isinstance(value, ast.IfExp):
        yield from _texts(value.body, constants)
        yield from _texts(value.orelse, constants)
    elif isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str)):
        yield value.value or None
    elif isinstance(value, ast.Name) and value.id in constants:
        yield constants[value.id]
    else:
        yield _COMPUTED


def _constants(tree: ast.Module) -> dict[str, str]:
    """Names at the top of the file that always mean the same text."""
    bound = Counter(_bound(ast.walk(tree)))
    return {name: text for statement in tree.body for name, text in _assigned(statement) if bound[name] == 1}


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    value = getattr(statement, "value", None)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield from ((target.id, value.value) for target in targets if isinstance(target, ast.Name))


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every name, as often as it is given a meaning."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
