# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch story``. Loaded when it is called."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import UsageError, command
from airflow_dispatch_provider.cli.operating import about, ago, clock, duration, iso, plain
from airflow_dispatch_provider.operate.model import WaitingTask
from airflow_dispatch_provider.operate.past import Given, StoryStep, TaskStory
from airflow_dispatch_provider.operate.story import NoSuchTask, read_story


@command
def story(args: Namespace) -> int:
    """``airflow dispatch story``"""
    try:
        found = read_story(args.dag_id, args.run_id, args.task_id, args.map_index, args.try_number)
    except NoSuchTask as error:
        raise UsageError(str(error)) from None
    if args.output in output.STRUCTURED:
        output.show_object(plain(asdict(found)), args.output)
        return 0
    if args.output == "table":
        print(output.wrapped(f"Try {found.try_number} of {found.dag_id} {found.task_id}: {found.state}."))
        print()
    row = _step_fields if args.output == "plain" else _step_row
    output.show_rows(list(map(row, found.steps)), args.output)
    for sentences in _now(found) if args.output == "table" else ():
        print()
        print(output.wrapped(sentences))
    return 0


def _now(found: TaskStory) -> Iterator[str]:
    """Where it is."""
    if found.unqueued is not None:
        yield found.unqueued
    if found.waiting is not None:
        yield _wait_words(found.waiting)
    if found.given is not None:
        yield _given_words(found.given)
    if found.orphaned is not None:
        yield found.orphaned


def _step_row(step: StoryStep) -> dict[str, Any]:
    return {"at": clock(step.at), "event": step.event, "what": step.words, "detail": step.detail}


def _step_fields(step: StoryStep) -> dict[str, Any]:
    """For ``plain``: a field has no blank in it, but for the last one."""
    what = [step.words, *([step.detail] if step.detail else [])]
    return {"at": iso(step.at), "event": step.event, "backend": step.backend, "what": what}


def _wait_words(task: WaitingTask) -> str:
    sooner = ", or sooner if another target takes it" if task.others else ""
    expected = f" It is expected to start {about(task.expected)}{sooner}." if task.expected else ""
    detail = f" {task.detail}" if task.detail else ""
    place = f" at place {task.position} for {', '.join(task.targets)}" if task.position else ""
    usual = (
        ""
        if task.usual is None
        else f" In its last runs it started {duration(task.usual)} after it was scheduled."
    )
    return f"It waits{place} ({task.reason}: {task.words}).{detail}{expected}{usual}"


def _given_words(given: Given) -> str:
    hint = f" {given.hint}" if given.hint else ""
    return (
        f"{given.backend} has had it for {ago(datetime.now(UTC), given.since)}, and it has not begun.{hint}"
    )
