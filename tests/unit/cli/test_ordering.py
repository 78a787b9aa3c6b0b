# SPDX-License-Identifier: Apache-2.0
"""Orders about backends as commands: what they answer, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from unit.operate.documents import NOW, backend, document, reading

from airflow_dispatch_provider.bridge.database.tables import OrderRow, TablesMissing
from airflow_dispatch_provider.cli import operating, ordering
from airflow_dispatch_provider.operate.model import GivenOrder, OrderInForce
from airflow_dispatch_provider.operate.orders import UNHEARD, UnknownBackend
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


def test_who_knows_of_an_order(run: Run, given: list[Any]) -> None:
    """Schedulers that live, where one does."""
    assert "all schedulers that live know in seconds" in run("cordon", "a").out
    found = run("cordon", "unheard").out
    assert ("know in seconds" in found, "the first that starts follows it" in found) == (False, True)


def test_a_timeout_of_nothing(run: Run, given: list[Any]) -> None:
    """Nothing is ordered."""
    assert run("drain", "a", "--timeout", "5s").code == 2
    assert given == []


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Orders that were given, of which one about ``nobody`` is refused."""
    orders: list[tuple[Any, ...]] = []

    def give(command: str, name: str, team: Any, by: str, reason: str, seconds: Any) -> Any:
        if name == "nobody":
            raise UnknownBackend("There is no backend 'nobody'. Known: a.")
        if name == "unmigrated":
            raise TablesMissing
        orders.append((command, name, reason, seconds))
        since = datetime(2026, 11, 29, tzinfo=UTC)
        if command == "resume":
            return None if name == "free" else GivenOrder("drain", name, team, "bob", "disks", since, None)
        before = OrderInForce("cordon", name, team, "bob", "disks", since, None)
        warning = UNHEARD if name == "unheard" else "It ends earlier." if seconds else None
        return GivenOrder(command, name, team, by, reason, since, None, before, warning)

    monkeypatch.setattr(ordering, "give_order", give)
    return orders


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)]
)
def test_orders(text: str, seconds: float, run: Run, given: list[Any]) -> None:
    """With why and for how long."""
    assert run("cordon", "a", "--reason", "new disks", "--for", text).code == 0
    assert given == [("cordon", "a", "new disks", seconds)]


def test_an_order_in_place_of_another(run: Run, given: list[Any]) -> None:
    """The answer names the one that is no more, and what may not be expected of the new one."""
    found = run("drain", "a", "--for", "30s")
    assert "It replaces cordon by bob since " in found.out
    assert " with no end: disks. It ends earlier." in found.out
    assert run("drain", "a", "--output", "json").json["replaces"]["reason"] == "disks"


@pytest.mark.parametrize("text", ["soon", "0", "-5m", "2w", "inf", "nan", ""])
def test_a_time_that_is_none(text: str, run: Run, given: list[Any]) -> None:
    """Refused before anything is ordered."""
    found = run("drain", "a", "--for", text)
    assert (found.code, given) == (2, [])


def test_a_recall(run: Run, given: list[Any]) -> None:
    """It says what comes back, and not when it runs out: it is done once."""
    found = run("recall", "a", "--reason", "no nodes")
    assert (found.code, given) == (0, [("recall", "a", "no nodes", None)])
    assert "what it has been given and has not begun comes back" in found.out


@pytest.mark.parametrize("command", ["cordon", "drain"])
def test_what_an_order_would_do(command: str, run: Run, say: Callable[..., None], given: list[Any]) -> None:
    """Its tasks, and where those go that wait for it; nothing is ordered."""
    lines = [{"targets": ["a", "b"], "held": 5}, {"targets": ["a"], "held": 7}]
    backends = [backend("a", used=3, not_begun=1), backend("b")]
    say(document("1", backends=backends, lines=lines))
    found = run(command, "a", "--dry-run")
    assert found.out.splitlines() == [
        "a: 2 tasks run there and go on.",
        "1 more has not begun, stays there, and may never begin: recall takes back what has not begun.",
        "12 tasks wait for it, of which",
        "  5 may go to b;",
        "  7 have no other backend that is open, and wait until it is resumed.",
        "Nothing was ordered: leave out --dry-run for that.",
    ]
    assert given == []


def test_what_an_order_about_one_task_would_do(run: Run, say: Callable[..., None]) -> None:
    """In the singular; the order that is in force is named, since it would be replaced."""
    rows = [OrderRow("", "a", "cordon", "ann", "disks", NOW - 5, None)]
    say(document("1", backends=[backend("a", used=1)], lines=[{"targets": ["a"], "held": 1}]), orders=rows)
    found = run("drain", "a", "--dry-run").out
    assert found.startswith("a: 1 task runs there and goes on.\n1 task waits for it, of which\n")
    assert "  1 has no other backend that is open, and waits until it is resumed." in found
    assert "It would replace cordon by ann since " in found
    assert "It ends earlier" not in found
    assert (
        "It ends earlier than the one that it replaces" in run("drain", "a", "--dry-run", "--for", "9s").out
    )
    say(document("1", backends=[backend("a")]))
    found = run("drain", "a", "--dry-run").out
    assert found.startswith("a: 0 tasks run there and go on.\nNo task waits for it.\nNothing was ordered")


@pytest.mark.parametrize(
    ("orders", "comes_again"),
    [([], True), ([OrderRow("", "a", "drain", "ann", "", NOW - 5, None)], False)],
)
def test_what_a_recall_would_do(
    orders: Any, comes_again: bool, run: Run, say: Callable[..., None], given: list[Any]
) -> None:
    """How many come back, and whether the backend may get them again; nothing is ordered."""
    say(document("1", backends=[backend("a", used=3, not_begun=2)]), orders=orders)
    found = run("recall", "a", "--dry-run")
    assert found.out.startswith("a: of 3 tasks there, 2 have not begun and come back.\n")
    assert ("cordon or drain it first" in found.out) is comes_again
    assert given == []


def test_who_gives_an_order_about_nothing(run: Run, given: list[Any]) -> None:
    """Wrong usage names the backends that there are; missing tables say what to run."""
    found = run("resume", "nobody")
    assert found.code == 2
    assert "Known: a." in found.err
    missing = run("drain", "unmigrated")
    assert missing.code == 1
    assert "airflow db migrate" in " ".join(missing.err.split())


def test_what_was_taken_back(run: Run, given: list[Any]) -> None:
    """The words say whether there was an order; the exit code is 0 either way."""
    found, nothing = run("resume", "a"), run("resume", "free")
    assert (found.code, nothing.code) == (0, 0)
    assert "a: taken back: drain by bob since" in found.out
    assert nothing.out == "No order was in force about free: nothing has changed.\n"
    assert json.loads(run("resume", "a", "--output", "json").out)["by"] == "bob"


DRAIN = OrderRow("", "a", "drain", "ann", "", NOW - 5, None)


def test_a_drain_that_is_waited_for(run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reason why it is not empty is said once."""
    answers = iter(
        [[backend("a", used=2)], [backend("a", used=2)], [backend("a")], [backend("a", state="cordoned")]]
    )
    monkeypatch.setattr(
        ordering, "read", lambda: reading(document("7", backends=next(answers)), orders=[DRAIN])
    )
    monkeypatch.setattr(operating, "LOOK_EVERY", 0)
    found = run("drain", "a", "--wait")
    assert found.code == 0
    assert found.err.splitlines() == [
        "a: 2 run there.",
        "a: not every scheduler has the order yet.",
        "a is empty.",
    ]


def test_a_drain_that_takes_too_long(run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gives up, and the order stays in force."""
    busy = reading(document("7", backends=[backend("a", state="cordoned", used=2)]), orders=[DRAIN])
    monkeypatch.setattr(ordering, "read", lambda: busy)
    monkeypatch.setattr(operating, "LOOK_EVERY", 0)
    found = run("drain", "a", "--wait", "--timeout", "0.001s")
    assert found.code == 1
    assert "the order stays in force" in found.err


def test_a_recall_that_is_waited_for(run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not done it, and what is not back, is said once each; what has begun is not waited for."""
    rows = [OrderRow("", "a", "recall", "ann", "", NOW - 5, None)]
    done = {"recalls": {"a": NOW - 5}, "backends": [backend("a", used=2)]}
    answers = iter([{"recalls": {}}, {"recalls": {}}, {**done, "returning": {"a": 3}}, done])
    monkeypatch.setattr(ordering, "read", lambda: reading(document("7", **next(answers)), orders=rows))
    monkeypatch.setattr(ordering, "LOOK_EVERY", 0)
    found = run("recall", "a", "--wait")
    assert (found.code, given) == (0, [("recall", "a", "", None)])
    assert found.err.splitlines() == [
        "a: recall is still to be done by scheduler 7.",
        "a: 3 are being set back to scheduled.",
        "a has given back what it had not begun.",
    ]


def test_a_wait_that_is_interrupted(run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With Ctrl-C: a sentence and no traceback, and the code that shells give."""
    busy = reading(document("7", backends=[backend("a", state="cordoned", used=2)]), orders=[DRAIN])
    monkeypatch.setattr(ordering, "read", lambda: busy)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ordering.time, "sleep", interrupt)
    found = run("drain", "a", "--wait")
    assert found.code == 130
    assert found.err.splitlines()[-1] == "a is not waited for any more. The order stays in force."


def test_a_database_that_is_away_ends_no_wait(
    run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take hours; that it is away is said once."""
    answers = iter(
        [None, None, reading(document("7", backends=[backend("a", state="cordoned")]), orders=[DRAIN])]
    )

    def ask() -> Any:
        if (found := next(answers)) is None:
            raise OperationalError("select", {}, Exception("server closed the connection"))
        return found

    monkeypatch.setattr(ordering, "read", ask)
    monkeypatch.setattr(ordering, "LOOK_EVERY", 0)
    found = run("drain", "a", "--wait")
    assert found.code == 0
    first, last = found.err.splitlines()
    assert first.startswith("a: The database cannot be asked: ")
    assert last == "a is empty."


def test_a_user_without_a_name(run: Run, given: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers have them."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(ordering.getpass, "getuser", nobody)
    assert run("cordon", "a").code == 0
