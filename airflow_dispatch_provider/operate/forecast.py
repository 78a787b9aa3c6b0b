# SPDX-License-Identifier: Apache-2.0
"""The consequences of an order, before it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from airflow_dispatch_provider.operate.documents import Reading, moment, read
from airflow_dispatch_provider.operate.model import BackendState, Forecast
from airflow_dispatch_provider.operate.orders import check_backend
from airflow_dispatch_provider.operate.status import status_of


def read_forecast(backend: str, team: str | None) -> Forecast:
    """
    How many tasks of a backend would go on, go elsewhere or wait, if it got no new work.

    :raises UnknownBackend: no scheduler has it
    :raises TablesMissing: the migration has not been run
    """
    check_backend(backend, team, may_be_gone=False)
    return forecast_of(read(), backend, team)


def forecast_of(reading: Reading, backend: str, team: str | None) -> Forecast:
    """See ``read_forecast``."""
    documents = [document for document in reading.living if document.team == team]
    is_open = {
        each.name for each in status_of(reading).backends if each.team == team and _is_open(each.state)
    } - {backend}
    entries = [
        entry for document in documents for entry in document.body["backends"] if entry["name"] == backend
    ]
    held: Counter[str] = Counter()
    for document in documents:
        for line in document.body["lines"]:
            first, *others = line["targets"]
            if first == backend:
                held[_next(others, is_open)] += line["held"]
    stay = held.pop(_NOWHERE, 0)
    return Forecast(
        moment(reading.now),
        backend,
        team,
        has=sum(entry["used"] + entry["ahead"] for entry in entries),
        not_begun=sum(entry["not_begun"] for entry in entries),
        held=stay + held.total(),
        elsewhere=dict(held.most_common()),
        stay=stay,
        problem=reading.problem,
    )


_NOWHERE = ""


def _is_open(state: BackendState) -> bool:
    return state is BackendState.OPEN


def _next(targets: Collection[str], is_open: Collection[str]) -> str:
    return next((target for target in targets if target in is_open), _NOWHERE)
