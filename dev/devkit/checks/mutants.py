# SPDX-License-Identifier: Apache-2.0
"""Change one thing at a time in the code that decides, and see whether the unit tests notice.

A sample of all changes that mutmut knows is tried, in a copy of this checkout. Changes of nothing but a text, of what
is logged and of what an exception says are left out: words are held by the tests of whole commands. Ends with a table,
and with what no test noticed, as a diff.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from devkit.environment import (
    DEFAULT_AIRFLOW_VERSION,
    REPO,
    DevError,
    ensure,
    home,
    interrupt_on_signals,
    new_environment,
    python_of,
    run_uv,
    step,
)
from devkit.tables import Cell, table

MUTMUT = "mutmut==3.8.1"
PACKAGE = "airflow_dispatch_provider"
PURE = (
    "routing/*.py",
    "lifecycle/*.py",
    "dispatch/*.py",
    "engines/_adopting.py",
    "engines/_outstanding.py",
    "engines/foreign.py",
    "engines/outage.py",
    "engines/*/_machine.py",
    "engines/kubernetes/_creating.py",
    "engines/kubernetes/_lanes.py",
    "engines/kubernetes/_seen.py",
    "engines/kubernetes/_verdicts.py",
    "engines/celery/_flights.py",
    "engines/celery/_outbox.py",
    "engines/celery/_outgoing.py",
    "engines/celery/_receipts.py",
)
"""Below the package: routing, life cycle, dispatch loop, machines of the engines."""

TESTS = (
    "tests/unit/routing",
    "tests/unit/lifecycle",
    "tests/unit/dispatch",
    "tests/unit/engines",
    "tests/unit/executors",
    "tests/unit/bridge",
    "tests/unit/cli/test_commands.py",
)
"""Without those that are marked exhaustive: they need a minute for every mutant."""

_QUICKEST_FIRST = """
import json, pathlib

def pytest_collection_modifyitems(items):
    stats = pathlib.Path("mutmut-stats.json")
    took = json.loads(stats.read_text())["duration_by_test"] if stats.exists() else {}
    items.sort(key=lambda item: took.get(item.nodeid, 0))
"""
"""A plugin for pytest. mutmut chooses the tests that reach a change, and leaves their order open."""

_SURVIVED, _NO_TEST = 0, 33
"""Exit codes of a mutant's run, as mutmut keeps them; any other one is a mutant that was noticed."""

_EXAMPLES = """examples:
  ./dev/mutants                                  300 of them, over all rooms; takes some 20 minutes
  ./dev/mutants --mutants 50 'routing/*.py'      fewer, in one room
  ./dev/mutants --seed 7 --output json           others; for scripts
"""


@dataclass(frozen=True)
class Mutant:
    """One change, and what became of it.

    :ivar module: the file, below the package
    :ivar line: of the change
    :ivar noticed: whether a test failed with it
    """

    name: str
    module: str
    line: int
    noticed: bool
    diff: str


def main() -> int:
    interrupt_on_signals()
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="dispatch-mutants-") as folder:
        tried = _try(Path(folder) / "checkout", options)
    if options.output == "json":
        print(json.dumps([asdict(mutant) for mutant in tried], indent=2))
    else:
        _show(tried, options.seed)
    unnoticed = sum(not mutant.noticed for mutant in tried)
    return 0 if unnoticed <= options.allowed * len(tried) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev/mutants",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("modules", nargs="*", default=PURE, help="files below the package; globs are allowed")
    parser.add_argument(
        "--mutants", type=int, default=300, metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument(
        "--allowed",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="exit code 1 where a larger share is not noticed (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time (default: %(default)s)"
    )
    parser.add_argument("--output", choices=("table", "json"), default="table")
    return parser.parse_args()


def _try(checkout: Path, options: argparse.Namespace) -> list[Mutant]:
    python = _environment()
    _copy(checkout, options.modules)
    with step("Making the mutants, and running the tests without any of them"):
        _mutmut(python, checkout, options.jobs, "no such mutant")  # its list of names is made first
    code = {name: each for file in _metas(checkout) for name, each in _changes(file).items()}
    names = random.Random(options.seed).sample(sorted(code), min(options.mutants, len(code)))
    if not names:
        raise DevError(f"nothing to change in {', '.join(options.modules)} (files below {PACKAGE}/)")
    with step(f"Trying {len(names)} of {len(code)} mutants"):
        _mutmut(python, checkout, options.jobs, *names)
    ended = {name: end for file in _metas(checkout) for name, end in _ends(file).items()}
    return [replace(code[name], noticed=_is_noticed(ended[name])) for name in sorted(names)]


def _is_noticed(end: int | None) -> bool:
    if end is None:
        raise DevError("mutmut has not run all mutants (see above)")
    return end not in (_SURVIVED, _NO_TEST)


def _environment() -> Path:
    """The Python of an environment with mutmut, over that of the tests."""
    tests = ensure(DEFAULT_AIRFLOW_VERSION)
    folder = home() / f"{MUTMUT.replace('==', '-')}-{tests.parents[1].name}"
    if not (folder / "complete.stamp").exists():
        with step(f"Installing {MUTMUT}"):
            python = new_environment(folder)
            run_uv(["pip", "install", "--quiet", "--python", str(python), MUTMUT])
            where = "import sysconfig; print(sysconfig.get_path('purelib'))"
            purelib = [
                subprocess.run(
                    [str(each), "-c", where], check=True, capture_output=True, text=True
                ).stdout.strip()
                for each in (python, tests)
            ]
            (Path(purelib[0]) / "tests.pth").write_text(f"{purelib[1]}\n")
            (folder / "complete.stamp").touch()
    return python_of(folder)


def _copy(checkout: Path, modules: Sequence[str]) -> None:
    """Copy all files that git knows or may come to know, and add mutmut's settings."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=REPO, check=True, capture_output=True, text=True).stdout.split("\0")
    for file in filter(None, files):
        if (REPO / file).is_file():
            (checkout / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / file, checkout / file)
    settings = {
        "source_paths": [f"{PACKAGE}/"],
        "only_mutate": [f"{PACKAGE}/{module}" for module in modules],
        "also_copy": ["tests/", "dev/", "docs/"],
        "pytest_add_cli_args_test_selection": list(TESTS),
        "pytest_add_cli_args": [
            "-p",
            "no:cacheprovider",
            "-p",
            "quickest_first",
            "-m",
            "not exhaustive",
            "-q",
        ],
        "timeout_constant": 10.0,
        "timeout_multiplier": 2.0,
    }
    (checkout / "plugins").mkdir()
    (checkout / "plugins" / "quickest_first.py").write_text(_QUICKEST_FIRST)
    options = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("\n[tool.mutmut]\n" + "\n".join(options) + "\n")


def _mutmut(python: Path, checkout: Path, jobs: int, *names: str) -> None:
    """Its output goes to stderr; its exit code says nothing of use."""
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(checkout / "airflow"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(checkout / "plugins"),
    }
    command = [str(python), "-m", "mutmut", "run", "--max-children", str(jobs), *names]
    subprocess.run(command, cwd=checkout, env=environ, check=False, stdout=2)


def _metas(checkout: Path) -> list[Path]:
    metas = sorted((checkout / "mutants" / PACKAGE).rglob("*.py.meta"))
    if not metas:
        raise DevError("mutmut has made no mutants (see above)")
    return metas


def _ends(meta: Path) -> dict[str, int | None]:
    ends: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    return ends


def _changes(meta: Path) -> dict[str, Mutant]:
    """Every mutant of a file that changes more than words; none is noticed yet."""
    mutated = meta.with_suffix("")
    checkout, _, module = str(mutated).partition(f"/mutants/{PACKAGE}/")
    original = ast.parse((Path(checkout) / PACKAGE / module).read_text())
    lines, early = dict(_lines(original)), _called_at_import(original)
    functions = {each.name: each for each in _functions(ast.parse(mutated.read_text()))}
    changes = {}
    for name in _ends(meta):
        mangled, _, _ = name.rpartition(".")[2].partition("__mutmut_")
        before, after = functions.get(f"{mangled}__mutmut_orig"), functions.get(name.rpartition(".")[2])
        if before is None or after is None or mangled in early:
            continue
        path = _path_to_change(before, after)
        if not _is_words(path):
            line = max(getattr(node, "lineno", 0) for node, _ in path) - before.lineno + lines[mangled]
            changes[name] = Mutant(name, module, line, False, diff_of(before, after))
    return changes


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _lines(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Where each function begins, under the name that mutmut gives it."""
    for node in module.body:
        prefix = f"xǁ{node.name}ǁ" if isinstance(node, ast.ClassDef) else "x_"
        yield from ((f"{prefix}{function.name}", function.lineno) for function in _functions(node))


def _called_at_import(module: ast.Module) -> set[str]:
    """Functions that have been called before mutmut chooses a mutant, which would have no effect."""
    statements = (node for node in module.body if not isinstance(node, ast.FunctionDef | ast.ClassDef))
    nodes = (node for statement in statements for node in ast.walk(statement))
    return {
        f"x_{node.func.id}"
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _path_to_change(before: ast.AST, after: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """From the function down to the smallest node that differs, as it was and as it is."""
    children = [list(ast.iter_child_nodes(node)) for node in (before, after)]
    if type(before) is type(after) and len(children[0]) == len(children[1]):
        for pair in zip(*children, strict=True):
            if ast.dump(pair[0]) != ast.dump(pair[1]):
                return [(before, after), *_path_to_change(*pair)]
    return [(before, after)]


def _is_words(path: Sequence[tuple[ast.AST, ast.AST]]) -> bool:
    """Whether no caller can tell the difference, except a reader of texts, or one who tells False from None."""
    values = [node.value for node in path[-1] if isinstance(node, ast.Constant)]
    if len(values) == 2 and (all(isinstance(value, str) for value in values) or values == [False, None]):
        return True
    return any(isinstance(node, ast.Raise) or _is_log(node) or _is_unread(node) for node, _ in path)


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "self._log."))


def _is_unread(node: ast.AST) -> bool:
    """A type that is only told, and the ``strict`` of a zip of what is equally long."""
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "cast"


def _unnamed(function: ast.AST) -> ast.AST:
    """A copy that does not say which mutant it is."""
    copy = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(copy, ast.FunctionDef | ast.AsyncFunctionDef)
    copy.name = copy.name.partition("__mutmut_")[0]
    return copy


def diff_of(original: ast.AST, mutant: ast.AST) -> str:
    """The lines that differ."""
    before, after = (ast.unparse(_unnamed(each)).splitlines() for each in (original, mutant))
    return "\n".join(line for line in difflib.ndiff(before, after) if line[0] in "+-")


def _show(tried: Sequence[Mutant], seed: int) -> None:
    of_modules, of_rooms = _rows(tried, lambda mutant: mutant.module), _rows(tried, _room)
    rows = [*of_modules, ("", "", "", ""), *of_rooms, _row(f"all (seed {seed})", tried)]
    print(*table(("module", "mutants", "noticed", "share"), rows, {"share": ".0%"}), sep="\n")
    for mutant in tried:
        if not mutant.noticed:
            print(f"\nnot noticed: {mutant.module}:{mutant.line}\n{mutant.diff}")


def _room(mutant: Mutant) -> str:
    return str(Path(mutant.module).parent)


def _rows(tried: Sequence[Mutant], key: Callable[[Mutant], str]) -> list[tuple[Cell, ...]]:
    return [
        _row(name, [each for each in tried if key(each) == name]) for name in sorted(set(map(key, tried)))
    ]


def _row(name: str, mutants: Sequence[Mutant]) -> tuple[Cell, ...]:
    noticed = sum(mutant.noticed for mutant in mutants)
    return name, len(mutants), noticed, noticed / len(mutants)
