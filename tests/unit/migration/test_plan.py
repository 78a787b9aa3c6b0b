# SPDX-License-Identifier: Apache-2.0
"""Backends and routes that do what the old executors did, and where the tasks of a Dag go then."""

from __future__ import annotations

import json
from configparser import ConfigParser

import pytest

from airflow_dispatch_provider.cli.migration_text import render
from airflow_dispatch_provider.migration.destinations import (
    destinations,
    names_to_keep,
    settings_of,
)
from airflow_dispatch_provider.migration.executors import OURS, ROUTER
from airflow_dispatch_provider.migration.findings import Target
from airflow_dispatch_provider.migration.ini import configuration
from airflow_dispatch_provider.migration.old import OldConfig, read_old
from airflow_dispatch_provider.migration.options import expand, read_ini
from airflow_dispatch_provider.migration.plan import Plan, make_plan
from airflow_dispatch_provider.migration.report import make_report
from airflow_dispatch_provider.migration.uses import Scan, Use

K8S = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
ECS = "airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor"

NOTHING_KNOWN = Target("3.9", {}, {}, {}, {})


def old(executor: str, more: str = "") -> OldConfig:
    text = f"[core]\nexecutor = {executor}\nparallelism = 10\n{more}"
    return read_old(read_ini(text, "a.cfg"), {}, "a.cfg")


def slots(plan: Plan) -> dict[str, int]:
    return {backend.name: backend.slots for backend in plan.main.backends}


class TestBackends:
    @pytest.mark.parametrize(
        ("executor", "expected", "default"),
        [
            ("CeleryKubernetesExecutor", {"celery": 10, "kubernetes": 10}, "celery"),
            ("LocalKubernetesExecutor", {"local": 10, "kubernetes": 10}, "local"),
            ("SequentialExecutor", {"local": 1}, "local"),
            ("DebugExecutor", {"local": 1}, "local"),
            ("SequentialExecutor,LocalExecutor", {"local": 10}, "local"),
            ("KubernetesExecutor,LocalExecutor", {"kubernetes": 10, "local": 10}, "kubernetes"),
            ("CeleryKubernetesExecutor,KubernetesExecutor", {"celery": 10, "kubernetes": 10}, "celery"),
            (f"LocalExecutor,local:{ECS}", {"local": 10, "local-2": 10}, "local"),
            (
                f"kubernetes:{ECS},CeleryKubernetesExecutor",
                {"kubernetes": 10, "celery": 10, "kubernetes-2": 10},
                "kubernetes",
            ),
        ],
    )
    def test_one_for_each_executor(self, executor: str, expected: dict[str, int], default: str) -> None:
        """A hybrid makes two; the first executor is the default; names are never given twice."""
        plan = make_plan(old(executor))
        assert (slots(plan), plan.main.default) == (expected, default)

    def test_parallelism_covers_all_slots(self) -> None:
        """Nothing that was allowed to run before is held up by the sum; what was higher stays."""
        assert make_plan(old("CeleryKubernetesExecutor")).parallelism == 20
        assert make_plan(old("SequentialExecutor")).parallelism == 10

    @pytest.mark.parametrize(
        ("executor", "line"),
        [
            ("CeleryExecutor", f"{OURS}.celery_executor.CeleryExecutor"),
            ("LocalKubernetesExecutor", f"{OURS}.local_kubernetes_executor.LocalKubernetesExecutor"),
            ("LocalExecutor,CeleryExecutor", None),
            (ECS, None),
        ],
    )
    def test_one_class(self, executor: str, line: str | None) -> None:
        """One executor that has a class of its own here can be replaced by that."""
        assert make_plan(old(executor)).one_class == line

    def test_teams_have_sections_of_their_own(self) -> None:
        """Each with a router, and ``[core] executor`` naming it for each."""
        plan = make_plan(old("LocalExecutor;blue=CeleryExecutor", "multi_team = True\n"))
        assert plan.executor == f"{ROUTER};blue={ROUTER}"
        assert [(section.team, section.default) for section in plan.sections] == [
            (None, "local"),
            ("blue", "celery"),
        ]


class TestRoutes:
    def test_the_queue_of_a_hybrid(self) -> None:
        """As set in its section; an empty one leads nowhere."""
        section = "[celery_kubernetes_executor]\nkubernetes_queue ="
        assert make_plan(old("CeleryKubernetesExecutor", f"{section} k8s\n")).main.routes == (
            {"queue": "k8s", "to": ["kubernetes"]},
        )
        assert make_plan(old("CeleryKubernetesExecutor", f"{section}\n")).main.routes == ()

    def test_the_queue_of_a_hybrid_leads_to_its_own_backend(self) -> None:
        """Also where another executor took the name."""
        plan = make_plan(old(f"LocalExecutor,kubernetes:{ECS},CeleryKubernetesExecutor"))
        assert {"queue": "kubernetes", "to": ["kubernetes-2"]} in plan.main.routes

    @pytest.mark.parametrize("queue", ["a*b", "[gpu]", "50%", "$HOME", 'q"u', "ü"])
    def test_any_queue_name_is_meant_literally(self, queue: str) -> None:
        """Glob signs, and what airflow.cfg and JSON treat as special, keep their own meaning through the parser."""
        config = old(
            "CeleryKubernetesExecutor", f"[celery_kubernetes_executor]\nkubernetes_queue = {queue}\n"
        )
        (found,) = destinations(make_plan(config), config, [Use("f:1", queue)])
        assert (found.goes_to, found.do) == ("kubernetes", "nothing")

    @pytest.mark.parametrize("queue", ["50%", "%(core)s", "$HOME", "${HOME}"])
    def test_any_queue_name_comes_through_airflow_cfg(self, queue: str) -> None:
        """Neither interpolation nor variables in the printed lines make another name of it."""
        config = read_old(
            {},
            {"AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE": queue},
            None,
            "CeleryKubernetesExecutor",
        )
        parser = ConfigParser()
        parser.read_string(configuration(make_plan(config)))
        routes = json.loads(expand(parser["dispatch"]["routes"], {"HOME": "/root"}))
        assert routes == [{"queue": queue, "to": ["kubernetes"]}]

    def test_others_get_a_queue_that_no_task_had(self) -> None:
        """The executor that `executor=` reached before; workers that go by the queue are told the default one."""
        assert make_plan(old(f"LocalExecutor,KubernetesExecutor,{ECS}")).main.routes == (
            {"queue": "kubernetes-executor", "to": ["kubernetes"]},
            {"queue": "aws-ecs-executor", "to": [{"backend": "aws-ecs", "queue": "default"}]},
        )

    @pytest.mark.parametrize(
        ("queues", "own"),
        [
            ([], "kubernetes-executor"),
            (["kubernetes"], "kubernetes-executor"),
            (["kubernetes", "kubernetes-executor"], "kubernetes-executor-2"),
        ],
    )
    def test_a_queue_in_use_keeps_its_meaning(self, queues: list[str], own: str) -> None:
        """The name for a backend is one that no task of another backend has, whether Dags were looked at or not."""
        uses = [Use("f:1", queue) for queue in queues]
        plan = make_plan(old("CeleryExecutor,KubernetesExecutor"), uses)
        assert [backend.queue for backend in plan.main.backends] == [None, own]

    @pytest.mark.parametrize("name", ["default", "default-executor"])
    def test_a_default_queue_is_never_taken(self, name: str) -> None:
        """A backend called like the default queue does not get all tasks."""
        plan = make_plan(old(f"LocalExecutor,default:{ECS}", f"[operators]\ndefault_queue = {name}\n"))
        assert plan.main.routes[0]["queue"] in {"default-executor", "default-executor-2"} - {name}

    def test_a_queue_that_always_came_with_one_executor_gets_a_route(self) -> None:
        """Such Dags go on as they are; a queue used with several executors cannot."""
        uses = [
            Use("f:1", "a", "KubernetesExecutor"),
            Use("f:2", "b", "KubernetesExecutor"),
            Use("f:3", "b", "AwsEcsExecutor"),
            Use("f:4", "c", "KubernetesExecutor"),
            Use("f:5", "c"),
        ]
        plan = make_plan(old(f"CeleryExecutor,KubernetesExecutor,{ECS}"), uses)
        assert [route["queue"] for route in plan.main.routes] == [
            "a",
            "kubernetes-executor",
            "aws-ecs-executor",
        ]


class TestDestinations:
    @pytest.mark.parametrize(
        ("use", "ran_on", "goes_to", "do"),
        [
            (Use("f:1", "etl"), "celery", "celery", "nothing"),
            (Use("f:1", None, "CeleryExecutor"), "celery", "celery", "the default leads there"),
            (
                Use("f:1", None, "KubernetesExecutor"),
                "kubernetes",
                "celery",
                'write queue="kubernetes-executor" instead',
            ),
            (Use("f:1", "a", "KubernetesExecutor"), "kubernetes", "kubernetes", "its queue leads there"),
            (Use("f:1", "default", "KubernetesExecutor"), "kubernetes", "celery", 'instead of executor="Kub'),
            (Use("f:1", None, "NoExecutor"), None, "celery", "has none of that name"),
            (Use("f:1", None, K8S), "kubernetes", "celery", 'write queue="kubernetes-executor" instead'),
            (Use("f:1", None, "spare"), "spare", "celery", 'write queue="spare-executor" instead'),
            (Use("f:1", None, ECS), "spare", "celery", 'write queue="spare-executor" instead'),
            (Use("f:1", None, "AwsEcsExecutor"), "spare", "celery", 'write queue="spare-executor" instead'),
        ],
    )
    def test_of_several_executors(self, use: Use, ran_on: str | None, goes_to: str, do: str) -> None:
        """`executor=` by name, path, class name and alias, each with what to write instead."""
        config = old(f"CeleryExecutor,KubernetesExecutor,spare:{ECS}")
        (found,) = destinations(make_plan(config, [use]), config, [use])
        assert (found.ran_on, found.goes_to) == (ran_on, goes_to)
        assert do in found.do
        assert "and queue=" not in found.do

    def test_a_queue_used_with_two_executors(self) -> None:
        """The one that is not the default cannot stay: both ways out are named."""
        uses = [Use("f:1", "b"), Use("f:2", "b", "KubernetesExecutor")]
        config = old("CeleryExecutor,KubernetesExecutor")
        found = destinations(make_plan(config, uses), config, uses)[1]
        assert (
            'write queue="kubernetes-executor" instead of executor="KubernetesExecutor" and queue="b"'
            in found.do
        )
        assert "dag_id" in found.do

    def test_the_default_by_name_with_a_queue_that_leads_elsewhere(self) -> None:
        """Without `executor=` its queue would take the task away."""
        use = Use("f:1", "kubernetes", "CeleryKubernetesExecutor")
        config = old("CeleryKubernetesExecutor")
        (found,) = destinations(make_plan(config), config, [use])
        assert 'another queue than "kubernetes"' in found.do

    def test_places_are_gathered(self) -> None:
        """One row for all that say the same, each place once."""
        config = old("CeleryExecutor")
        uses = [Use("f:1", "q"), Use("f:1", "q"), Use("g:2", "q")]
        assert [row.places for row in destinations(make_plan(config), config, uses)] == [("f:1", "g:2")]

    def test_a_default_queue_that_is_the_queue_of_kubernetes(self) -> None:
        """Every task without a queue went there, and does."""
        config = old("CeleryKubernetesExecutor", "[operators]\ndefault_queue = kubernetes\n")
        (found,) = destinations(make_plan(config), config, [Use("f:1", "kubernetes")])
        assert (found.ran_on, found.goes_to) == ("kubernetes", "kubernetes")

    @pytest.mark.parametrize(
        ("executors", "uses", "names"),
        [
            ("CeleryExecutor,KubernetesExecutor", [], {"CeleryExecutor", "KubernetesExecutor"}),
            ("CeleryExecutor,KubernetesExecutor", [Use("f:1", None, "CeleryExecutor")], {"CeleryExecutor"}),
            ("CeleryExecutor,k8s:KubernetesExecutor", [Use("f:1", None, "k8s")], {"k8s"}),
            (
                "CeleryExecutor,k8s:KubernetesExecutor",
                [Use("f:1", None, "k8s"), Use("f:2", None, "KubernetesExecutor")],
                {"KubernetesExecutor"},
            ),
            ("CeleryExecutor,a.b.EcsExecutor", [Use("f:1", None, "EcsExecutor")], set()),
            ("CeleryExecutor", [], set()),
        ],
    )
    def test_the_names_that_dags_may_keep(self, executors: str, uses: list[Use], names: set[str]) -> None:
        """Those that they use; without Dags all that they may. Only where a class hands over to the router."""
        assert names_to_keep(make_plan(old(executors), uses), uses).keys() == names


def test_a_class_has_one_name_and_the_others_have_to_go() -> None:
    """Airflow refuses a class that is listed twice."""
    scan = Scan("Dags", False, (Use("f:1", None, "k8s"), Use("f:2", None, "KubernetesExecutor")))
    report = make_report(old("CeleryExecutor,k8s:KubernetesExecutor"), scan, NOTHING_KNOWN, frozenset())
    assert (report.by_name or "").count("by_name.KubernetesExecutor") == 1
    assert report.by_name_lacks == ("k8s",)
    assert 'must not say executor="k8s" any more' in " ".join(render(report).split())


@pytest.mark.parametrize(
    "cls", ["dispatch_executor.DispatchExecutor", "celery_kubernetes_executor.CeleryKubernetesExecutor"]
)
def test_a_router_that_is_there_leaves_nothing_to_plan(cls: str) -> None:
    """The commands that know its configuration are named."""
    scan = Scan("Dags", False, (Use("f:1", "kubernetes"),))
    report = make_report(old(f"{OURS}.{cls}"), scan, NOTHING_KNOWN, frozenset())
    assert (report.ready, report.configuration, report.changes, report.dags) == (True, None, (), ())
    assert "`airflow dispatch explain --queue QUEUE` says where" in " ".join(render(report).split())


def test_every_plan_is_a_right_configuration() -> None:
    """Whatever the mix, the settings parser takes it."""
    names = [
        "LocalExecutor",
        "CeleryKubernetesExecutor",
        f"a b:{ECS}",
        "SequentialExecutor",
        "LocalKubernetesExecutor",
    ]
    for first in names:
        for second in names:
            settings = settings_of(make_plan(old(f"{first},{second}")).main)
            assert settings.default.to[0].backend in settings.backends
