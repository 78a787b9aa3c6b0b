# SPDX-License-Identifier: Apache-2.0
"""The hybrids of Airflow 2 as ``[dispatch]``, and what the user's own options do to them."""

from __future__ import annotations

import json

import pytest
from unit.settings.fakes import FakeConf, problems

from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable
from airflow_dispatch_provider.settings.presets import CELERY_KUBERNETES, LOCAL_KUBERNETES, preset
from airflow_dispatch_provider.settings.source import SettingsSource

QUEUE_OPTION = "celery_kubernetes_executor.kubernetes_queue"
PARALLELISM = 32


def source(hybrid=CELERY_KUBERNETES, **options):
    """Options of [dispatch]; what is no text is written as JSON."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    return SettingsSource(FakeConf(texts), dict, hybrid, lambda: PARALLELISM)


def load(hybrid=CELERY_KUBERNETES, **options):
    return source(hybrid, **options).load()


def backend_of(settings, queue, dag_id="dag"):
    match = RouteTable(settings.routes, settings.default).match(TaskRef(queue, dag_id))
    return [target.backend for target in match.route.to]


@pytest.mark.parametrize(
    ("hybrid", "other", "executor"),
    [(CELERY_KUBERNETES, "celery", "CeleryExecutor"), (LOCAL_KUBERNETES, "local", "LocalExecutor")],
)
def test_the_preset_is_what_a_user_would_write(hybrid, other, executor):
    """Two backends with all of parallelism each, one route, and the rest by default."""
    assert preset(hybrid, "kq", 7) == {
        "backends": {
            other: {"executor": executor, "slots": 7},
            "kubernetes": {"executor": "KubernetesExecutor", "slots": 7},
        },
        "routes": [{"queue": "kq", "to": ["kubernetes"]}],
        "default": other,
    }


@pytest.mark.parametrize(("hybrid", "other"), [(CELERY_KUBERNETES, "celery"), (LOCAL_KUBERNETES, "local")])
def test_nothing_set_means_the_defaults_of_airflow_2(hybrid, other):
    """The queue is called kubernetes; every other queue goes to the other backend."""
    settings = load(hybrid)
    assert backend_of(settings, "kubernetes") == ["kubernetes"]
    assert backend_of(settings, "default") == backend_of(settings, "Kubernetes") == [other]
    assert {backend.slots for backend in settings.backends.values()} == {PARALLELISM}


def test_each_hybrid_reads_its_own_section():
    """The option of one class is nothing to the other."""
    options = {QUEUE_OPTION: "kq", "local_kubernetes_executor.kubernetes_queue": "lq"}
    assert backend_of(load(CELERY_KUBERNETES, **options), "kq") == ["kubernetes"]
    assert backend_of(load(LOCAL_KUBERNETES, **options), "kq") == ["local"]
    assert backend_of(load(LOCAL_KUBERNETES, **options), "lq") == ["kubernetes"]


@pytest.mark.parametrize("queue", ["k*", "gpu[1]", "what?"])
def test_a_queue_is_no_pattern(queue):
    """Airflow 2 compared names: signs that mean something in a route stand for themselves."""
    settings = load(**{QUEUE_OPTION: queue})
    assert backend_of(settings, queue) == ["kubernetes"]
    assert backend_of(settings, "k8s") == backend_of(settings, "gpu1") == ["celery"]


def test_an_empty_queue_sends_nothing_to_kubernetes():
    """As in Airflow 2, where no queue equals it; routes of the user's still can."""
    settings = load(**{QUEUE_OPTION: ""}, routes=[{"queue": "gpu", "to": ["kubernetes"]}])
    assert backend_of(settings, "kubernetes") == ["celery"]
    assert backend_of(settings, "gpu") == ["kubernetes"]


def test_own_routes_stand_beside_the_preset_route():
    """More queues, other targets for one Dag; the preset's queue keeps its route."""
    routes = [
        {"queue": "gpu-*", "to": ["kubernetes"]},
        {"queue": "kubernetes", "dag_id": "light", "to": ["celery"]},
        {"queue": "*", "dag_id": "heavy", "to": ["kubernetes"]},
    ]
    settings = load(routes=routes)
    assert backend_of(settings, "gpu-1") == ["kubernetes"]
    assert backend_of(settings, "kubernetes") == ["kubernetes"]
    assert backend_of(settings, "kubernetes", "light") == ["celery"]
    assert backend_of(settings, "default", "heavy") == ["kubernetes"]


def test_an_own_route_for_the_queue_replaces_the_preset_route():
    """Not an overlap to complain about."""
    settings = load(routes=[{"queue": "kubernetes", "to": ["kubernetes", "celery"], "overflow_after": 30}])
    assert backend_of(settings, "kubernetes") == ["kubernetes", "celery"]
    assert len(settings.routes) == 1


def test_an_own_default_wins():
    """Everything else may go elsewhere."""
    assert backend_of(load(default="kubernetes"), "default") == ["kubernetes"]


def test_own_backends_change_those_of_the_preset_key_by_key():
    """Slots and options without naming the executor again; more backends beside them."""
    backends = {
        "kubernetes": {"slots": 4, "config": {"kubernetes_executor": {"namespace": "tasks"}}},
        "local": {"executor": "LocalExecutor", "slots": 2},
    }
    settings = load(backends=backends)
    assert list(settings.backends) == ["celery", "kubernetes", "local"]
    kubernetes = settings.backends["kubernetes"]
    assert (kubernetes.executor, kubernetes.slots) == ("KubernetesExecutor", 4)
    assert kubernetes.config == {"kubernetes_executor": {"namespace": "tasks"}}
    assert settings.backends["celery"].slots == PARALLELISM


def test_only_slots_that_were_given_ask_for_parallelism():
    """The preset's backends share [core] parallelism, as those of Airflow 2 did."""
    assert load().slots_given == 0
    settings = load(
        backends={"celery": {"slots": 20}, "local": {"executor": "LocalExecutor", "slots": 2}},
    )
    assert settings.share_parallelism == {"kubernetes"}
    assert settings.slots_given == 22


def test_a_routing_file_completes_the_preset_too(tmp_path):
    """A file that has routes only; what it says is read again when it changes."""
    file = tmp_path / "dispatch.yaml"
    file.write_text("routes: [{queue: gpu, to: [kubernetes]}]\n")
    reading = source(config_file=str(file))
    assert backend_of(reading.load(), "gpu") == ["kubernetes"]
    file.write_text("routes: []\nbackends: {celery: {slots: 3}}\n")
    changed = reading.reload()
    assert backend_of(changed, "gpu") == ["celery"]
    assert backend_of(changed, "kubernetes") == ["kubernetes"]
    assert changed.backends["celery"].slots == 3


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"backends": "7"}, "[dispatch] backends: found 7."),
        ({"backends": {"celery": 5}}, "[dispatch] backends.celery: found 5."),
        ({"backends": {"gpu": {"slots": 1}}}, "[dispatch] backends.gpu.executor: is missing."),
        ({"backends": "{"}, "[dispatch] backends: "),
        ({"backends": "{", "routes": [{"queue": "a", "to": ["gpu"]}]}, "[dispatch] backends: "),
        ({"routes": "7"}, "[dispatch] routes: found 7."),
        ({"routes": [{"queue": "a", "to": ["clery"]}]}, "[dispatch] routes[0].to[0]: found the backend"),
        ({"default": "clery"}, "[dispatch] default: found the backend"),
    ],
)
def test_mistakes_are_reported_as_without_a_preset(options, found):
    """One problem for each, at the place where the user wrote it, and none for what the preset brought."""
    (problem,) = problems(source(**options).load)
    assert problem.startswith(found)


def test_a_queue_option_that_cannot_be_read_is_reported():
    """Beside the other mistakes, with its own section."""
    reading = SettingsSource(
        FakeConf({QUEUE_OPTION: RuntimeError(), "default": "clery"}), dict, CELERY_KUBERNETES, lambda: 1
    )
    found = problems(reading.load)
    assert len(found) == 2
    assert found[0].startswith(
        "[celery_kubernetes_executor] kubernetes_queue: cannot be read (RuntimeError)."
    )
