# SPDX-License-Identifier: Apache-2.0
"""Which backend is asked for the log of a running task, where no executor was started."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.bridge import event_log
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.dispatch.backend import Backend
from airflow_dispatch_provider.dispatch.log_backends import LogBackends
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.settings.model import BackendSettings, Settings
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

from .test_adoption import task_instance


def settings(*names: str) -> Settings:
    """The first one is where the tasks of queue q go."""
    backends = {name: BackendSettings(IN_MEMORY, 1) for name in ("a", "b", *names)}
    route = Route(queue="q", to=(Target(backend=names[0] if names else "b"),))
    return Settings(backends, (route,), Route(queue="*", to=(Target(backend="a"),)))


class Source:
    """Settings that somebody may change, or break."""

    def __init__(self) -> None:
        self.settings: Settings | None = settings()
        self.read = 0
        self.has_changed = False

    def changed(self) -> bool:
        return self.has_changed

    def load_or_last_good(self) -> Settings:
        self.read += 1
        if self.settings is None:
            raise DispatchConfigError([])
        return self.settings


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> dict[Any, str]:
    """Backends by task id, as the event log has them."""
    owners: dict[Any, str] = {}
    monkeypatch.setattr(event_log, "owner_of", lambda ti: owners.get(ti.task_id))
    return owners


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def backends(source: Source, owner: dict[Any, str]) -> LogBackends:
    return LogBackends(source, conf, "a team")  # type: ignore[arg-type]


TI = task_instance("running")


def test_the_event_log_knows_and_else_the_route(backends: LogBackends, owner: dict[Any, str]) -> None:
    """Each backend is made once, with its own settings, and for that team."""
    by_route = backends.of(TI, None)
    assert by_route is not None
    assert (by_route.name, by_route.settings) == ("b", settings().backends["b"])
    assert by_route.executor.team_name == ("a team" if AIRFLOW_V_3_2_PLUS else None)
    owner["t"] = "a"
    by_log = backends.of(TI, None)
    assert by_log is not None
    assert by_log.name == "a"
    assert backends.of(TI, None) is by_log


def test_a_backend_that_was_never_configured_here_has_no_logs(
    backends: LogBackends, owner: dict[Any, str]
) -> None:
    """Nothing is raised over it."""
    owner["t"] = "gone"
    assert backends.of(TI, None) is None


def test_what_was_started_is_asked_and_nothing_is_made(backends: LogBackends, owner: dict[Any, str]) -> None:
    """An executor that runs has its own backends."""
    started = {"b": Backend("b", settings().backends["b"], conf, None)}
    assert backends.of(TI, started) is started["b"]
    owner["t"] = "a"
    assert backends.of(TI, started) is None


def test_settings_are_read_again_only_when_they_have_changed(backends: LogBackends, source: Source) -> None:
    """Each look at a log would read them otherwise."""
    assert [backends.of(TI, None) is not None for _ in range(3)] == [True] * 3
    assert source.read == 1
    source.has_changed, source.settings = True, settings("new")
    found = backends.of(TI, None)
    assert found is not None
    assert (found.name, source.read) == ("new", 2)


def test_a_backend_that_is_drained_still_has_its_logs(
    backends: LogBackends, source: Source, owner: dict[Any, str]
) -> None:
    """It is in the file no more, and what runs there has a log."""
    source.settings = settings("new")
    owner["t"] = "new"
    before = backends.of(TI, None)
    source.has_changed, source.settings = True, settings()
    assert backends.of(TI, None) is before is not None


def test_a_backend_with_other_settings_is_made_anew(backends: LogBackends, source: Source) -> None:
    """Its logs may be somewhere else by now."""
    before = backends.of(TI, None)
    other = settings()
    other.backends["b"] = BackendSettings(IN_MEMORY, 2)
    source.has_changed, source.settings = True, other
    after = backends.of(TI, None)
    assert before is not after
    assert after is not None
    assert after.settings.slots == 2


def test_settings_with_mistakes_are_said_and_the_last_good_ones_serve(
    backends: LogBackends, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any there are no logs of running tasks, and nothing is raised."""
    good, source.settings = source.settings, None
    assert backends.of(TI, None) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    source.settings = good
    assert backends.of(TI, None) is not None
    source.has_changed, source.settings = True, None
    assert backends.of(TI, None) is not None
