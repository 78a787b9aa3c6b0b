# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch explain``, and the commands where Airflow has teams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from unit.operate.documents import NOW, backend, document

from airflow_dispatch_provider.bridge.database.tables import OrderRow
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.cli import explaining
from tests.unit.cli.conftest import LOCAL, OURS, Configure
from tests.unit.cli.test_commands import BY_NAME, ELSEWHERE, GOOD, Run


class TestExplain:
    def test_overflow_and_failover(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        found = run("explain", "--queue", "batch", "-o", "json").json
        assert found["route"] == "b*"
        assert found["choice"] == {"backend": "small", "queue": "batch"}
        assert found["reason"]["name"] == "first_choice"
        first, second = found["targets"]
        assert [use["reason"] for use in first["used"]] == ["first_choice"]
        assert [(use["reason"], use["after"]) for use in second["used"]] == [
            ("overflow", 30),
            ("failover", 0),
        ]
        assert second["queue"] == "other"

    def test_dag_id(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        assert run("explain", "-q", "batch", "-d", "nightly", "-o", "json").json["route"] == "b* of nightly"
        assert "routes that ask for one were left out" in run("explain", "-q", "batch").out

    def test_no_route(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        text = run("explain", "--queue", "nobody").out
        assert "no route matches the queue 'nobody', so the default is taken" in text
        assert "goes to large (first_choice: the route's first target has a free slot)" in text

    def test_weights_without_the_task(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        found = run("explain", "-q", "split", "-o", "json").json
        assert (found["choice"], found["reason"]) == (None, None)
        assert [(row["backend"], row["share"]) for row in found["targets"]] == [
            ("large", 0.75),
            ("small", 0.25),
        ]

    def test_weights_with_the_task_give_one_order(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        arguments = ["-q", "split", "-d", "d", "-t", "t", "-r", "run"]
        firsts = {
            run("explain", *arguments, "--map-index", str(index), "-o", "json").json["choice"]["backend"]
            for index in range(20)
        }
        assert firsts == {"small", "large"}
        once, again = (run("explain", *arguments, "-o", "json").json for _ in range(2))
        assert once == again

    def test_executor_that_no_backend_has(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("explain", "-q", "q", "-e", "KubernetesExecutor")
        assert (done.code, done.out) == (2, "")
        assert "'KubernetesExecutor'. Known: 'LocalExecutor', 'InMemoryExecutor'." in done.err

    @pytest.mark.parametrize("name", ["LocalExecutor", "own", f"{BY_NAME}.LocalExecutor"])
    def test_executor_by_any_name_that_a_dag_may_give(
        self, name: str, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"{OURS},own:{BY_NAME}.LocalExecutor")
        configure(backends={"a": {"executor": ELSEWHERE, "slots": 1}, "b": LOCAL}, default="a")
        assert run("explain", "-q", "q", "-e", name, "-o", "json").json["choice"]["backend"] == "b"

    def test_executor_that_is_the_router_goes_by_queue(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"LocalExecutor:{OURS}" if AIRFLOW_V_3_2_PLUS else OURS)
        configure(backends={"a": {"executor": ELSEWHERE, "slots": 1}, "b": LOCAL}, default="a")
        name = "LocalExecutor" if AIRFLOW_V_3_2_PLUS else "DispatchExecutor"
        assert run("explain", "-q", "q", "-e", name, "-o", "json").json["choice"]["backend"] == "a"

    @pytest.mark.parametrize(
        ("listed", "name", "said"),
        [
            ("", "LocalExecutor", f"List LocalExecutor:{BY_NAME}.LocalExecutor after the router."),
            ("", "InMemoryExecutor", "and Airflow refuses a Dag that names it. Use queue=."),
            (",LocalExecutor", "LocalExecutor", "its tasks do not come to the router"),
        ],
    )
    def test_executor_by_which_no_task_comes_to_the_router(
        self,
        listed: str,
        name: str,
        said: str,
        run: Run,
        configure: Configure,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"{OURS}{listed}")
        configure(backends={"a": {"executor": ELSEWHERE, "slots": 1}, "b": LOCAL}, default="a")
        done = run("explain", "-q", "q", "-e", name)
        assert (done.code, done.out) == (2, "")
        assert said in done.err

    @pytest.mark.parametrize(
        "arguments", [["-t", "t"], ["-d", "d", "-r", "r"], ["--map-index", "3"], ["-t", "t", "-r", "r"]]
    )
    def test_half_a_task(self, arguments: list[str], run: Run, configure: Configure) -> None:
        """Half of what picks among weighted targets would be left out without a word."""
        configure(**GOOD)
        done = run("explain", "-q", "split", *arguments)
        assert (done.code, done.out) == (2, "")
        assert "give --dag-id, --task-id and --run-id" in done.err
        assert done.err.endswith("\nSee airflow dispatch explain --help.\n")

    def test_a_target_whose_executor_cannot_be_imported(self, run: Run, configure: Configure) -> None:
        """It is told in the words of the other commands, and not as a failure of a running backend."""
        gone = {"executor": "CeleryExecuter2.X", "slots": 4}
        configure(
            backends={"a": gone, "b": LOCAL},
            routes=[{"queue": "q", "to": ["a", "b"]}, {"queue": "r", "to": ["b"]}],
            default="b",
        )
        problem = run("backends", "-o", "json").json[0]["problem"]
        done = run("explain", "-q", "q", "-o", "json")
        assert done.code == 1
        assert [(row["blocked"], row["problem"]) for row in done.json["targets"]] == [
            ("unusable", problem),
            (None, None),
        ]
        table = run("explain", "-q", "q")
        assert table.code == 1
        assert "circuit_open" not in table.out
        assert f"a: {problem}" in " ".join(table.out.split())
        assert run("explain", "-q", "r").code == 0

    @pytest.mark.parametrize("output", ["table", "plain", "yaml"])
    def test_other_formats(self, output: str, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("explain", "-q", "batch", "-o", output)
        assert (done.code, done.err) == (0, "")
        assert "overflow" in done.out


class TestNow:
    """Beside the configuration, as schedulers have written."""

    def test_how_the_targets_are(self, run: Run, configure: Configure, say: Callable[..., None]) -> None:
        """Over all schedulers, with the choice for a task that comes now and who has ordered what."""
        configure(**GOOD)
        order = OrderRow("", "small", "cordon", "ann", "new disks", NOW, None)
        small = backend("small", state="cordoned", slots=2, used=2, free=0, held=3)
        large = backend("large", slots=8, used=1, free=7, trouble="q: full")
        say(document("7", backends=[small, large]), document("8", backends=[small, large]), orders=[order])
        found = run("explain", "-q", "batch", "-o", "json").json
        assert found["choice"]["backend"] == "small"
        assert (found["now"]["backend"], found["now"]["reason"]) == ("large", "failover")
        first, second = (row["now"] for row in found["targets"])
        assert first == {
            "state": "cordoned",
            "slots": 4,
            "in_use": 4,
            "free": 0,
            "held": 6,
            "trouble": "It is cordoned by ann: new disks.",
        }
        assert (second["state"], second["free"], second["trouble"]) == ("open", 14, "q: full")
        table = run("explain", "-q", "batch").out
        assert "Now it goes to large (failover: " in table
        assert "4/4 used" in table
        assert "small: It is cordoned by ann: new disks." in table
        plain = run("explain", "-q", "batch", "-o", "plain").out.splitlines()
        assert plain[0].split()[-6:] == ["state", "slots", "in_use", "free", "held", "trouble"]
        assert "cordoned" in plain[1]

    def test_where_nothing_is_known(self, run: Run, configure: Configure, say: Callable[..., None]) -> None:
        """The configuration is explained all the same, and the rest is said to be unknown, not to be well."""
        configure(**GOOD)
        say()
        done = run("explain", "-q", "batch")
        assert done.code == 0
        assert "How its targets are now is not known: No scheduler" in done.out
        (header,) = (line for line in done.out.splitlines() if line.startswith("order"))
        assert "now" not in header
        found = run("explain", "-q", "batch", "-o", "json").json
        assert (found["now"], [row["now"] for row in found["targets"]]) == (None, [None, None])
        assert found["problem"]

    def test_without_a_database(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in the build of an image."""

        def away(team: str | None) -> Any:
            raise OperationalError("select", {}, Exception("no such host"))

        monkeypatch.setattr(explaining, "read_status", away)
        configure(**GOOD)
        done = run("explain", "-q", "batch")
        assert (done.code, "is not known: The database cannot be asked: " in done.out) == (0, True)


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="teams can be used since Airflow 3.2")
class TestTeam:
    def test_needs_multi_team(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("routes", "--team", "blue")
        assert (done.code, done.out) == (2, "")
        assert "[core] multi_team" in done.err

    def test_reads_the_teams_own_settings(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(**GOOD)
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"LocalExecutor;blue={OURS}")
        monkeypatch.setenv(
            "AIRFLOW__BLUE___DISPATCH__BACKENDS", '{"blue": {"executor": "LocalExecutor", "slots": 1}}'
        )
        done = run("backends", "--team", "blue", "-o", "json")
        assert [row["name"] for row in done.json] == ["blue"]

    def test_team_without_an_executor_of_its_own(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(**GOOD)
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"LocalExecutor;blue={OURS}")
        done = run("routes", "--team", "bleu")
        assert (done.code, done.out) == (2, "")
        assert "'bleu'. Known: 'blue'." in done.err
