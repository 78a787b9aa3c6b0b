# SPDX-License-Identifier: Apache-2.0
"""The names of Airflow, its providers, Celery and so on that the package uses, found by reading its code.

Followed are imports and what is assigned from them, parameters annotated with their classes, ``self`` and ``super()``
in their subclasses, and the usual names of Airflow's objects (``CONVENTIONS``). A branch behind a gate of
``version_compat`` counts only where the gate is open: what is found is what the installed versions have to have.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from pkgutil import walk_packages
from textwrap import dedent
from typing import Any

from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey

import airflow_dispatch_provider
from airflow_dispatch_provider.bridge import version_compat

OURS = airflow_dispatch_provider.__name__
FOREIGN = ("aiohttp", "airflow", "celery", "kombu", "kubernetes", "kubernetes_asyncio", "redis", "sqlalchemy")

LIBRARIES = (
    *("airflow.cli", "airflow.executors", "airflow.models", "airflow.sdk", "airflow.utils"),
    *("airflow.providers.celery", "airflow.providers.cncf.kubernetes"),
    *(
        "aiohttp",
        "amqp",
        "asyncio",
        "httpx2" if version_compat.AIRFLOW_V_3_4_PLUS else "httpx",
        "celery",
        "kombu",
        "kubernetes.client",
        "kubernetes.config",
        "kubernetes_asyncio.client",
    ),
    *("kubernetes_asyncio.config", "pluggy", "psutil", "redis", "selectors", "sqlalchemy", "threading"),
)
"""Where what is passed around comes from."""

GATES = {name: value for name, value in vars(version_compat).items() if isinstance(value, bool)}

CONVENTIONS: dict[str, tuple[type[Any], ...]] = {
    "executor": (BaseExecutor,),
    "ti": (TaskInstance, TaskInstanceKey, workloads.TaskInstance),
    "workload": (),  # anything: not all the kinds that the code tells apart are there before Airflow 3.3
}
"""Classes of variables by their names, where nothing says it better."""
if not version_compat.AIRFLOW_V_3_4_PLUS:
    from airflow.models.taskinstancehistory import TaskInstanceHistory

    CONVENTIONS["ti"] += (TaskInstanceHistory,)
if version_compat.AIRFLOW_V_3_3_PLUS:
    CONVENTIONS["workload"] = (workloads.ExecuteTask, workloads.ExecuteCallback, workloads.TestConnection)

_WORD = re.compile(r"[A-Za-z_]\w*")

INSTANCE = "()"
SUPER = "super()"


@dataclass(frozen=True)
class Ref:
    """The object that an expression stands for: a module, or an attribute on a way that begins there."""

    module: str
    """Importable; or a name of ``CONVENTIONS`` after a colon."""

    path: tuple[str, ...] = ()
    """Attributes; ``INSTANCE`` after a class is an object of it, ``SUPER`` what that inherits from others."""

    def __getitem__(self, name: str) -> Ref:
        return Ref(self.module, (*self.path, name))

    def __str__(self) -> str:
        return ".".join((self.module, *self.path))


@dataclass(frozen=True)
class Use:
    """A place where the package relies on a name, or on what a function takes by name."""

    ref: Ref
    where: str
    keywords: frozenset[str] = frozenset()


class Missing(Exception):
    """The installed versions do not have it."""


class Unknown(Exception):
    """An object that shows only when the code runs."""


@dataclass(frozen=True)
class Instance:
    """Stands for an object of one of these classes."""

    classes: tuple[type[Any], ...]


def modules() -> list[str]:
    """The modules of the package, by name."""
    found = walk_packages(airflow_dispatch_provider.__path__, f"{OURS}.")
    return [OURS, *(module.name for module in found)]


@cache
def read(module: str) -> Reader:
    """A module of the package, read as the installed Airflow has it run."""
    reader = Reader(module)
    reader.visit(tree_of(module))
    return reader


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def find(ref: Ref) -> Any:
    """The object that the reference leads to, or an ``Instance``; raises Missing or Unknown."""
    if ref.module.startswith(":"):
        found: Any = Instance(CONVENTIONS[ref.module[1:]])
    else:
        found = import_module(ref.module)
    for step in ref.path:
        found = _step(found, step)
    return found


def check(use: Use) -> str | None:
    """The mistake in a use; None where there is none, or where only running it would tell."""
    try:
        found = find(use.ref)
    except Unknown:
        return None
    except (Missing, ImportError) as error:
        return f"{use.where}: {use.ref}: {error}"
    unknown = use.keywords - _parameters(found, use.keywords)
    return f"{use.where}: {use.ref} takes no {', '.join(sorted(unknown))}" if unknown else None


def is_open(test: ast.expr) -> bool | None:
    """The value of a condition with the installed Airflow; None where it is not about versions."""
    match test:
        case ast.Name(id=name):
            return GATES.get(name)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = is_open(operand)
            return None if value is None else not value
        case ast.BoolOp(op=op, values=values):
            known, decisive = [is_open(value) for value in values], isinstance(op, ast.Or)
            return decisive if decisive in known else None if None in known else not decisive
    return None


class Reader(ast.NodeVisitor):
    """Collects the uses of one module."""

    def __init__(self, module: str) -> None:
        self.uses: list[Use] = []
        self.loose: dict[str, str] = {}
        """Attributes of whatever it may be, each with the first place where it is used."""

        self._not_foreign: set[str] = set()
        self._module = module
        self._scopes: list[dict[str, Ref | None]] = [{name: Ref(f":{name}") for name in CONVENTIONS}, {}]

    def generic_visit(self, node: ast.AST) -> None:
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._visit_block(value)
            else:
                for each in value if isinstance(value, list) else [value]:
                    if isinstance(each, ast.AST):
                        self.visit(each)

    def _visit_block(self, statements: Sequence[ast.stmt]) -> bool:
        """Visit what can be reached; returns whether what follows cannot."""
        for statement in statements:
            gate = is_open(statement.test) if isinstance(statement, ast.If) else None
            if isinstance(statement, ast.If) and gate is not None:
                ended = self._visit_block(statement.body if gate else statement.orelse)
            else:
                self.visit(statement)
                ended = isinstance(statement, (ast.Return, ast.Raise))
            if ended:
                return True
        return False

    def visit_IfExp(self, node: ast.IfExp) -> None:
        gate = is_open(node.test)
        self.visit(node.test)
        for taken, branch in ((True, node.body), (False, node.orelse)):
            if gate in (None, taken):
                self.visit(branch)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for value in node.values:
            self.visit(value)
            if is_open(value) is isinstance(node.op, ast.Or):
                return

    @staticmethod
    def _root(node: ast.expr) -> str | None:
        while isinstance(node, ast.Attribute):
            node = node.value
        return node.id if isinstance(node, ast.Name) else None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] not in FOREIGN:
                self._not_foreign.add(alias.asname or alias.name.split(".")[0])
            else:
                self._use(Ref(alias.name), node)
                name = alias.asname or alias.name.split(".")[0]
                self._scopes[-1][name] = Ref(alias.name if alias.asname else name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if (node.module or "").split(".")[0] not in FOREIGN:
                self._not_foreign.add(alias.asname or alias.name)
            else:
                self._scopes[-1][alias.asname or alias.name] = ref = Ref(str(node.module))[alias.name]
                self._use(ref, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, self.resolve(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._bind(node.target, self.resolve(node.value) or self._instance(node.annotation))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scopes.append({"self": Ref(self._module)[node.name][INSTANCE]})
        self.generic_visit(node)
        self._scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        found = {each.arg: self._instance(each.annotation) for each in arguments}
        self._scopes.append({name: ref for name, ref in found.items() if ref})
        self.generic_visit(node)
        self._scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._use(self.resolve(node), node)
        if self.resolve(node) is None and self._root(node) not in self._not_foreign:
            self.loose.setdefault(node.attr, f"{self._module}:{node.lineno}")
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._use(self.resolve(node), node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        named = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
        self._use(self.resolve(node.func), node, named)
        self._use(self.resolve(node), node)
        self.generic_visit(node)

    def resolve(self, node: ast.expr | None) -> Ref | None:
        """The object that an expression stands for; None where it is not of others, or shows only when it runs."""
        match node:
            case ast.Name(id=name):
                return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                owner = self.resolve(ast.Name(id="self"))
                return owner and owner[SUPER][name]
            case (
                ast.Attribute(value=value, attr=name)
                | ast.Subscript(
                    value=ast.Call(func=ast.Name(id="vars"), args=[value]),
                    slice=ast.Constant(value=str(name)),
                )
                | ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name))])
            ):
                owner = self.resolve(value)
                return owner and owner[name]
            case ast.Call(func=called):
                return self._instance(called)
        return None

    def _instance(self, of: ast.expr | None) -> Ref | None:
        ref = self.resolve(of)
        try:
            return ref[INSTANCE] if ref and inspect.isclass(find(ref)) else None
        except (Missing, Unknown, ImportError):
            return None

    def _bind(self, target: ast.expr, ref: Ref | None) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = ref

    def _use(self, ref: Ref | None, node: ast.AST, keywords: frozenset[str] = frozenset()) -> None:
        if ref is not None and ref.path[-1:] != (INSTANCE,):
            self.uses.append(Use(ref, f"{self._module}:{getattr(node, 'lineno', 0)}", keywords))


def _step(found: Any, step: str) -> Any:
    if step == INSTANCE:
        return Instance((found,))
    if step == SUPER:
        return Instance(tuple(cls for cls in found.classes[0].__mro__ if not _is_ours(cls)))
    if isinstance(found, Instance):
        return _attribute_of_instance(found.classes, step)
    if inspect.isclass(found):
        return _attribute_of_class(found, step)
    if not hasattr(found, step):
        if inspect.ismodule(found):
            return import_module(f"{found.__name__}.{step}")
        raise Missing(f"{type(found).__name__} has no {step}")
    return getattr(found, step)


def _attribute_of_instance(classes: Sequence[type[Any]], name: str) -> Any:
    if not any(not _is_ours(base) for cls in classes for base in cls.__mro__[:-1]):
        raise Unknown
    candidates = {base for cls in classes for relative in _relatives(cls) for base in relative.__mro__}
    if any(name in members(base) or _has_any_attribute(base) for base in candidates):
        raise Unknown
    if classes[0] is BaseExecutor and name in _our_members():
        raise Unknown
    raise Missing(f"{' or '.join(cls.__name__ for cls in classes)} has no {name}")


def _has_any_attribute(cls: type[Any]) -> bool:
    """Whether it makes up attributes; what pydantic does so for are private ones."""
    return "__getattr__" in vars(cls) and not cls.__module__.startswith("pydantic")


def _attribute_of_class(cls: type[Any], name: str) -> Any:
    if not hasattr(cls, name):
        if any(name in members(base) for base in cls.__mro__):
            raise Unknown
        raise Missing(f"{cls.__name__} has no {name}")
    return getattr(cls, name)


def _relatives(cls: type[Any]) -> Iterator[type[Any]]:
    """A class of ours with those derived from it, which may define what its own methods use."""
    yield cls
    if _is_ours(cls):
        for derived in cls.__subclasses__():
            yield from _relatives(derived)


@cache
def members(cls: type[Any]) -> frozenset[str]:
    """Attributes of objects of a class by its own definition: also what its methods assign to ``self``."""
    names = {*vars(cls), *inspect.get_annotations(cls)}
    try:
        tree = ast.parse(dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return frozenset(names)
    return frozenset(names.union(_assigned_to_self(tree)))


def _assigned_to_self(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


@cache
def our_classes() -> tuple[type[Any], ...]:
    """Every class that a module of the package defines."""
    found = {
        value
        for module in modules()
        for value in vars(import_module(module)).values()
        if isinstance(value, type) and value.__module__ == module
    }
    return tuple(sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__)))


@cache
def _our_members() -> frozenset[str]:
    return frozenset(name for cls in our_classes() for name in members(cls))


def bases_of_others(cls: type[Any]) -> list[type[Any]]:
    """Those of the libraries that a class inherits from."""
    return [base for base in cls.__mro__ if base.__module__.split(".")[0] in FOREIGN]


def _is_ours(cls: type[Any]) -> bool:
    return cls.__module__.split(".")[0] == OURS


def _parameters(function: Any, asked: frozenset[str]) -> frozenset[str]:
    """Those that it takes by name; all that are ``asked`` for where that shows only when it runs."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return asked
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return asked
    return frozenset(parameters)


@cache
def words_of_libraries() -> frozenset[str]:
    """Every identifier in the source of the libraries in use, apart from generated models."""
    words: set[str] = set()
    for library in LIBRARIES:
        source = Path(str(import_module(library).__file__))
        for file in source.parent.rglob("*.py") if source.name == "__init__.py" else [source]:
            if "kubernetes" not in library or file.parent.name != "models":
                words.update(_WORD.findall(file.read_text(errors="replace")))
    return frozenset(words)


PYTHONS = (
    str,
    bytes,
    dict,
    list,
    set,
    tuple,
    int,
    float,
    ModuleSpec("m", None),
    os.waitid_result,
    os.stat_result,
)


@cache
def our_words() -> frozenset[str]:
    """Names that the package itself defines, and those of Python's own objects."""
    words = {name for each in (*our_classes(), *PYTHONS) for name in dir(each)}
    for module in modules():
        for node in ast.walk(tree_of(module)):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    words.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.AnnAssign(target=ast.Name(id=name)):
                    words.add(name)
    return frozenset(words)
