# SPDX-License-Identifier: Apache-2.0
"""Names that the package uses of Airflow and of other libraries exist in the installed versions."""

from __future__ import annotations

import ast

import foreign_names
import pytest
from foreign_names import Reader, check, modules, read

from airflow_dispatch_provider.bridge import version_compat

MODULES = modules()
AT_THE_EDGE = tuple(
    f"{foreign_names.OURS}.{room}"
    for room in ("bridge", "celery_worker", "engines", "dispatch", "executors", "cli")
)
"""Rooms that are handed objects of Airflow and other libraries."""


@pytest.mark.parametrize("module", MODULES)
def test_names_and_arguments_in_use_exist(module: str):
    """Those behind a gate for other Airflow versions are left out."""
    problems = map(check, read(module).uses)
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(AT_THE_EDGE)])
def test_attributes_of_objects_that_are_handed_over_occur_in_some_library(module: str):
    """Of what class such an object is shows only when it runs; a name that was dropped upstream is in no source."""
    known = foreign_names.our_words() | foreign_names.words_of_libraries()
    assert {name: where for name, where in read(module).loose.items() if name not in known} == {}


@pytest.mark.skipif(not version_compat.AIRFLOW_V_3_4_PLUS, reason="older versions need not know newer names")
@pytest.mark.parametrize(
    "cls", foreign_names.our_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
def test_what_the_package_does_not_use_itself_overrides_something(cls: type):
    """Airflow would never call a method that it has renamed, and nothing would fail."""
    others = foreign_names.bases_of_others(cls)
    if not others or ".testing." in cls.__module__:
        pytest.skip("has no such base class, or is there for the tests of others")
    used = {
        node.attr
        for module in MODULES
        for node in ast.walk(foreign_names.tree_of(module))
        if isinstance(node, ast.Attribute)
    }
    inherited = {name for base in others for name in foreign_names.members(base)}
    ours = [base for base in cls.__mro__ if base.__module__.startswith(foreign_names.OURS)]
    defined = {name for base in ours for name in vars(base) if not name.startswith("__")}
    assert defined - inherited - used == set()


def test_the_reader_finds_what_airflow_keeps_to_itself():
    """Through an alias, a subclass, an argument and a gate."""
    found = {str(use.ref) for module in MODULES for use in read(module).uses}
    assert {
        "airflow.settings.pod_mutation_hook",
        "airflow.executors.executor_loader.ExecutorLoader.get_executor_names",
        "airflow.models.taskinstance.TaskInstance.queued_by_job_id",
        ":executor.running",
    } <= found
    assert (":executor.executor_queues" in found) is version_compat.AIRFLOW_V_3_4_PLUS


def read_text(text: str, monkeypatch: pytest.MonkeyPatch, **gates: bool) -> list[str]:
    """The mistake in this code."""
    monkeypatch.setattr(foreign_names, "GATES", gates)
    reader = Reader("airflow_dispatch_provider.executors.local_executor")
    reader.visit(ast.parse(text))
    return [problem.partition(": ")[2] for use in reader.uses if (problem := check(use))]


IMPORT = "from airflow.executors.base_executor import BaseExecutor as Base\n"


@pytest.mark.parametrize(
    "text",
    [
        "import airflow.no_such",
        "from airflow.executors import no_such",
        f"{IMPORT}Base.no_such",
        f"{IMPORT}alias = Base\nalias.no_such",
        f"{IMPORT}vars(Base)['no_such']",
        f"{IMPORT}def f(x: Base): return x.no_such",
        f"{IMPORT}Base().no_such",
        f"{IMPORT}Base(no_such=1)",
        "class LocalExecutor:\n def f(self): self.no_such",
        "class LocalExecutor:\n def f(self): super().no_such()",
        "def f(executor): executor.no_such",
        "def f(ti): return ti.state if GATE else ti.no_such",
        f"{IMPORT}def f():\n if GATE: return Base.no_such",
    ],
)
def test_a_name_that_does_not_exist_is_found(text: str, monkeypatch):
    problems = read_text(text, monkeypatch, GATE="ti.state" not in text)
    assert problems
    assert all("no_such" in problem for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        f"{IMPORT}if GATE: Base.no_such",
        f"{IMPORT}x = Base.no_such if GATE else Base.start",
        f"{IMPORT}x = GATE and Base.no_such",
        f"{IMPORT}x = not GATE or Base.no_such",
        f"{IMPORT}def f():\n if not GATE: return 1\n return Base.no_such",
        f"{IMPORT}def f():\n if not GATE or g(): raise OSError\n return Base.no_such",
        f"{IMPORT}def f(x: Base):\n x = 1\n return x.no_such",
        "class LocalExecutor:\n def f(self): self.parallelism, self.event_buffer, self.queue_workload",
    ],
)
def test_what_is_behind_a_closed_gate_or_is_something_else_is_not_looked_up(text: str, monkeypatch):
    assert read_text(text, monkeypatch, GATE=False) == []
