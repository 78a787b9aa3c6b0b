# SPDX-License-Identifier: Apache-2.0
"""The consequences of an order, before it is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from airflow_dispatch_provider.operate.documents import Reading, moment, read
from airflow_dispatch_provider.operate.model import BackendState, Forecast
from airflow_dispatch_provider.operate.orders import check_backend
from airflow_dispatch_provider.operate.uncounted import uncounted_of


def read_forecast(backend: str, team: str | None) -> Forecast:
    """
    How many tasks of a backend would go on, go elsewhere or wait, if it got no new work.

    :raises UnknownBackend: no scheduler has it
    :raises TablesMissing: the migration has not been run
    """
    reading = read()
    check_backend(reading, backend, team, may_be_gone=False)
    return forecast_of(reading, backend, team)


def forecast_of(reading: Reading, backend: str, team: str | None) -> Forecast:
    """See ``read_forecast``. Where a backend fails for one scheduler, or its order has not come there yet, that one's
    tasks alone have to do without it."""
    of_team = reading.of_team(team)
    held: Counter[str] = Counter()
    for document in of_team.living:
        there = document.about(None)
        is_open = {entry["name"] for entry in there if entry["state"] == BackendState.OPEN} - {backend}
        for line in document.body["lines"]:
            first, *others = line["targets"]
            if first == backend:
                held[_next(others, is_open)] += line["held"]
    stay = held.pop(_NOWHERE, 0)
    return Forecast(
        moment(reading.now),
        backend,
        team,
        has=sum(document.out(backend) for document in of_team.living),
        not_begun=sum(document.not_begun(backend) for document in of_team.living),
        held=stay + held.total(),
        elsewhere=dict(held.most_common()),
        stay=stay,
        problem=of_team.problem,
        order=reading.order_about(backend, team),
        is_cordoned=reading.is_cordoned(backend, team),
        uncounted=uncounted_of(of_team),
    )


_NOWHERE = ""


def _next(targets: Collection[str], is_open: Collection[str]) -> str:
    return next((target for target in targets if target in is_open), _NOWHERE)
