# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch`` with an order about a backend: cordon, drain, recall, resume. Loaded when one of them is
called."""

from __future__ import annotations

import getpass
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from airflow_dispatch_provider.bridge.database.tables import ReadOnly, TablesMissing
from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import UsageError, command, database_words
from airflow_dispatch_provider.cli.operating import (
    LOOK_EVERY,
    clock,
    duration,
    order_words,
    plain,
    say_uncounted,
    shown_as_object,
)
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Reading, read
from airflow_dispatch_provider.operate.draining import left, to_come_back
from airflow_dispatch_provider.operate.forecast import read_forecast
from airflow_dispatch_provider.operate.model import Forecast, GivenOrder
from airflow_dispatch_provider.operate.orders import TAKES_WORK, UNHEARD, UnknownBackend, early, give_order

Left = Callable[[Reading, str, "str | None"], "str | None"]
"""Why an order has not had its effect yet, in a sentence: see ``operate.draining``."""


class NotDone(DispatchError):
    """``--wait`` has waited for as long as it was told."""


@command
def cordon(args: Namespace) -> int:
    """``airflow dispatch cordon``"""
    return _foretell(args, _stopped_words) if args.dry_run else _order("cordon", args)


@command
def drain(args: Namespace) -> int:
    """``airflow dispatch drain``"""
    if args.dry_run:
        return _foretell(args, _stopped_words)
    return _order_and_wait("drain", args, left, "is empty")


@command
def recall(args: Namespace) -> int:
    """``airflow dispatch recall``"""
    if args.dry_run:
        return _foretell(args, _recalled_words)
    return _order_and_wait("recall", args, to_come_back, "has given back what it had not begun")


@command
def resume(args: Namespace) -> int:
    """``airflow dispatch resume``"""
    return _order("resume", args)


def _ends_early(args: Namespace, found: Forecast) -> Iterator[str]:
    seconds = getattr(args, "seconds", None)
    words = early(found.now + timedelta(seconds=seconds), found.order) if seconds else None
    if words is not None:
        yield words


def _foretell(args: Namespace, words: Callable[[Forecast], Iterator[str]]) -> int:
    try:
        found = read_forecast(args.backend, getattr(args, "team", None))
    except UnknownBackend as error:
        raise UsageError(str(error)) from None
    if (code := shown_as_object(found, args.output)) is not None:
        return code
    for sentence in (
        *words(found),
        *_ends_early(args, found),
        "Nothing was ordered: leave out --dry-run for that.",
    ):
        print(output.wrapped(sentence))
    say_uncounted(found.uncounted, "table")
    return 0


def _stopped_words(found: Forecast) -> Iterator[str]:
    begun = found.has - found.not_begun
    yield f"{found.backend}: {_tasks(begun, 'runs there and goes', 'run there and go')} on."
    if found.not_begun:
        have = (
            "has not begun, stays there, and may"
            if found.not_begun == 1
            else "have not begun, stay there, and may"
        )
        yield f"{found.not_begun} more {have} never begin: recall takes back what has not begun."
    yield from _held_words(found)
    if found.order is not None:
        yield f"It would replace {order_words(found.order)[0]}"


def _held_words(found: Forecast) -> Iterator[str]:
    if not found.held:
        yield "No task waits for it."
        return
    yield f"{_tasks(found.held, 'waits', 'wait')} for it, of which"
    for name, number in found.elsewhere.items():
        yield f"  {number} may go to {name};"
    has, waits = ("has", "waits") if found.stay == 1 else ("have", "wait")
    yield f"  {found.stay} {has} no other backend that is open, and {waits} until it is resumed."


def _recalled_words(found: Forecast) -> Iterator[str]:
    come = "has not begun and comes" if found.not_begun == 1 else "have not begun and come"
    yield f"{found.backend}: of {_tasks(found.has)} there, {found.not_begun} {come} back."
    if not found.is_cordoned:
        yield TAKES_WORK


def _tasks(number: int, one: str = "", more: str = "") -> str:
    return f"{number} task {one}".rstrip() if number == 1 else f"{number} tasks {more}".rstrip()


def _order(word: str, args: Namespace) -> int:
    seconds = getattr(args, "seconds", None)
    try:
        found = give_order(word, args.backend, getattr(args, "team", None), _who(), args.reason, seconds)
    except (ReadOnly, TablesMissing):
        raise
    except DispatchError as error:
        raise UsageError(str(error)) from None
    if args.output in output.STRUCTURED:
        output.show_object(None if found is None else plain(asdict(found)), args.output)
    elif found is None or word == "resume":
        print(output.wrapped(_resumed(args.backend, found)))
    else:
        print(output.wrapped(f"{found.backend}: {' '.join(_given_words(found))}"))
    return 0


def _given_words(given: GivenOrder) -> Iterator[str]:
    heard = "" if UNHEARD in (given.warning or "") else "; all schedulers that live know in seconds"
    yield f"{_MEANING[given.command]}{heard}."
    if given.until is not None and given.command != "recall":
        yield f"It runs out at {clock(given.until)}."
    if given.replaces is not None:
        yield f"It replaces {order_words(given.replaces)[0]}"
    if given.warning is not None:
        yield given.warning


def _resumed(backend: str, before: GivenOrder | None) -> str:
    if before is None:
        return f"No order was in force about {backend}: nothing has changed."
    warning = before.warning or "All schedulers know in seconds."
    return f"{backend}: taken back: {order_words(before)[0]} {warning}"


_MEANING = {
    "cordon": "it gets no new work, and what it has been given goes on",
    "drain": "it gets no new work, and what it has not sent comes back",
    "recall": "what it has been given and has not begun comes back",
}


def _order_and_wait(word: str, args: Namespace, left: Left, done: str) -> int:
    if args.timeout is not None and not args.wait:
        raise UsageError("--timeout is for how long to --wait.")
    code = _order(word, args)
    if not args.wait:
        return code
    try:
        _wait(args, left)
    except KeyboardInterrupt:
        _say(f"{args.backend} is not waited for any more. The order stays in force.")
        return _INTERRUPTED
    _say(f"{args.backend} {done}.")
    return code


_INTERRUPTED = 130
"""As shells have it."""


def _wait(args: Namespace, left: Left) -> None:
    """Say why it is not done, each time that changes, until it is."""
    ends = None if args.timeout is None else time.monotonic() + args.timeout
    said = ""
    while (words := _left(args, left)) is not None:
        if words != said:
            _say(f"{args.backend}: {words}")
        said = words
        if ends is not None and time.monotonic() >= ends:
            raise NotDone(f"{args.backend}: {words} After {duration(args.timeout)} the order stays in force.")
        time.sleep(LOOK_EVERY)


def _left(args: Namespace, left: Left) -> str | None:
    """A database that is away for a while in these hours ends nothing."""
    try:
        return left(read(), args.backend, getattr(args, "team", None))
    except SQLAlchemyError as error:
        return database_words(error)


def _say(words: str) -> None:
    print(output.printable(words), file=sys.stderr, flush=True)


def _who() -> str:
    """The user of the operating system; a container may have one without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
