# SPDX-License-Identifier: Apache-2.0
"""Changes in behaviour, and what no configuration tells: one sentence each, of those that apply.
docs/migration.md says more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airflow_dispatch_provider.migration.executors import Entry, Kind
from airflow_dispatch_provider.migration.old import DEFAULT_EXECUTOR, OldConfig
from airflow_dispatch_provider.migration.plan import Plan
from airflow_dispatch_provider.migration.uses import Scan

Rows = Iterator[tuple[object, str]]
"""Whether a sentence applies, and the sentence."""

_LOCAL = frozenset({Kind.LOCAL, Kind.SEQUENTIAL, Kind.DEBUG})

_EXECUTOR_SECTIONS = frozenset({"core", "celery", "kubernetes", "kubernetes_executor"})


@dataclass(frozen=True)
class _Situation:
    old: OldConfig
    plan: Plan
    scan: Scan | None

    @property
    def hidden(self) -> str:
        """Options of executors that a command or a secret gives."""
        options = (option for option in self.old.options.values() if option.section in _EXECUTOR_SECTIONS)
        return ", ".join(
            sorted(option.label for option in options if option.name.endswith(("_cmd", "_secret")))
        )

    def paths(self, kind: Kind) -> str:
        return _listed(entry for entry in self.old.entries if entry.kind is kind)

    def option(self, section: str, name: str) -> str:
        option = self.old.options.get((section, name))
        return "" if option is None else option.value.strip()


def _listed(entries: Iterator[Entry]) -> str:
    return ", ".join(dict.fromkeys(entry.path for entry in entries))


def slots_words(old: OldConfig) -> str:
    """Where the numbers in the planned sections come from."""
    ones = sorted(kind.value for kind in old.kinds if kind.one_at_a_time)
    bounds = [f"1, as {kind} ran one task at a time" for kind in ones]
    if len(ones) < len(old.kinds):
        unlimited = f"{old.slots}, since [core] parallelism = 0 gave no number to go by"
        limited = f"{old.slots}, what [core] parallelism let one executor hold"
        bounds.insert(0, limited if old.parallelism else unlimited)
    return f"Slots of each backend: {'; '.join(bounds)}."


def changes(old: OldConfig, plan: Plan, scan: Scan | None) -> tuple[str, ...]:
    """Changes in behaviour, the weightiest first."""
    now = _Situation(old, plan, scan)
    return tuple(text for applies, text in (*_routing(now), *_backends(now)) if applies)


def unknowns(old: OldConfig, plan: Plan, scan: Scan | None) -> tuple[str, ...]:
    """Questions to somebody who knows the deployment."""
    now = _Situation(old, plan, scan)
    return tuple(text for applies, text in (*_deployment(now), *_elsewhere(now)) if applies)


def _routing(now: _Situation) -> Rows:
    old, new = now.old.parallelism, now.plan.parallelism
    yield (
        any(kind.hybrid for kind in now.old.kinds),
        "Kubernetes tasks have slots of their own: they no longer wait while the other backend is full.",
    )
    yield (
        now.old.several,
        "Tasks go by their `queue=`; `executor=` counts only for names listed in [core] executor.",
    )
    yield old == 0, f"[core] parallelism is {new}: Airflow 3 refuses 0, which meant no bound in Airflow 2."
    yield (
        old and old != new,
        f"[core] parallelism rises from {old} to {new}, the sum of all slots. If {old} bounded everything, divide it"
        " among the slots.",
    )


def _backends(now: _Situation) -> Rows:
    yield (
        any(kind.one_at_a_time for kind in now.old.kinds),
        "Local tasks still run one at a time. With a database other than SQLite, raise the slots and parallelism.",
    )
    yield (
        now.paths(Kind.OTHER),
        f"Kept by its path, as it is: {now.paths(Kind.OTHER)}. It still blocks the scheduler while it waits.",
    )
    yield (
        True,
        "Tasks that run at the switch are offered to the backends for adoption; queued ones are scheduled again."
        + (" Local ones end with their scheduler." if now.plan.kinds & _LOCAL else ""),
    )


def _deployment(now: _Situation) -> Rows:
    yield (
        now.old.executor_option is None,
        f"Which executor was used: [core] executor is not set, so {DEFAULT_EXECUTOR} is taken, the default of"
        " Airflow 3. Airflow 2 took SequentialExecutor. Give the right one with --executor.",
    )
    yield True, "How much each backend can really run: lower the slots that are more than there is room for."
    yield True, "How many schedulers there are: slots, like [core] parallelism, are for each of them."
    yield (
        now.scan is None,
        "Which `queue=` and `executor=` the Dags have: `airflow dispatch migrate --dags FOLDER`.",
    )
    yield (
        now.scan is not None and not now.scan.resolved,
        "Queues that are computed, or that a call takes from a dictionary (`**kwargs`): `airflow dispatch migrate"
        " --dags` without a folder reads them from the metadata database, as Airflow parsed them.",
    )
    yield (
        Kind.CELERY in now.plan.kinds,
        "Which queues the Celery workers listen on: see where `airflow celery worker --queues` is started.",
    )
    yield (
        Kind.KUBERNETES in now.plan.kinds,
        "What the pods have: their image needs the scheduler's Airflow, and an AIRFLOW__CORE__EXECUTOR in their"
        " template must be loadable if Dags keep an `executor=`.",
    )


def _elsewhere(now: _Situation) -> Rows:
    celery_config = now.option("celery", "celery_config_options")
    yield now.hidden, f"What these give, which were not run or looked up: {now.hidden}."
    yield now.option("secrets", "backend"), "What the secrets backend holds: it was not asked."
    yield (
        celery_config and not celery_config.startswith("airflow."),
        "Whether the module of [celery] celery_config_options imports airflow.config_templates.default_celery, which"
        " is airflow.providers.celery.executors.default_celery now.",
    )
