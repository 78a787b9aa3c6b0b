# SPDX-License-Identifier: Apache-2.0
"""An executor that cannot be imported: what is needed, what is installed, what to run."""

from __future__ import annotations

import re
import sys
import traceback
from types import ModuleType

import pytest
from airflow.executors.base_executor import BaseExecutor
from packaging.requirements import Requirement

from airflow_dispatch_provider.bridge import installed
from airflow_dispatch_provider.dispatch import backend
from airflow_dispatch_provider.dispatch.backend import import_executor_class
from airflow_dispatch_provider.exceptions import BackendUnavailable
from airflow_dispatch_provider.settings.model import BackendSettings

NEEDED = [Requirement("celery<5.7,>=5.5"), Requirement("kombu>=5.5")]


def unmet(**versions: str) -> list[installed.Unmet]:
    return list(installed.unmet_of(NEEDED, versions.get))


def test_what_is_installed_in_the_right_version_is_not_named():
    assert unmet(celery="5.6.3", kombu="5.5") == []


def test_a_prerelease_counts_as_installed():
    assert unmet(celery="5.6.0rc1", kombu="5.7.0b1") == []


def test_a_version_out_of_range_is_named_with_what_is_needed():
    (found,) = unmet(celery="5.7.0", kombu="5.6")
    assert str(found) == "celery<5.7,>=5.5 (5.7.0 is installed)"


PROVIDER = re.compile(r'Run: pip install "apache-airflow-providers-celery>=[\d.]+" (.*)')


def test_what_is_wrong_or_not_there_is_named_beside_the_provider():
    """pip then keeps to what the provider allows; this package may be on no index."""
    named = PROVIDER.fullmatch(installed.remedy_for("celery", unmet(celery="5.7.0")))
    assert named is not None
    assert named[1] == '"celery<5.7,>=5.5" "kombu>=5.5"'


def test_what_is_in_order_is_not_named():
    named = PROVIDER.fullmatch(installed.remedy_for("celery", unmet(celery="5.6.3", kombu="5.0")))
    assert named is not None
    assert named[1] == '"kombu>=5.5"'


@pytest.mark.parametrize("extra", sorted(set(installed.EXTRAS.values())))
def test_the_metadata_of_this_package_names_the_provider_of_each_extra(extra: str, monkeypatch):
    """With nothing installed, everything that the extra brings is missing, and nothing else."""
    monkeypatch.setattr(installed, "_installed_version", lambda name: None)
    names = {each.requirement.name for each in installed.unmet(extra)}
    assert f"apache-airflow-providers-{extra}" in names
    assert "apache-airflow" not in names


@pytest.mark.parametrize("extra", sorted(set(installed.EXTRAS.values())))
def test_nothing_is_missing_where_the_tests_run(extra: str):
    assert installed.unmet(extra) == []


ABSTRACT = """
from abc import ABC, abstractmethod
from airflow.executors.base_executor import BaseExecutor

class Mine(BaseExecutor, ABC):
    @abstractmethod
    def launch(self): ...
"""


def refused(executor: str) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        import_executor_class(BackendSettings(executor=executor, slots=1))
    return caught.value


def test_a_broken_import_names_the_version_that_is_wrong(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow_dispatch_provider.executors.celery_executor", None)
    monkeypatch.setattr(backend, "unmet", lambda extra: unmet(celery="5.7.0", kombu="5.6"))
    error = refused("CeleryExecutor")
    assert error.found.startswith("CeleryExecutor cannot be imported (ModuleNotFoundError: ")
    assert error.found.endswith(" It needs celery<5.7,>=5.5 (5.7.0 is installed).")
    named = PROVIDER.fullmatch(error.remedy)
    assert named is not None
    assert named[1] == '"celery<5.7,>=5.5"'
    assert str(error) == f"{error.found} {error.remedy}"


def test_where_all_is_installed_that_is_needed_no_package_is_blamed(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.providers.celery.executors.celery_executor", None)
    monkeypatch.setitem(sys.modules, "airflow_dispatch_provider.executors.celery_executor", None)
    error = refused("CeleryExecutor")
    assert "pip" not in error.remedy


def test_a_module_that_does_not_exist_is_to_be_corrected():
    assert refused("no.such.Executor").remedy.startswith("Correct 'executor', or install")


def test_a_module_that_fails_on_its_own_is_to_be_looked_at(tmp_path, monkeypatch):
    (tmp_path / "failing_executor.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    error = refused("failing_executor.Mine")
    assert "no_such_dependency" in error.found
    assert error.remedy == 'See what fails: python -c "import failing_executor".'


@pytest.mark.parametrize(
    "statement", ["raise ImportError(SECRET)", "raise RuntimeError(SECRET)", "sys.exit(SECRET)"]
)
def test_what_a_module_says_as_it_fails_is_not_repeated(statement, tmp_path, monkeypatch):
    """Nobody knows what it quotes; nor does it end the process."""
    (tmp_path / "telling_executor.py").write_text(f"import sys\nSECRET = 'hunter2'\n{statement}\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = refused("telling_executor.Mine")
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert error.remedy == 'See what fails: python -c "import telling_executor".'


def test_an_abstract_class_is_refused(tmp_path, monkeypatch):
    (tmp_path / "abstract_executor.py").write_text(ABSTRACT)
    monkeypatch.syspath_prepend(tmp_path)
    assert "is abstract" in refused("abstract_executor.Mine").found


def test_a_class_that_does_not_exist_names_the_likeliest_of_its_module(monkeypatch):
    module = ModuleType("mine")
    for name in ("SlowExecutor", "FastExecutor"):
        setattr(module, name, type(name, (BaseExecutor,), {"__module__": "mine"}))
    monkeypatch.setitem(sys.modules, "mine", module)
    error = refused("mine.FastExecuter")
    assert error.found == "mine has no FastExecuter."
    assert error.remedy == "Correct 'executor': mine has FastExecutor, SlowExecutor."


def test_a_class_that_is_no_executor_is_refused():
    assert "is not an executor" in refused("collections.OrderedDict").found


def test_a_name_without_a_module_is_told_what_there_is():
    assert refused("SelleryExecutor").remedy == (
        "Take LocalExecutor, CeleryExecutor, KubernetesExecutor, or an import path."
    )
