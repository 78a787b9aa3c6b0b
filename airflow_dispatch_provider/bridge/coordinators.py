# SPDX-License-Identifier: Apache-2.0
"""The language runtimes that ``[sdk]`` gives to queues: Airflow 3.3 and later."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_3_PLUS
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)


def coordinator_extra(queue: str | None) -> Mapping[str, Any] | None:
    """The ``extra`` of that queue's coordinator, e.g. the image of its pods; None: it has none. A mistake in ``[sdk]``
    is the supervisors' affair, and costs no pod."""
    if not queue or not AIRFLOW_V_3_3_PLUS:
        return None
    from airflow.sdk.execution_time import coordinator

    sdk: Any = coordinator
    try:
        extra: Mapping[str, Any] | None = sdk.get_coordinator_manager().extra_for_queue(queue)
    except Exception as error:
        _warn(queue, describe(error))
        return None
    return extra


@lru_cache(maxsize=64)
def _warn(queue: str, reason: str) -> None:
    """Once, and not for each pod."""
    message = "The coordinator of queue %s cannot be read in [sdk], and its pods are made without: %s"
    log.warning(message, queue, reason)
