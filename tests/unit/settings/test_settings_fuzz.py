# SPDX-License-Identifier: Apache-2.0
"""Whatever is written: settings, or a DispatchConfigError with something to read; nothing else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from unit.settings.fakes import FakeConf

from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.parse import Raw, parse
from airflow_dispatch_provider.settings.source import SettingsSource

KEYS = ["backend", "backends", "executor", "slots", "cordoned", "config", "queue", "to", "dag_id", "weight"]
KEYS += [
    "overflow_after",
    "default",
    "float",
    "str",
    "int",
    "bool",
    "LocalExecutor",
    "never",
    "*",
    "a",
    "b",
    "",
]
texts = st.sampled_from(KEYS) | st.text(max_size=4) | st.just("\ud800")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.dates() | st.binary(max_size=2)
keys = texts | st.integers(0, 3) | st.none() | st.dates()
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def loose(known):
    """An object with mostly the right keys, and now and then right values."""
    return st.dictionaries(st.sampled_from(list(known)), anything, max_size=3).flatmap(
        lambda odd: st.fixed_dictionaries(known).map(lambda right: {**right, **odd})
    )


backend = loose({"executor": st.sampled_from(["LocalExecutor", "x.Y", "Zoo"]), "slots": st.integers(1, 9)})
target = texts | loose(
    {"backend": texts, "queue": st.none() | texts, "weight": st.none() | st.integers(0, 3)}
)
route = loose({"queue": texts, "to": st.lists(target, max_size=3), "overflow_after": st.just(0) | scalars})
values = st.fixed_dictionaries(
    {},
    optional={
        "backends": st.dictionaries(keys, backend | anything, max_size=3) | anything,
        "routes": st.lists(route | anything, max_size=3) | anything,
        "default": target | st.lists(target, max_size=3) | anything,
        "max_held": scalars,
        "retry_min_delay": scalars,
    },
)


def check(action):
    try:
        settings = action()
    except DispatchConfigError as error:
        check_refusal(error)
    else:
        check_settings(settings)


def check_refusal(error):
    assert error.problems
    assert len({str(problem) for problem in error.problems}) == len(error.problems)
    assert all(problem.where.strip() and problem.found.endswith(".") for problem in error.problems)
    str(error).encode()
    assert "pydantic" not in str(error)


def check_settings(settings):
    assert isinstance(settings, Settings)
    routes = [*settings.routes, settings.default]
    assert all(target.backend in settings.backends for route in routes for target in route.to)


@given(values)
def test_any_data(data):
    """Data of any shape, as YAML can make it."""
    check(lambda: parse(Raw(data)))


@given(values)
def test_any_json(data):
    """The same as JSON text in the options."""
    data = json.loads(json.dumps(data, default=str, skipkeys=True))
    options = {key: json.dumps(value) for key, value in data.items()}
    check(SettingsSource(FakeConf(options), options=lambda: options).load)


@given(
    st.dictionaries(st.sampled_from(["backends", "routes", "default", "max_held", "config_file"]), st.text())
)
def test_any_text(options):
    """Any text as the value of any option."""
    check(SettingsSource(FakeConf(options), options=lambda: options).load)
