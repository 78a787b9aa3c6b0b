# SPDX-License-Identifier: Apache-2.0
"""Short ways to make machines, and to read what they want done."""

from __future__ import annotations

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import BackendRules, Limits, Queued, Room, Settings, Tick
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Row, RowState
from airflow_dispatch_provider.routing.model import Route, Target, TaskRef
from airflow_dispatch_provider.routing.routes import RouteTable

QUEUED, RUNNING = Row(RowState.QUEUED), Row(RowState.RUNNING)


def route(queue, *backends, overflow_after=0.0):
    """A route; a backend may be given as (name, queue there)."""
    targets = [
        Target(backend=b) if isinstance(b, str) else Target(backend=b[0], queue=b[1]) for b in backends
    ]
    return Route(queue=queue, to=tuple(targets), overflow_after=overflow_after)


def settings(*routes, rules=None, **limits):
    """Backends a and b; what matches no route goes to a, then b. Time may be skipped."""
    table = RouteTable(routes, route("*", "a", "b"), {})
    rules = {"a": BackendRules(), "b": BackendRules(), **(rules or {})}
    return Settings(table, rules, Limits(**{"paused_after": 1e9, **limits}))


def machine(*routes, **options):
    return Machine(settings(*routes, **options), seed="test")


def rooms(**slots):
    """Rooms by backend; a number is so many slots."""
    return {name: room if isinstance(room, Room) else Room(room) for name, room in slots.items()}


def tick(**slots):
    return Tick(rooms(**slots))


def queued(key, queue="q", priority=1, **rest):
    return Queued(key, TaskRef(queue, "dag", str(key), **rest), priority, f"workload {key}")


def of(found, kind):
    """The actions of one kind."""
    return [action for action in found if isinstance(action, kind)]


def dispatches(found):
    """Submitted dispatches by key."""
    return {each.key: each for submit in of(found, actions.Submit) for each in submit.dispatches}


def asked(found, kind=actions.LookUp):
    """The one question to the database."""
    (question,) = of(found, kind)
    return question


def launched(m, now, *happened, **slots):
    """Keys that are dispatched by a Tick, and to which backend."""
    return {k: d.target.backend for k, d in dispatches(m.handle(now, *happened, tick(**slots))).items()}


def number(m, now, key, **slots):
    """Queue one job, have it dispatched, and return the number of its dispatch."""
    return dispatches(m.handle(now, queued(key), tick(**(slots or {"a": 9}))))[key].number


def launched_number(m, now):
    """Of the one job that is queued again and again."""
    happened = [] if 1 in m else [queued(1)]
    return dispatches(m.handle(now, *happened, tick(a=9)))[1].number
