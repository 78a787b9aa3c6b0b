# SPDX-License-Identifier: Apache-2.0
"""Keeps what goes wrong inside the router from ending the scheduler."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from airflow_dispatch_provider.masking import LateTraceback, describe

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def guarded(otherwise: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """The method returns ``otherwise`` where it would raise, and says so in the log.

    Airflow ends the scheduler over an exception from an executor. The same one again is logged at debug level
    only: these methods are called many times a second.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        last: list[str] = []

        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                result = method(*args, **kwargs)
            except Exception as error:
                description = describe(error)
                level = logging.DEBUG if description in last else logging.ERROR
                last[:] = [description]
                log.log(level, "%s failed: %s%s", method.__name__, description, LateTraceback(error))
                return otherwise  # type: ignore[no-any-return]
            if last:
                log.info("%s works again.", method.__name__)
                last.clear()
            return result

        return call

    return decorate
