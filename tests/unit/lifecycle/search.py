# SPDX-License-Identifier: Apache-2.0
"""Breadth-first through every world that can be reached."""

from __future__ import annotations

import gc
from collections import defaultdict, deque
from dataclasses import dataclass

from unit.lifecycle.frozen import Wrong
from unit.lifecycle.small_scheduler import forget
from unit.lifecycle.world import World


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    wrong: str | None = None
    """An invariant that does not hold, and the shortest way there."""


def search(**budgets):
    forget()
    gc.disable()
    try:
        return _search(**budgets)
    finally:
        gc.enable()


def _search(limit=10_000_000, **budgets):
    world = World(**budgets)
    came_from = {world.key(): None}
    todo = deque([(world.key(), world)])
    ends, back, found = set(), defaultdict(list), Found()
    while todo and len(came_from) < limit:
        key, world = todo.popleft()
        if world.done:
            ends.add(key)
        for fault, name, arguments in list(world.steps()):
            found.steps += 1
            after = world.copy()
            try:
                getattr(after, name)(*arguments)
                new = after.key()
            except (Wrong, AssertionError, KeyError) as error:
                found.wrong = f"{error!r} after\n{_path(came_from, key)}\n  {name}{arguments}"
                return found
            if not fault:
                back[new].append(key)
            if new not in came_from:
                came_from[new] = (key, f"{name}{arguments}")
                found.states += 1
                todo.append((new, after))
    stuck = None if todo else _stuck(came_from, ends, back)
    if stuck is not None:
        found.wrong = f"no way to the end from\n{_path(came_from, stuck)}"
    return found


def _stuck(came_from, ends, back):
    live, todo = set(ends), list(ends)
    while todo:
        for key in back[todo.pop()]:
            if key not in live:
                live.add(key)
                todo.append(key)
    return next((key for key in came_from if key not in live), None)


def _path(came_from, key):
    steps = []
    while came_from[key] is not None:
        key, step = came_from[key]
        steps.append(f"  {step}")
    return "\n".join(reversed(steps))
