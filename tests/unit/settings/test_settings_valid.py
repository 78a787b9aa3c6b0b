# SPDX-License-Identifier: Apache-2.0
"""Every documented form of a right configuration, and what it becomes."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import yaml
from jsonschema import Draft202012Validator
from unit.settings.fakes import load
from unit.settings.invalid import BACKENDS, INLINE

from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES, BackendSettings, EngineOptions, Limits
from airflow_dispatch_provider.settings.options import OPTIONS
from airflow_dispatch_provider.settings.parse import json_schema

FULL = {
    "backends": {
        "local": {"executor": "LocalExecutor", "slots": 8},
        "celery": {"executor": "CeleryExecutor", "slots": 256, "cordoned": True},
        "gpu_2": {
            "executor": "my_company.executors.GpuExecutor",
            "slots": 1_000_000,
            "config": {
                "kubernetes_executor": {"namespace": "gpu", "in_cluster": False, "size": 3, "rate": 0.5}
            },
        },
    },
    "routes": [
        {"queue": "kubernetes", "to": ["gpu_2"]},
        {"queue": "gpu-*", "to": ["gpu_2", {"backend": "celery", "queue": "fallback"}], "overflow_after": 30},
        {"queue": "split", "to": [{"backend": "celery", "weight": 80}, {"backend": "local", "weight": 0}]},
        {"queue": "split", "dag_id": "etl_*", "to": ["local", "celery"], "overflow_after": "never"},
        {"queue": "x", "to": ["local", "celery"], "overflow_after": 0.5, "dag_id": None},
    ],
    "default": ["celery", {"backend": "local", "queue": "rest"}],
}


def as_options(data):
    return {key: json.dumps(value) for key, value in data.items()}


def as_file(path, text):
    path.write_text(text, encoding="utf-8")
    return {"config_file": str(path)}


def test_full():
    """All keys at once, and the values that they become."""
    settings = load(as_options(FULL))
    assert settings.backends["local"] == BackendSettings(executor="LocalExecutor", slots=8)
    assert settings.backends["celery"].cordoned
    assert settings.backends["gpu_2"].config == FULL["backends"]["gpu_2"]["config"]
    assert settings.routes[1] == Route(
        queue="gpu-*",
        to=(Target(backend="gpu_2"), Target(backend="celery", queue="fallback")),
        overflow_after=30.0,
    )
    assert [route.name for route in settings.routes] == [
        "kubernetes",
        "gpu-*",
        "split",
        "split of etl_*",
        "x",
    ]
    assert [route.overflow_after for route in settings.routes] == [0.0, 30.0, 0.0, "never", 0.5]
    assert [str(target) for target in settings.default.to] == ["celery", "local (queue rest)"]
    assert settings.limits == Limits()


def test_json_and_yaml_are_equal(tmp_path):
    """Options, a YAML file and a JSON file with the same content give the same settings."""
    options = load(as_options(FULL))
    assert load(as_file(tmp_path / "a.yaml", yaml.safe_dump(FULL))) == options
    assert load(as_file(tmp_path / "b.yaml", json.dumps(FULL))) == options
    assert load(as_file(tmp_path / "c.json", json.dumps(FULL, indent="\t"))) == options
    assert load(as_file(tmp_path / "d.json", "\ufeff" + json.dumps(FULL))) == options


DEFAULTS = {
    "bare name": ("a", [("a", None, None)]),
    "name in quotes": ('"a"', [("a", None, None)]),
    "object": ('{"backend": "a", "queue": "x"}', [("a", "x", None)]),
    "list": ('["a", "b"]', [("a", None, None), ("b", None, None)]),
    "weights": (
        '[{"backend": "a", "weight": 1}, {"backend": "b", "weight": 2}]',
        [("a", None, 1), ("b", None, 2)],
    ),
    "spaces around": ("  b\n", [("b", None, None)]),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_forms_of_default(case):
    """``default`` is a name, a target, or a list of both."""
    text, targets = DEFAULTS[case]
    found = load({"backends": BACKENDS, "default": text}).default
    assert [(target.backend, target.queue, target.weight) for target in found.to] == targets
    assert found.queue == "*"


@pytest.mark.parametrize("default", [None, "", "a"])
def test_single_backend_is_the_default(default):
    """With one backend there is nothing to choose."""
    settings = load({"backends": '{"a": {"executor": "LocalExecutor", "slots": 1}}', "default": default})
    assert settings.default.to == (Target(backend="a"),)


def test_no_routes():
    """Routes may be left out."""
    assert load({"backends": BACKENDS, "default": "a"}).routes == ()


@pytest.mark.parametrize(
    "routes", ['["*", null], ["gpu"]', '["*", null], ["gpu-*", "d"]', '["*", "d"], ["x-*", null]']
)
def test_routes_that_shadow_nothing(routes):
    """An exact name or a dag_id wins over an earlier star."""
    pairs = json.loads(f"[{routes}]")
    text = [{"queue": pair[0], "to": ["a"], **({"dag_id": pair[1]} if pair[1:] else {})} for pair in pairs]
    assert len(load({"backends": BACKENDS, "routes": json.dumps(text), "default": "a"}).routes) == 2


def test_limits():
    """Limits are numbers; what is not set has the default that Airflow shows."""
    options = {
        "backends": BACKENDS,
        "default": "a",
        "max_held": "5",
        "retry_min_delay": "0.5",
        "retry_max_delay": "1e2",
    }
    assert load(options).limits == Limits(5, 0.5, 100.0)
    for field in (*dataclasses.fields(Limits), *dataclasses.fields(EngineOptions)):
        assert str(field.default) == OPTIONS[field.name]["default"]


def test_executor_names():
    """The short names stand for import paths; any other import path is itself."""
    backends = {"a": {"executor": "LocalExecutor", "slots": 1}, "b": {"executor": "x.y.Z", "slots": 1}}
    settings = load({"backends": json.dumps(backends), "default": "a"})
    assert settings.backends["a"].class_path == EXECUTOR_ALIASES["LocalExecutor"]
    assert settings.backends["b"].class_path == "x.y.Z"


def test_yaml_anchors_and_merges(tmp_path):
    """Anchors, aliases and merge keys work; a merged key may be given again."""
    text = """
backends:
  a: &base {executor: LocalExecutor, slots: 4}
  b: {<<: *base, slots: 8}
  more: &more {<<: *base, cordoned: true}
routes:
- queue: x
  to: &both [a, b]
- {queue: y, to: *both}
default: a
"""
    settings = load(as_file(tmp_path / "d.yaml", text))
    assert [backend.slots for backend in settings.backends.values()] == [4, 8, 4]
    assert settings.routes[0].to == settings.routes[1].to


def test_merge_of_a_merge_at_another_depth(tmp_path):
    """A mapping that was merged elsewhere before it is read itself has no key twice."""
    text = """
backends:
  a: {executor: LocalExecutor, slots: 4, config: {x: &x {p: 1}, y: &y {<<: *x, p: 2}}}
  b: {executor: LocalExecutor, slots: 4, config: {z: {<<: *y, q: 3}}}
default: a
"""
    settings = load(as_file(tmp_path / "d.yaml", text))
    assert settings.backends["b"].config == {"z": {"p": 2, "q": 3}}


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("{<<: [*x, *y]}", {"p": 1, "q": 2, "r": 3}),
        ("{<<: [*y, *x]}", {"p": 2, "q": 2, "r": 3}),
        ("{<<: [*z, *y], q: 4}", {"p": 1, "q": 4, "r": 3}),
        ("{p: 5, <<: *z}", {"p": 5, "q": 1, "r": 3}),
    ],
)
def test_which_of_several_merges_counts(tmp_path, merge, expected):
    """Its own keys, then those of the first mapping that has it: with any PyYAML."""
    anchors = "{x: &x {p: 1, q: 2}, y: &y {p: 2, q: 2, r: 3}, z: &z {<<: [{q: 1}, *x, *y]}}"
    text = f"""
backends:
  a: {{executor: LocalExecutor, slots: 4, config: {anchors}}}
  b: {{executor: LocalExecutor, slots: 4, config: {{s: {merge}}}}}
default: a
"""
    assert load(as_file(tmp_path / "d.yaml", text)).backends["b"].config == {"s": expected}


def test_text_beyond_ascii(tmp_path):
    """Queues may be written in any language."""
    text = "backends: {a: {executor: LocalExecutor, slots: 1}}\nroutes: [{queue: größe-😀, to: [a]}]\n"
    assert load(as_file(tmp_path / "d.yaml", text)).routes[0].queue == "größe-😀"


def test_sensitive_option_may_be_a_command():
    """``backends_cmd`` and ``backends_secret`` are Airflow's own; they are known names."""
    assert load({"backends": BACKENDS, "default": "a", "backends_cmd": "x", "backends_secret": "y"})


def test_slots_may_follow_the_workers():
    """With a number for the time in which none is known."""
    backends = '{"a": {"executor": "CeleryExecutor", "slots": "workers"}, '
    backends += '"b": {"executor": "CeleryExecutor", "slots": "workers", "fallback_slots": 0}}'
    settings = load({"backends": backends, "default": "a"})
    assert [backend.slots for backend in settings.backends.values()] == ["workers", "workers"]
    assert [backend.configured_slots for backend in settings.backends.values()] == [16, 0]


def test_settings_are_frozen_and_can_be_pickled():
    """They travel to child processes, and nobody changes them on the way."""
    settings = load(as_options(FULL))
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.limits = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.backends["local"].slots = 1


def test_schema_takes_what_is_documented():
    """The JSON Schema is one, names itself, and takes the full example."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == "dispatch.yaml"
    Draft202012Validator(schema).validate(FULL)


@pytest.mark.parametrize(
    "case", ["slots zero", "key unheard of", "to is text", "queue missing", "weight negative"]
)
def test_schema_refuses_what_is_refused(case):
    """An editor that has the schema marks the same mistakes."""
    data = {key: json.loads(value) for key, value in INLINE[case].items() if key != "default"}
    assert not Draft202012Validator(json_schema()).is_valid(data)


def test_examples_of_the_options_are_valid():
    """Airflow's own examples work together."""
    examples = {name: OPTIONS[name]["example"] for name in ("backends", "default")}
    routes = OPTIONS["routes"]["example"].replace('"gpu", {', '"local", {')
    assert load({**examples, "routes": routes}).default.to == (Target(backend="celery"),)
