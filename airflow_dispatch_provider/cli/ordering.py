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

from airflow_dispatch_provider.bridge.database.tables import ReadOnly, TablesMissing
from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.commands import UsageError, command
from airflow_dispatch_provider.cli.operating import (
    LOOK_EVERY,
    NothingKnown,
    clock,
    duration,
    order_words,
    plain,
)
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.operate.documents import Reading, read
from airflow_dispatch_provider.operate.draining import left, to_come_back
from airflow_dispatch_provider.operate.forecast import read_forecast
from airflow_dispatch_provider.operate.model import Forecast, OrderInForce
from airflow_dispatch_provider.operate.orders import UnknownBackend, give_order

Left = Callable[[Reading, str, "str | None"], "str | None"]
"""Why an order has not had its effect yet, in a sentence: see ``operate.draining``."""


class NotDone(DispatchError):
    """``--wait`` has waited for as long as it was told."""


@command
def cordon(args: Namespace) -> int:
    """``airflow dispatch cordon``"""
    return _foretell(args) if args.dry_run else _order("cordon", args)


@command
def drain(args: Namespace) -> int:
    """``airflow dispatch drain``"""
    if args.dry_run:
        return _foretell(args)
    return _order_and_wait("drain", args, left, "is empty")


def _foretell(args: Namespace) -> int:
    try:
        found = read_forecast(args.backend, getattr(args, "team", None))
    except UnknownBackend as error:
        raise UsageError(str(error)) from None
    if args.output in output.STRUCTURED:
        output.show_object(plain(asdict(found)), args.output)
    elif found.problem is not None:
        raise NothingKnown(found.problem)
    else:
        for sentence in _forecast_words(found):
            print(output.wrapped(sentence))
    return 0


def _forecast_words(found: Forecast) -> Iterator[str]:
    yield f"{found.backend} has {found.has} tasks, which go on; {found.not_begun} of them have not begun."
    yield f"{found.held} more wait for it, of which"
    for name, number in found.elsewhere.items():
        yield f"  {number} may go to {name};"
    yield f"  {found.stay} have no other backend that is open, and wait until it is resumed."
    yield "Nothing was ordered: leave out --dry-run for that."


@command
def resume(args: Namespace) -> int:
    """``airflow dispatch resume``"""
    return _order("resume", args)


@command
def recall(args: Namespace) -> int:
    """``airflow dispatch recall``"""
    return _order_and_wait("recall", args, to_come_back, "has given back what it had not begun")


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
        runs_out = found.until is not None and found.command != "recall"
        until = f" It runs out at {clock(found.until)}." if runs_out else ""
        print(output.wrapped(f"{found.backend}: {_MEANING[word]}; all schedulers know in seconds.{until}"))
    return 0


def _resumed(backend: str, before: OrderInForce | None) -> str:
    if before is None:
        return f"No order was in force about {backend}: nothing has changed."
    return f"{backend}: taken back: {order_words(before)[0]} All schedulers know in seconds."


_MEANING = {
    "cordon": "it gets no new work, and what it has been given goes on",
    "drain": "it gets no new work, and what it has not sent comes back",
    "recall": "what it has been given and has not begun comes back",
}


def _order_and_wait(word: str, args: Namespace, left: Left, done: str) -> int:
    if args.timeout is not None and not args.wait:
        raise UsageError("--timeout is for how long to --wait.")
    code = _order(word, args)
    if args.wait:
        _wait(args, left)
        _say(f"{args.backend} {done}.")
    return code


def _wait(args: Namespace, left: Left) -> None:
    """Say why it is not done, each time that changes, until it is."""
    ends = None if args.timeout is None else time.monotonic() + args.timeout
    said = ""
    while (words := left(read(), args.backend, getattr(args, "team", None))) is not None:
        if words != said:
            _say(f"{args.backend}: {words}")
        said = words
        if ends is not None and time.monotonic() >= ends:
            raise NotDone(f"{args.backend}: {words} After {duration(args.timeout)} the order stays in force.")
        time.sleep(LOOK_EVERY)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _who() -> str:
    """The user of the operating system; a container may have one without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
