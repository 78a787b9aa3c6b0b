# SPDX-License-Identifier: Apache-2.0
"""Which route a queue takes, and in which order its targets are tried."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from airflow_dispatch_provider.routing import routes as routes_module
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.routing.patterns import is_glob
from airflow_dispatch_provider.routing.routes import RouteTable, ordered_targets


def route(queue, dag_id=None, backend="a"):
    return Route(queue=queue, to=(Target(backend=backend),), dag_id=dag_id)


def table(*patterns):
    """A pattern is a queue, or a queue and a dag_id."""
    pairs = [(pattern, None) if isinstance(pattern, str) else pattern for pattern in patterns]
    return RouteTable([route(*pair) for pair in pairs], route("*", backend="z"))


# fmt: off
MATCHES = [
    # id                              patterns                            queue        dag_id      name
    ("exact",                         ["gpu"],                            "gpu",       "",         "gpu"),
    ("no match",                      ["gpu"],                            "cpu",       "",         "default"),
    ("no routes",                     [],                                 "cpu",       "",         "default"),
    ("no queue",                      ["*"],                              None,        "",         "default"),
    ("empty queue is a queue",        ["*"],                              "",          "",         "*"),
    ("glob",                          ["gpu-*"],                          "gpu-1",     "",         "gpu-*"),
    ("glob is anchored",              ["gpu-*"],                          "my-gpu-1",  "",         "default"),
    ("question mark",                 ["gpu-?"],                          "gpu-12",    "",         "default"),
    ("character set",                 ["gpu-[ab]"],                       "gpu-b",     "",         "gpu-[ab]"),
    ("exact before an earlier glob",  ["*", "gpu"],                       "gpu",       "",         "gpu"),
    ("earlier glob wins",             ["gpu-*", "*"],                     "gpu-1",     "",         "gpu-*"),
    ("earlier glob wins, reversed",   ["*", "gpu-*"],                     "gpu-1",     "",         "*"),
    ("case counts, exact",            ["GPU"],                            "gpu",       "",         "default"),
    ("case counts, glob",             ["GPU*"],                           "gpu1",      "",         "default"),
    ("dag_id matches",                [("gpu", "etl")],                   "gpu",       "etl",      "gpu of etl"),
    ("dag_id differs",                [("gpu", "etl")],                   "gpu",       "ml",       "default"),
    ("dag_id glob",                   [("gpu", "etl_*")],                 "gpu",       "etl_1",    "gpu of etl_*"),
    ("dag_id before plain, later",    ["gpu", ("gpu", "etl")],            "gpu",       "etl",      "gpu of etl"),
    ("dag_id before plain, glob",     ["g*", ("gp*", "etl")],             "gpu",       "etl",      "gp* of etl"),
    ("earlier dag_id wins",           [("gpu", "e*"), ("gpu", "etl")],    "gpu",       "etl",      "gpu of e*"),
    ("exact queue before dag_id",     [("g*", "etl"), "gpu"],             "gpu",       "etl",      "gpu"),
    ("exact of another dag, glob",    [("gpu", "ml"), "g*"],              "gpu",       "etl",      "g*"),
    ("no dag_id known",               [("gpu", "etl")],                   "gpu",       "",         "default"),
    ("unclosed bracket is itself",    ["a[b"],                            "a[b",       "",         "a[b"),
    ("regex signs mean nothing",      ["a.c+(d)"],                        "abc+(d)",   "",         "default"),
    ("a star spans line ends",        ["a*z"],                            "a\nz",      "",         "a*z"),
    ("no trailing line end",          ["a*z"],                            "az\n",      "",         "default"),
    ("beyond ASCII",                  ["größe-*"],                        "größe-😀",   "",         "größe-*"),
    ("a lone surrogate",              ["a*"],                             "a\ud800",   "",         "a*"),
    ("spaces count",                  ["gpu"],                            " gpu",      "",         "default"),
]
# fmt: on


@pytest.mark.parametrize(
    ("patterns", "queue", "dag_id", "name"), [pytest.param(*r[1:], id=r[0]) for r in MATCHES]
)
def test_match(patterns, queue, dag_id, name):
    """Exact before glob, globs as ordered, a route with a dag_id before one without, then the default."""
    assert table(*patterns).match(TaskRef(queue, dag_id)).name == name


def test_first_of_equal_routes_wins():
    """Two routes of one queue: the first is used."""
    first, second = route("q", backend="first"), route("q", backend="second")
    assert RouteTable([first, second], first).match(TaskRef("q")).route is first


def test_default_route_and_route_named_default_are_two():
    """A route for the queue ``default`` is another one than the default route, though both have that name."""
    routes = table("default")
    named, fallback = routes.match(TaskRef("default")), routes.match(TaskRef("other"))
    assert named.name == fallback.name == "default"
    assert named != fallback
    assert named.route.to[0].backend == "a"
    assert fallback.route.to[0].backend == "z"


def test_memo_gives_the_same_match(monkeypatch):
    """A queue's globs are tried once, and for all Dags together where no route names a Dag."""
    calls = Counter()

    def counting(name, pattern):
        calls[name] += 1
        return True

    monkeypatch.setattr(routes_module, "fnmatchcase", counting)
    routes = table("g*")
    assert routes.match(TaskRef("gpu", "d1")) is routes.match(TaskRef("gpu", "d2"))
    assert calls == {"gpu": 1}


def test_memo_keeps_dags_apart():
    """Where a route names a Dag, what one Dag got is not given to another."""
    routes = table(("gpu", "etl"))
    assert [routes.match(TaskRef("gpu", dag)).name for dag in ("etl", "ml", "etl")] == [
        "gpu of etl",
        "default",
        "gpu of etl",
    ]


def test_memo_is_bounded(monkeypatch):
    """A Dag that makes up queue names does not eat the scheduler's memory."""
    monkeypatch.setattr(routes_module, "MEMO_SIZE", 10)
    routes = table("g*")
    for number in range(100):
        routes.match(TaskRef(f"g{number}"))
    assert routes._memo.cache_info().currsize == 10


@pytest.mark.parametrize(
    ("pattern", "expected"), [("a*", True), ("a?", True), ("[a]", True), ("a]", False), ("", False)]
)
def test_is_glob(pattern, expected):
    """The characters that make a name a pattern."""
    assert is_glob(pattern) is expected


def weighted(**weights):
    return Route(queue="q", to=tuple(Target(backend=name, weight=weight) for name, weight in weights.items()))


def test_without_weights_the_written_order_counts():
    """No weights: the targets as they are written, whatever the seed."""
    plain = Route(queue="q", to=(Target(backend="b"), Target(backend="a")))
    assert ordered_targets(plain, "one") == ordered_targets(plain, "two") == plain.to


def test_weights_are_shares():
    """Each target comes first for about its share of the tasks."""
    split = weighted(a=70, b=20, c=10)
    first = Counter(ordered_targets(split, f"task {number}")[0].backend for number in range(5000))
    assert {name: round(count / 5000, 1) for name, count in first.items()} == {"a": 0.7, "b": 0.2, "c": 0.1}


def test_weight_zero_is_a_last_resort():
    """Targets of weight 0 come after all others, as written."""
    split = weighted(y=0, a=1, x=0, b=1)
    for number in range(50):
        assert [target.backend for target in ordered_targets(split, str(number))[2:]] == ["y", "x"]


def test_taking_a_target_away_moves_only_its_own_tasks():
    """Tasks that did not have the removed target first keep their order."""
    three, two = weighted(a=3, b=2, c=1), weighted(a=3, b=2)
    for number in range(500):
        seed = f"task {number}"
        without_c = tuple(target for target in ordered_targets(three, seed) if target.backend != "c")
        assert ordered_targets(two, seed) == without_c


def test_order_is_fixed_for_all_time():
    """The very order for some seeds: a scheduler of another version must not disagree."""
    split = weighted(a=1, b=1, c=1)
    orders = ["".join(target.backend for target in ordered_targets(split, seed)) for seed in "12345"]
    assert orders == ["cab", "abc", "cab", "bac", "acb"]


def test_order_is_the_same_in_every_process():
    """Two schedulers agree although their hash seeds differ."""
    program = (
        "from airflow_dispatch_provider.routing.model import *;"
        "from airflow_dispatch_provider.routing.routes import *;"
        "r = Route(queue='q', to=tuple(Target(backend=b, weight=1) for b in 'abc'));"
        "print([[t.backend for t in ordered_targets(r, str(n))] for n in range(40)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_any_seed_can_be_hashed():
    """A task whose name UTF-8 does not know does not stop the scheduler."""
    assert len(ordered_targets(weighted(a=1, b=1), "\udfff")) == 2


def targets_for(executor, *to, queue="q"):
    """Where a task of queue q goes that asks for an executor; the backends k1 and k2 have K, c has C."""
    routes = [Route(queue=queue, to=to, overflow_after=30)]
    default = Route(queue="*", to=(Target(backend="c"),))
    found = RouteTable(routes, default, {"K": ["k1", "k2"], "C": ["c"]}).match(
        TaskRef("q", executor=executor)
    )
    return found, [str(target) for target in found.route.to]


K1, K2, C = Target(backend="k1"), Target(backend="k2", queue="other"), Target(backend="c")


@pytest.mark.parametrize(
    ("executor", "to", "queue", "name", "expected"),
    [
        (None, (C, K2), "q", "q", ["c", "k2 (queue other)"]),
        ("X", (C, K2), "q", "q", ["c", "k2 (queue other)"]),
        ("K", (C, K2), "q", "q, K", ["k2 (queue other)"]),
        ("K", (K2, C, K1), "q", "q, K", ["k2 (queue other)", "k1"]),
        ("K", (C,), "q", "q, K", ["k1", "k2"]),
        ("K", (K1,), "elsewhere", "default, K", ["k1", "k2"]),
    ],
)
def test_a_task_that_asks_for_an_executor(executor, to, queue, name, expected):
    """It keeps those targets of its route that have it, in their order; else any backend has it; else its route."""
    found, targets = targets_for(executor, *to, queue=queue)
    assert (found.name, targets) == (name, expected)


def test_what_asks_alike_has_one_match():
    """One object: only so is it decided together."""
    default = Route(queue="*", to=(C,))
    table = RouteTable([], default, {"K": ["k1"]})
    assert table.match(TaskRef("a", executor="K")) is table.match(TaskRef(None, executor="K"))
    assert table.match(TaskRef("a", executor="K")) is not table.match(TaskRef("a"))


def test_weights_of_the_targets_that_are_left():
    """Shares among them; targets of weight 0 alone are tried as written."""

    def weighted(**weights):
        to = tuple(Target(backend=name, weight=weight) for name, weight in weights.items())
        return [target.weight for target in targets_for("K", *to)[0].route.to]

    assert weighted(c=5, k1=1, k2=3) == [1, 3]
    assert weighted(c=5, k1=0, k2=0) == [None, None]
