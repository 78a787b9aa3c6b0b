# SPDX-License-Identifier: Apache-2.0
"""What changes in behaviour, and what cannot be known from a configuration: fixed lists, of which those facts are given
that apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airflow_dispatch_provider.migration.executors import Kind
from airflow_dispatch_provider.migration.old import DEFAULT_EXECUTOR, OldConfig
from airflow_dispatch_provider.migration.plan import Plan
from airflow_dispatch_provider.migration.uses import Scan

_NO_EFFECT = (
    "worker_pods_creation_batch_size",
    "async_pod_creation",
    "pod_creation_max_concurrency",
    "task_publish_max_retries",
    "api_client_retry_configuration",
)
"""Options of ``[kubernetes_executor]`` that this package's executor does not need; see docs/kubernetes.md."""

_LOCAL = frozenset({Kind.LOCAL, Kind.SEQUENTIAL, Kind.DEBUG})

_EXECUTOR_SECTIONS = (
    "core",
    "celery",
    "kubernetes",
    "kubernetes_executor",
    "celery_kubernetes_executor",
    "local_kubernetes_executor",
)


@dataclass(frozen=True)
class Fact:
    """One thing to know."""

    what: str
    detail: str
    """Its reason; of something unknown, what to do about it."""


@dataclass(frozen=True)
class _Situation:
    old: OldConfig
    plan: Plan
    scan: Scan | None

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of the backends, a hybrid's two parts included."""
        return frozenset(backend.kind for section in self.plan.sections for backend in section.backends)

    @property
    def backends(self) -> int:
        return sum(len(section.backends) for section in self.plan.sections)

    def set_options(self, section: str, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if (section, name) in self.old.options]


def slots_words(old: OldConfig) -> str:
    """Where the numbers in the planned sections come from."""
    ones = sorted(kind.value for kind in old.kinds if kind.one_at_a_time)
    bounds = [f"1, as {kind} ran one task at a time" for kind in ones]
    if len(ones) < len(old.kinds):
        unlimited = f"{old.slots}, since [core] parallelism = 0 gave no number to go by"
        limited = f"{old.slots}, what [core] parallelism let one executor hold"
        bounds.insert(0, limited if old.parallelism else unlimited)
    return f"Slots of each backend: {'; '.join(bounds)}. [core] parallelism is at least the sum of all slots."


def changes(old: OldConfig, plan: Plan, scan: Scan | None) -> tuple[Fact, ...]:
    """What is different afterwards, the weightiest first."""
    return tuple(_given(_CHANGES, _Situation(old, plan, scan)))


def unknowns(old: OldConfig, plan: Plan, scan: Scan | None) -> tuple[Fact, ...]:
    """What somebody has to look at who knows the deployment."""
    return tuple(_given(_UNKNOWNS, _Situation(old, plan, scan)))


def _given(facts: tuple[Callable[[_Situation], Fact | None], ...], situation: _Situation) -> Iterator[Fact]:
    yield from (found for fact in facts if (found := fact(situation)) is not None)


def _hybrid_slots(now: _Situation) -> Fact | None:
    kind = next((kind for kind in now.old.kinds if kind.hybrid), None)
    if kind is None:
        return None
    other = "Celery" if kind is Kind.CELERY_KUBERNETES else "local"
    return Fact(
        "Kubernetes tasks are counted by slots of their own.",
        f"{kind.value} told the scheduler the free slots of its {other} side only: while that was full, no"
        " task was queued for Kubernetes either.",
    )


def _executor_values(now: _Situation) -> Fact | None:
    if not now.old.several:
        return None
    return Fact(
        "The `queue=` of a task says where it runs; `executor=` does so only by the names listed for it.",
        "The router decides by the queue. Where no names are listed in [core] executor beside it, Airflow refuses"
        " Dags that say `executor=`.",
    )


def _parallelism(now: _Situation) -> Fact | None:
    old, new = now.old.parallelism, now.plan.parallelism
    if old == 0:
        return Fact(
            f"[core] parallelism becomes {new}.",
            "0 meant no bound in Airflow 2; Airflow 3 refuses it, and slots are a number.",
        )
    if old == new:
        return None
    return Fact(
        f"[core] parallelism rises from {old} to {new}.",
        "It caps what runs on all backends of a scheduler together. As the sum of all slots it lets no full"
        f" backend take the room of another. If {old} was meant as the bound of everything, divide {old}"
        " among the slots and leave parallelism as it is.",
    )


def _held(now: _Situation) -> Fact:
    return Fact(
        "Tasks wait in the router, not in an executor, the highest priority_weight first.",
        "A task is given to a backend when that has a slot free for it. So one full or failing backend"
        " holds up no other, and [scheduler] task_queued_timeout does not apply to what waits in the router.",
    )


def _celery_outage(now: _Situation) -> Fact | None:
    if Kind.CELERY not in now.kinds:
        return None
    return Fact(
        "A broker that cannot be reached fails no task.",
        "The backend is this package's CeleryExecutor: it gives back what it could not send, and the router"
        " tries again. Airflow's own reports such tasks as failed. Workers stay as they are.",
    )


def _kubernetes_outage(now: _Situation) -> Fact | None:
    if Kind.KUBERNETES not in now.kinds:
        return None
    return Fact(
        "An API server that is away, slow, or out of quota fails no task.",
        "The backend is this package's KubernetesExecutor: it makes all API calls on a thread of its own,"
        " and tries again what may still succeed. Pods, templates and pod_override stay as they are.",
    )


def _kubernetes_options(now: _Situation) -> Fact | None:
    sections = ("kubernetes_executor", "kubernetes")
    names = [name for section in sections for name in now.set_options(section, _NO_EFFECT)]
    if not names or Kind.KUBERNETES not in now.kinds:
        return None
    return Fact(
        f"No effect any more: [kubernetes_executor] {', '.join(dict.fromkeys(names))}.",
        "Pods are created many at a time and until it succeeds; [dispatch] kubernetes_concurrency and"
        " kubernetes_max_unsent bound that.",
    )


def _local(now: _Situation) -> Fact | None:
    if not now.kinds & _LOCAL:
        return None
    return Fact(
        "A local task that is taken back really ends.",
        "The backend is this package's LocalExecutor: it drops the task, or ends its process tree."
        " Airflow's own cannot up to 3.3, so that a new try may run beside the old one.",
    )


def _one_at_a_time(now: _Situation) -> Fact | None:
    gone = next((kind for kind in now.old.kinds if kind.one_at_a_time), None)
    if gone is None:
        return None
    return Fact(
        "Local tasks still run one at a time.",
        f"{gone.value} did so, and is gone in Airflow 3; one slot is the same. With a database other than"
        " SQLite, raise the slots, and [core] parallelism with them.",
    )


def _third_party(now: _Situation) -> Fact | None:
    paths = [entry.path for entry in now.old.entries if entry.kind is Kind.OTHER]
    if not paths:
        return None
    return Fact(
        f"Kept by its path, as it is: {', '.join(dict.fromkeys(paths))}.",
        "Such an executor still does its network calls on the scheduler's thread, and what it reports as"
        " failed is failed.",
    )


def _queue_of_workers(now: _Situation) -> Fact | None:
    if not any(isinstance(target, dict) for s in now.plan.sections for r in s.routes for target in r["to"]):
        return None
    return Fact(
        f"The queue that leads to a backend of workers is not the one that the workers are told: that is"
        f" {now.old.default_queue!r}.",
        "Tasks that were sent there by `executor=` alone had the default queue, and workers listen on that.",
    )


def _metrics(now: _Situation) -> Fact | None:
    if now.backends < 2:
        return None
    return Fact(
        "Metrics have the names of the backends.",
        "executor.open_slots.<backend>, executor.running_tasks.<backend> and"
        " executor.queued_tasks.<backend>; without a name they count all backends together.",
    )


def _switch(now: _Situation) -> Fact:
    local = " Local ones end with the scheduler that started them." if now.kinds & _LOCAL else ""
    return Fact(
        "Tasks that run or wait at the switch were started by another executor.",
        "Running ones are offered to the backends for adoption. Queued ones are scheduled again; a broker"
        f" may still have the first copy, and Airflow lets only one of two run.{local} Let them end before"
        " where that matters.",
    )


_CHANGES = (
    _hybrid_slots,
    _executor_values,
    _queue_of_workers,
    _parallelism,
    _one_at_a_time,
    _held,
    _celery_outage,
    _kubernetes_outage,
    _kubernetes_options,
    _local,
    _third_party,
    _metrics,
    _switch,
)


def _room(now: _Situation) -> Fact:
    workers = (
        ' "slots": "workers" counts the live Celery workers instead.' if Kind.CELERY in now.kinds else ""
    )
    return Fact(
        "How much each backend can really run.",
        f"The slots are what the old configuration allowed. Lower those that are more than there is room for.{workers}",
    )


def _schedulers(now: _Situation) -> Fact:
    return Fact(
        "How many schedulers there are.",
        "Slots, like [core] parallelism, are for each of them: two schedulers may put twice as many tasks on"
        " a backend.",
    )


def _worker_queues(now: _Situation) -> Fact | None:
    if Kind.CELERY not in now.kinds:
        return None
    return Fact(
        "Which queues the Celery workers listen on.",
        "That is said where they are started (`airflow celery worker --queues`). The router passes the"
        " queue of a task on unchanged unless a target names another one.",
    )


def _pod_template(now: _Situation) -> Fact | None:
    if Kind.KUBERNETES not in now.kinds:
        return None
    return Fact(
        "What is set inside worker pods.",
        "Pod templates are not read. A template may set AIRFLOW__CORE__EXECUTOR for the pod; leave that as"
        " it is, unless Dags keep an `executor=`: then it must be loadable there, too.",
    )


def _dags(now: _Situation) -> Fact | None:
    if now.scan is None:
        return Fact(
            "What the Dags say.",
            "`airflow dispatch migrate --dags FOLDER` looks for `queue=` and `executor=` in them.",
        )
    if now.scan.resolved:
        return None
    return Fact(
        "Queues and executors that are computed, or come out of a **dictionary.",
        "What could be seen of them is listed under Dags. `airflow dispatch migrate --dags` without a"
        " folder reads what they came to in the metadata database.",
    )


def _hidden(now: _Situation) -> Fact | None:
    labels = sorted(
        option.label
        for option in now.old.options.values()
        if option.section in _EXECUTOR_SECTIONS and option.name.endswith(("_cmd", "_secret"))
    )
    if not labels:
        return None
    return Fact(
        f"What these give: {', '.join(labels)}.",
        "Commands were not run and secrets not looked up. Backends read them as Airflow does; leave them as they are.",
    )


def _secrets_backend(now: _Situation) -> Fact | None:
    if ("secrets", "backend") not in now.old.options:
        return None
    return Fact(
        "What the secrets backend holds.",
        "[secrets] backend is set, and was not asked. Options that come from it stay where they are.",
    )


def _own_class(now: _Situation) -> Fact | None:
    paths = [entry.path for entry in now.old.entries if entry.own_class]
    if not paths:
        return None
    return Fact(
        f"What {', '.join(paths)} adds to the class of Airflow.",
        "It is taken for the hybrid that its name says. Bring over what it adds, e.g. in a"
        " task_policy that sets queues.",
    )


def _third_party_version(now: _Situation) -> Fact | None:
    if Kind.OTHER not in now.old.kinds:
        return None
    return Fact(
        "Whether the executors kept by their path work with this Airflow.",
        "`airflow dispatch validate` says whether they can be imported.",
    )


def _not_set(now: _Situation) -> Fact | None:
    if now.old.executor_option is not None:
        return None
    return Fact(
        "Which executor was used: [core] executor is not set.",
        f"{DEFAULT_EXECUTOR} is taken, the default of Airflow 3. That of Airflow 2 was SequentialExecutor:"
        " one task at a time, which one slot is, too. Set by another file or machine, give it with --executor.",
    )


def _teams(now: _Situation) -> Fact | None:
    if now.old.idle_teams:
        return Fact(
            f"Whether these teams are to have executors: {', '.join(now.old.idle_teams)}.",
            "[core] multi_team is off, so Airflow ignores them, and they were left out.",
        )
    if len(now.plan.sections) < 2:
        return None
    return Fact(
        "Which Dags belong to which team.",
        "Queues in Dags are shown as the router without a team sees them. `airflow dispatch explain --team"
        " TEAM --queue QUEUE` shows a team's.",
    )


_UNKNOWNS = (
    _not_set,
    _room,
    _schedulers,
    _dags,
    _worker_queues,
    _pod_template,
    _hidden,
    _secrets_backend,
    _own_class,
    _third_party_version,
    _teams,
)
