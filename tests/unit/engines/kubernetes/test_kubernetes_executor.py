# SPDX-License-Identifier: Apache-2.0
"""Airflow's side of pods: what Airflow and the router read of the executor, and what it gives its engine."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import (
    KubernetesExecutor as AirflowsKubernetesExecutor,
)
from kubernetes.client import models as k8s

from airflow_dispatch_provider.bridge import coordinators, workload
from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.bridge.executor_classes import make_executor, workload_kinds
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.engines.engine import HasLanes, Tidies
from airflow_dispatch_provider.engines.kubernetes import engine, pod_log
from airflow_dispatch_provider.engines.kubernetes.engine import KubernetesEngine
from airflow_dispatch_provider.engines.protocols import ChecksConfig, Claims, DoubtsConfig, HasEngine
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import kubernetes_executor
from airflow_dispatch_provider.executors.kubernetes_executor import KubernetesExecutor
from airflow_dispatch_provider.testing import make_task
from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk
from tests.support import make_callback

from .fakes import FakeApi, FakeFactory

KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://kube.example:6443"}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.fixture
def make(tmp_path) -> Any:
    """Makes executors as the router does, with options of ``[kubernetes_executor]``."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)

    def make(**options: Any) -> Any:
        given = {"in_cluster": "False", "config_file": str(kubeconfig), "namespace": "home", **options}
        view: Any = BackendConf("k", {"kubernetes_executor": given, "core": {"parallelism": 3}}, conf)
        return make_executor(KubernetesExecutor, view, "k", "a.KubernetesExecutor", 3, None)

    return make


@pytest.mark.parametrize(
    "name",
    [
        "is_local",
        "is_production",
        "serve_logs",
        "supports_ad_hoc_ti_run",
        "supports_sentry",
        "supports_task_instance_uuid",
        "pre_assigns_external_executor_id",
        "sentry_integration",
        "RUNNING_POD_LOG_LINES",
    ],
)
def test_what_airflow_reads_on_the_class_is_what_its_own_has(name):
    """A flag that an older provider does not have is off."""
    assert getattr(KubernetesExecutor, name, False) == getattr(AirflowsKubernetesExecutor, name, False)


def test_it_supports_teams_with_every_provider():
    """Each executor reads options of its own, as Airflow's does from provider 10.14 on."""
    assert KubernetesExecutor.supports_multi_team


def test_it_runs_what_airflows_own_runs():
    """A pod can run no callback."""
    assert workload_kinds(KubernetesExecutor) == workload_kinds(AirflowsKubernetesExecutor)


def test_it_answers_all_that_airflows_own_does_beyond_the_base_class():
    """But for what concerns its own queue and processes: see the section on subclasses in the documentation."""
    public = {name for name in dir(AirflowsKubernetesExecutor) if not name.startswith("_")}
    own = public - {*dir(BaseExecutor)} - {*dir(KubernetesExecutor)}
    assert own <= {
        "adopt_launched_task",
        "execute_async",
        "cleanup_stuck_queued_tasks",
        "get_pod_combined_search_str_to_pod_map",
    }


def test_it_is_what_the_router_looks_for(make):
    for offered in (HasEngine, ChecksConfig, DoubtsConfig, Claims):
        assert isinstance(make(), offered)


def test_the_command_group_is_there_where_only_executors_can_add_it():
    """From Airflow 3.2 on it comes with the provider, and a second one would end every command."""
    names = [group.name for group in KubernetesExecutor.get_cli_commands()]
    assert names == ([] if AIRFLOW_V_3_2_PLUS else ["kubernetes"])


def test_making_one_reads_nothing(make, monkeypatch):
    """Airflow makes one in every API server and for every command."""
    made = make(config_file="/nowhere", delete_worker_pods="no flag", kube_client_request_args="[")
    made.heartbeat()
    made.end()
    assert (made.slots_available, repr(made)) == (0, "KubernetesExecutor(not started)")


def test_a_mistake_in_its_options_is_named_before_there_is_an_engine(make):
    """The scheduler does not start, or the backend counts as unusable."""
    made = make(multi_namespace_mode_namespace_list="a,No_Name", multi_namespace_mode="True")
    with pytest.raises(DispatchConfigError, match="No_Name"):
        made.make_engine("k", 3, counts_workers=False)
    with pytest.raises(DispatchConfigError, match="No_Name"):
        made.start()


def test_an_option_without_effect_stops_no_engine(make):
    """Airflow's own executor would refuse its value."""
    assert make(worker_pods_creation_batch_size="many").make_engine("k", 3).slots == 3


def test_its_engine_has_the_router_s_name_and_slots(make):
    made = make().make_engine("k", 7, counts_workers=False)
    assert (made.slots, repr(made)) == (7, "KubernetesEngine('k', not started)")
    assert isinstance(made, HasLanes)
    assert isinstance(made, Tidies)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, ["namespace home"]),
        (
            {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": "a,b"},
            ["namespace a", "namespace b"],
        ),
        ({"multi_namespace_mode": "True"}, [None]),
    ],
)
def test_it_claims_the_namespaces_that_it_watches(make, options, parts):
    claims = make(**options).claims()
    assert {claim.resource for claim in claims} == {"https://kube.example:6443"}
    assert [claim.part for claim in claims] == parts


def in_namespace(name: Any) -> Any:
    return {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=name))}


class Raising(dict):
    def __getitem__(self, key: Any) -> Any:
        raise ValueError(key)


@pytest.mark.parametrize(
    ("config", "namespace"),
    [
        (None, "home"),
        ({}, "home"),
        ({"pod_override": k8s.V1Pod()}, "home"),
        (in_namespace(None), "home"),
        (in_namespace("other"), "other"),
        (in_namespace(7), "home"),
        ({"pod_override": "no pod"}, "home"),
        ("no mapping", "home"),
        (Raising(), "home"),
    ],
)
def test_the_namespace_of_a_task_s_pod_is_known_from_its_configuration(make, monkeypatch, config, namespace):
    """It is the lane of the task, and where its log is read; whatever its author has written there."""
    made = make()
    ti: Any = SimpleNamespace(executor_config=config)
    assert made._get_pod_namespace(ti) == namespace
    monkeypatch.setattr(engine, "PodApi", lambda *args: FakeApi())
    started = made.make_engine("k", 3)
    started.start("7")
    try:
        assert started.lane(SimpleNamespace(ti=ti)) == namespace
        assert started.lane(SimpleNamespace()) == "home"
        if AIRFLOW_V_3_2_PLUS:
            assert started.lane(make_callback()) == "home"
    finally:
        started.stop(time.monotonic())


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, 100),
        *(({"running_pod_log_lines": text}, lines) for text, lines in (("7", 7), ("0", 100), ("many", 100))),
    ],
)
def test_the_log_is_read_from_its_own_cluster_without_start(make, monkeypatch, options, lines):
    asked: list[Any] = []

    def read(cluster: Any, *rest: Any) -> Any:
        asked.append((cluster.server(), *rest))
        return ["said"], [iter(["one", "two"])]

    monkeypatch.setattr(pod_log, "read", read)
    ti = SimpleNamespace(executor_config=None)
    assert make(**options).get_task_log(ti, 2) == (["said"], ["one\ntwo"])
    assert asked == [("https://kube.example:6443", "home", ti, 2, lines)]


@pytest.mark.parametrize(
    ("made", "renewed"), [(0.0, False), (20.0, False), (60.0, True), (-600.0, True), (None, True)]
)
def test_a_pod_gets_a_token_that_is_good_for_as_long_as_airflow_waits(make, monkeypatch, made, renewed):
    """However long the task was on its way: its token itself says when it was made."""
    claims = {} if made is None else {"iat": time.time() - made}
    token = jwt.encode(claims, "s" * 64, algorithm="HS512")
    executor = make()
    monkeypatch.setattr(KubernetesExecutor, "jwt_generator", None)
    monkeypatch.setattr(workload, "with_new_token", lambda task, generator: "renewed")
    given: list[Any] = []
    monkeypatch.setattr(kubernetes_executor, "KubernetesEngine", lambda *args: given.extend(args))
    executor.make_engine("k", 3)
    renew = given[2]().renew
    assert (renew(make_task().model_copy(update={"token": token})) == "renewed") is renewed


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="there are no coordinators before Airflow 3.3")
def test_what_is_said_of_a_queue_s_coordinator_cannot_keep_its_pods(monkeypatch, caplog):
    """It is said once for each queue."""
    from airflow.sdk.execution_time import coordinator

    extras = {"java": {"worker_container_tag": "jvm"}}
    monkeypatch.setattr(
        coordinator, "get_coordinator_manager", lambda: SimpleNamespace(extra_for_queue=extras.get)
    )
    assert coordinators.coordinator_extra("java") == {"worker_container_tag": "jvm"}
    assert coordinators.coordinator_extra("python") is coordinators.coordinator_extra(None) is None
    monkeypatch.setattr(coordinator, "get_coordinator_manager", lambda: 1 / 0)
    assert [coordinators.coordinator_extra("broken") for _ in range(2)] == [None, None]
    assert len([record for record in caplog.records if "queue broken" in record.getMessage()]) == 1


class Trial(KubernetesExecutor):
    """Its API server is in memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clerk = InMemoryClerk()

    def _make_clerk(self, limits: Any) -> InMemoryClerk:
        return self.clerk

    def make_engine(self, name: str, slots: int, *, counts_workers: bool = False) -> KubernetesEngine:
        options = engine.KubernetesOptions("airflow", ("airflow",))
        # Neither is connected: the fakes have what is called of them, and no more.
        pieces = engine.Pieces(FakeApi, lambda scheduler_id: FakeFactory(), options)  # type: ignore[arg-type]
        return KubernetesEngine(name, slots, lambda: pieces)
