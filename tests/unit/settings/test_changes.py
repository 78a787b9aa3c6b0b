# SPDX-License-Identifier: Apache-2.0
"""Differences between two configurations, as the log and ``validate FILE`` say them."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from unit.settings.fakes import load

from airflow_dispatch_provider.settings.changes import DRAINED, REPLACED, STARTED, changes
from airflow_dispatch_provider.settings.model import BackendSettings

A = {"executor": "LocalExecutor", "slots": 4}
B = {"executor": "CeleryExecutor", "slots": 8}
ROUTES = [{"queue": "x*", "to": ["a"]}, {"queue": "y*", "to": ["a"]}, {"queue": "z*", "to": ["b"]}]
OLD = {"backends": {"a": A, "b": B}, "routes": ROUTES, "default": "a"}


def settings(options):
    return load(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    )


def with_b(**more):
    return {**OLD, "backends": {"a": A, "b": {**B, **more}}}


CASES = [
    ("nothing", OLD, []),
    ("slots", with_b(slots=9), ["backends.b changed: slots 8 -> 9"]),
    ("slots of the workers", with_b(slots="workers"), ["backends.b changed: slots 8 -> workers (replaced)"]),
    ("cordoned", with_b(cordoned=True), ["backends.b changed: cordoned"]),
    (
        "another executor",
        with_b(executor="x.Y"),
        ["backends.b changed: executor CeleryExecutor -> x.Y (replaced)"],
    ),
    (
        "an option, without its value",
        with_b(config={"celery": {"broker_url": "redis://:s3cret@h"}}),
        ["backends.b changed: config.celery.broker_url added (replaced)"],
    ),
    (
        "a new backend",
        {**OLD, "backends": {"a": A, "b": B, "c": A}},
        ["backends.c added: LocalExecutor, slots 4 (started)"],
    ),
    (
        "a backend that is gone",
        {"backends": {"a": A}, "routes": ROUTES[:2], "default": "a"},
        ["backends.b removed: CeleryExecutor (drained)", "routes[2] removed: z* to b"],
    ),
    ("a new route", {**OLD, "routes": [*ROUTES, {"queue": "q", "to": ["b"]}]}, ["routes[3] added: q to b"]),
    (
        "a new first route moves no other",
        {**OLD, "routes": [{"queue": "q", "to": ["b"]}, *ROUTES]},
        ["routes[0] added: q to b"],
    ),
    ("a moved route", {**OLD, "routes": [ROUTES[2], *ROUTES[:2]]}, ["routes[0] moved: z*, from routes[2]"]),
    (
        "other targets",
        {**OLD, "routes": [{"queue": "x*", "to": ["a", "b"], "overflow_after": 5}, *ROUTES[1:]]},
        ["routes[0] changed: x*: a -> a, b (overflow after 5 s)"],
    ),
    (
        "weights",
        {**OLD, "default": [{"backend": "a", "weight": 1}, {"backend": "b", "weight": 3}]},
        ["default changed: a -> a weight 1, b weight 3"],
    ),
]


@pytest.mark.parametrize(("name", "new", "expected"), CASES, ids=[case[0] for case in CASES])
def test_changes(name, new, expected):
    """One line for each difference, with what a running scheduler does with a backend."""
    found = map(str, changes(settings(OLD), settings(new)))
    shorter = {STARTED: "started", DRAINED: "drained", REPLACED: "replaced"}
    for effect, word in shorter.items():
        found = [line.replace(effect, word) for line in found]
    assert list(found) == expected


@pytest.mark.parametrize("name", [each.name for each in fields(BackendSettings)])
def test_whatever_a_backend_is_given_otherwise_is_a_change(name):
    """A field that nobody has thought of here would change unsaid, and without a restart."""
    other = {
        "executor": "x.Y",
        "slots": 9,
        "fallback_slots": 7,
        "cordoned": True,
        "config": {"celery": {"broker_url": "redis://h"}},
    }
    assert changes(settings(OLD), settings(with_b(**{name: other[name]})))
