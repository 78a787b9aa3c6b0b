# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_dispatch_provider.bridge import installed
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from tests.unit.cli.conftest import LOCAL, OURS, Configure, Outcome

Run = Callable[..., Outcome]

ALONE = "airflow_dispatch_provider.executors.celery_executor.CeleryExecutor"
BY_NAME = "airflow_dispatch_provider.executors.by_name"
CELERY_MODULES = (
    "airflow.providers.celery.executors",
    "airflow_dispatch_provider.engines.celery",
    "airflow_dispatch_provider.executors.celery_executor",
)
ELSEWHERE = "airflow_dispatch_provider.testing.in_memory.InMemoryExecutor"

GOOD: dict[str, Any] = {
    "backends": {
        "small": {**LOCAL, "config": {"core": {"execution_api_server_url": "http://:hunter2@api"}}},
        "large": {"executor": ELSEWHERE, "slots": 8},
    },
    "routes": [
        {"queue": "b*", "to": ["small", {"backend": "large", "queue": "other"}], "overflow_after": 30},
        {"queue": "b*", "dag_id": "nightly", "to": ["large"]},
        {"queue": "split", "to": [{"backend": "small", "weight": 1}, {"backend": "large", "weight": 3}]},
    ],
    "default": "large",
}
BAD: dict[str, Any] = {
    "backends": {"small": {**LOCAL, "slots": "many"}, "large": LOCAL},
    "routes": [{"queue": "q", "to": ["lage"]}],
    "default": "smal",
}


class TestValidate:
    def test_right(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("validate")
        assert (done.code, done.err) == (0, "")
        assert done.out == "The [dispatch] configuration is right: 2 backends, 3 routes and a default.\n"

    def test_right_as_json_is_an_empty_list(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("validate", "-o", "json")
        assert (done.code, done.json) == (0, [])

    def test_every_mistake_at_once(self, run: Run, configure: Configure) -> None:
        configure(**BAD)
        done = run("validate", "-o", "json")
        assert done.code == 1
        assert {row["where"] for row in done.json} == {
            "[dispatch] backends.small.slots",
            "[dispatch] routes[0].to[0]",
            "[dispatch] default",
        }
        assert all(row["severity"] == "mistake" and row["found"] and row["remedy"] for row in done.json)

    @pytest.mark.parametrize("output", ["table", "plain"])
    def test_places_are_shown_in_full(self, output: str, run: Run, configure: Configure) -> None:
        configure(**BAD)
        done = run("validate", "-o", output)
        assert done.code == 1
        assert "[dispatch] routes[0].to[0]" in done.out

    def test_nothing_configured(self, run: Run) -> None:
        done = run("validate", "-o", "json")
        assert done.code == 1
        assert done.json[0]["where"] == "[dispatch] backends"

    def test_workers_that_cannot_be_counted(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One finding, at the slots; nothing about the sum of slots, which nobody knows."""
        monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "8")
        configure(backends={"a": {"executor": "LocalExecutor", "slots": "workers"}})
        done = run("validate", "-o", "json")
        assert [row["where"] for row in done.json] == ["[dispatch] backends.a.slots"]
        assert done.code == 1
        assert "cannot count its workers" in done.json[0]["found"]

    def test_a_section_that_does_not_exist_is_one_mistake(self, run: Run, configure: Configure) -> None:
        """However many options stand in it, the finding is at the section, and suggests the one that was meant."""
        config = {"celry": {"broker_url": "redis://h:6379/0", "result_backend": "db+sqlite:////tmp/r.db"}}
        configure(backends={"c": {"executor": "CeleryExecutor", "slots": 4, "config": config}})
        (row,) = (row for row in run("validate", "-o", "json").json if row["severity"] == "mistake")
        assert row["where"] == "[dispatch] backends.c.config.celry"
        assert (row["found"], row["remedy"]) == (
            "names a section that does not exist.",
            'Did you mean "celery"?',
        )

    def test_an_option_over_which_an_import_ends_is_one_mistake(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A value that Airflow's Celery modules read as they are imported is told by its place alone."""
        for name in [name for name in sys.modules if name.startswith(CELERY_MODULES)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setenv("AIRFLOW__CELERY__EXTRA_CELERY_CONFIG", "no JSON")
        configure(backends={"c": {"executor": "CeleryExecutor", "slots": 4}})
        done = run("validate", "-o", "json")
        assert [row["where"] for row in done.json] == ["[celery] extra_celery_config"]
        assert done.code == 1

    def test_an_import_that_ends_over_an_unknown_option_is_told(
        self, run: Run, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An executor of somebody else's that cannot read its own option is not passed over."""
        read = 'from airflow.configuration import conf\nconf.getint("strange", "size")\n'
        (tmp_path / "strange_executor.py").write_text(read)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("AIRFLOW__STRANGE__SIZE", "many")
        configure(backends={"c": {"executor": "strange_executor.Strange", "slots": 4}})
        rows = run("validate", "-o", "json").json
        assert [row["where"] for row in rows] == ["[dispatch] backends.c.executor"]
        assert "AirflowConfigException" in rows[0]["found"]

    @pytest.mark.parametrize(
        ("option", "value", "found"),
        [
            ("broker_url", "nothing-like-it://host", "nothing-like-it"),
            ("broker_url", "sqs://", "botocore"),
            ("result_backend", "nothing-like-it://host", "nothing-like-it"),
            ("result_backend", "no_such.module:Backend", "that can be imported"),
            ("result_backend", "disabled://", "gives no results"),
        ],
    )
    def test_what_celery_cannot_use(
        self, option: str, value: str, found: str, run: Run, configure: Configure
    ) -> None:
        """Transports and result backends that do not exist, or lack their library; the other backends are right."""
        celery = {
            "broker_url": "redis://:a-secret@no-such-host/0",
            "result_backend": "redis://no-such-host/1",
        }
        configure(
            backends={
                name: {"executor": "CeleryExecutor", "slots": 1, "config": {"celery": options}}
                for name, options in {"right": celery, "wrong": {**celery, option: value}}.items()
            },
            routes=[{"queue": "q", "to": ["right"]}],
            default="wrong",
        )
        done = run("validate", "-o", "json")
        (problem,) = (row for row in done.json if row["severity"] == "mistake")
        assert done.code == 1
        assert problem["where"] == f"[dispatch] backends.wrong.config.celery.{option}"
        assert found in problem["found"]
        assert problem["remedy"]

    def test_missing_dependency_names_the_packages(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "airflow_dispatch_provider.executors.celery_executor", raising=False)
        monkeypatch.setitem(sys.modules, "airflow.providers.celery.executors.celery_executor", None)
        monkeypatch.setattr(installed, "_installed_version", lambda name: None)
        configure(
            backends={name: {"executor": "CeleryExecutor", "slots": 1} for name in ("celery", "again")},
            default="celery",
        )
        done = run("validate", "-o", "json")
        assert done.code == 1
        (problem,) = [row for row in done.json if row["severity"] == "mistake"]
        assert problem["where"] == "[dispatch] backends.celery.executor"
        assert problem["found"].endswith("The same holds for again.")
        assert problem["remedy"].startswith('Run: pip install "apache-airflow-providers-celery>=')

    def test_a_version_that_was_not_tested_is_a_warning_though_it_can_be_imported(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed_version = installed._installed_version
        monkeypatch.setattr(
            installed,
            "_installed_version",
            lambda name: "5.4.0" if name == "celery" else installed_version(name),
        )
        config = {"celery": {"broker_url": "redis://h/0", "result_backend": "db+sqlite:///r.db"}}
        configure(backends={"celery": {"executor": "CeleryExecutor", "slots": 1, "config": config}})
        done = run("validate", "-o", "json")
        assert done.code == 0
        (found,) = [row for row in done.json if "5.4.0 is installed" in row["found"]]
        assert (found["severity"], found["where"]) == ("warning", "[dispatch] backends.celery.executor")
        assert '"celery<5.7,>=5.5' in found["remedy"]

    def test_an_executor_that_runs_alone_needs_no_backends(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", ALONE)
        done = run("validate", "--strict")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("No router is in use: [dispatch] names no backends")

    def test_an_executor_that_fails_as_it_is_imported_is_not_taken_for_misspelt(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The remedy shows why; another executor's name would be none."""
        (tmp_path / "celery_executor_of_ours.py").write_text("raise ValueError('hunter2')\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "celery_executor_of_ours.CeleryExecutor")
        done = run("validate", "-o", "json")
        assert [row["remedy"] for row in done.json if row["severity"] == "mistake"] == [
            'See what fails: python -c "import celery_executor_of_ours".'
        ]
        assert "hunter2" not in done.out

    def test_place_is_the_file(self, run: Run, configure: Configure, tmp_path: Path) -> None:
        file = tmp_path / "dispatch.yaml"
        file.write_text(yaml.safe_dump({"backends": {"x": {"executor": "no_such.module.X", "slots": 1}}}))
        configure(config_file=str(file))
        done = run("validate", "-o", "json")
        assert done.code == 1
        assert [row["where"] for row in done.json if row["severity"] == "mistake"] == [
            f"{file}: backends.x.executor"
        ]

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"backends": {"a": {**LOCAL, "slots": 1000}}, "default": "a"}, "[core] parallelism"),
            ({"backends": {"a": LOCAL, "b": LOCAL}, "default": "a"}, "[dispatch] backends.b"),
            ({"backends": {"a": {**LOCAL, "cordoned": True}}, "default": "a"}, "[dispatch] default"),
            (
                {
                    "backends": {"a": LOCAL, "b": {**LOCAL, "cordoned": True}},
                    "default": "a",
                    "routes": [{"queue": "q", "to": ["b"]}],
                },
                "[dispatch] routes[0]",
            ),
            (
                {"backends": {"a": LOCAL}, "default": [{"backend": "a", "queue": "gpu"}]},
                "[dispatch] default",
            ),
        ],
    )
    def test_warnings_fail_only_when_strict(
        self, change: dict[str, Any], where: str, run: Run, configure: Configure
    ) -> None:
        configure(**change)
        done = run("validate", "-o", "json")
        assert (done.code, [(row["severity"], row["where"]) for row in done.json]) == (
            0,
            [("warning", where)],
        )
        assert run("validate", "--strict").code == 1
        assert "1 warning.\nThe [dispatch] configuration is otherwise right:" in run("validate").out

    @pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="executors run connection tests since Airflow 3.3")
    def test_workload_types_that_no_backend_runs_count_where_users_may_ask_for_them(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(backends={"a": {"executor": "tests.integration.validate.executors.TasksOnly", "slots": 1}})
        assert run("validate", "-o", "json").json == []
        monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        (warning,) = run("validate", "-o", "json").json
        assert "no backend can run connection tests" in warning["found"]

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="on Airflow 3.1 the commands come from the executor")
    def test_router_that_is_not_in_use(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(**GOOD)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
        # Airflow parses the names once a process.
        monkeypatch.setattr("airflow.executors.executor_loader._executor_names", [])
        done = run("validate", "-o", "json")
        assert done.code == 0
        assert [row["where"] for row in done.json] == ["[core] executor"]

    @pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="on Airflow 3.1 the commands come from the executor")
    def test_no_router_and_no_backends_is_a_warning(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
        done = run("validate")
        assert done.code == 0
        assert "nothing of [dispatch] is in use" in done.out
        assert done.out.split("warning.\n")[1].startswith("No router is in use: [dispatch] names no backends")


class TestBadConfiguration:
    """No command shows a traceback, and none prints half a result."""

    @pytest.mark.parametrize(
        ("name", "arguments"), [("backends", []), ("routes", []), ("explain", ["--queue", "q"])]
    )
    def test_mistakes_go_to_stderr(
        self, name: str, arguments: list[str], run: Run, configure: Configure
    ) -> None:
        configure(**BAD)
        done = run(name, *arguments, "-o", "json")
        assert (done.code, done.out) == (1, "")
        assert "has 3 mistakes" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("executor", [ALONE, "LocalExecutor"])
    @pytest.mark.parametrize(
        ("name", "arguments"), [("backends", []), ("routes", []), ("explain", ["--queue", "q"])]
    )
    def test_no_router_in_use(
        self, name: str, arguments: list[str], executor: str, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They say so, as validate does, and blame no option."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
        done = run(name, *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: No router is in use: [dispatch] names no backends")

    @pytest.mark.parametrize(
        "entry", ["DispatchExecutor", "router:DispatchExecutor", "LocalExecutor,DispatchExecutor"]
    )
    @pytest.mark.parametrize(
        ("name", "arguments"), [("backends", []), ("routes", []), ("explain", ["--queue", "q"])]
    )
    def test_a_router_by_its_bare_name(
        self, name: str, arguments: list[str], entry: str, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow refuses that, which is said with the import path to write instead."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", entry)
        done = run(name, *arguments)
        assert (done.code, done.out) == (2, "")
        error = " ".join(done.err.split())
        assert (
            "[core] executor lists 'DispatchExecutor', which is no executor of Airflow's and no import"
            in error
        )
        assert f"Did you mean '{OURS}'?" in error

    @pytest.mark.parametrize(
        "entry", [OURS, f"router:{OURS}", f"{OURS}, LocalExecutor", f"LocalExecutor,x:{OURS}"]
    )
    def test_a_router_by_each_form_that_airflow_accepts(
        self, entry: str, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is found, and what is missing is its backends."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", entry)
        done = run("backends")
        assert done.code == 1
        assert "[dispatch] backends: is missing" in done.err

    @pytest.mark.parametrize("text", ["{", "[]", "null", "7", '"x"', '{"a": 1}', '{"a": {}, "a": {}}'])
    def test_any_text_for_backends(self, text: str, run: Run, configure: Configure) -> None:
        configure(backends=text)
        assert run("validate").code == 1
        assert run("routes").code == 1

    def test_parallelism_that_is_no_number(
        self, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(**GOOD)
        monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "lots")
        done = run("validate")
        assert (done.code, done.err) == (1, "")
        assert "[core] parallelism" in done.out

    def test_command_that_fails(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__DISPATCH__BACKENDS_CMD", "false")
        done = run("validate")
        assert done.code == 1
        assert "Traceback" not in done.err


class TestBackends:
    def test_rows(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        small, large = run("backends", "-o", "json").json
        assert small["name"] == "small"
        assert small["executor"] == "airflow_dispatch_provider.executors.local_executor.LocalExecutor"
        assert (small["slots"], small["cordoned"], small["importable"], small["problem"]) == (
            4,
            False,
            True,
            None,
        )
        assert "ExecuteTask" in small["workload_types"]
        assert (small["options"], large["options"]) == (["core.execution_api_server_url"], [])

    def test_only_executors_of_this_package_go_by_their_short_names(
        self, run: Run, configure: Configure
    ) -> None:
        """Airflow's own LocalExecutor is another class."""
        theirs = "airflow.executors.local_executor.LocalExecutor"
        configure(backends={"ours": LOCAL, "theirs": {**LOCAL, "executor": theirs}}, default="ours")
        words = run("backends").out.split()
        assert (words.count("LocalExecutor"), words.count(theirs)) == (1, 1)

    @pytest.mark.parametrize("output", ["table", "json", "yaml", "plain"])
    def test_values_of_options_are_never_shown(self, output: str, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        done = run("backends", "-o", output)
        assert done.code == 0
        assert "core.execution_api_server_url" in done.out
        assert "hunter2" not in done.out + done.err

    def test_backend_that_cannot_be_imported_is_listed(self, run: Run, configure: Configure) -> None:
        configure(backends={"x": {"executor": "no_such.module.X", "slots": 1}})
        done = run("backends", "-o", "json")
        assert done.code == 1
        assert done.json[0]["importable"] is False
        assert "cannot be imported" in done.json[0]["problem"]
        table = run("backends")
        assert table.code == 1
        assert table.out.splitlines()[-1].startswith(
            "x: no_such.module.X cannot be imported (ModuleNotFoundError"
        )

    @pytest.mark.parametrize("columns", ["80", "200"])
    def test_fits_the_terminal(
        self, columns: str, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names stay whole, and a problem is a paragraph below."""
        monkeypatch.setenv("COLUMNS", columns)
        missing = {"executor": "my_company.far.away.executors.no_such.NoSuchExecutor", "slots": 1}
        small = {**GOOD["backends"]["small"], "cordoned": True}
        configure(backends={"small": small, "large": missing}, default="large")
        done = run("backends")
        assert max(map(len, map(str.rstrip, done.out.splitlines()))) <= int(columns)
        assert {"small", "large", "LocalExecutor", "cordoned", "tasks"} <= {*done.out.split()}
        assert "\nlarge: my_company.far" in done.out


class TestRoutes:
    def test_order_is_the_one_in_which_they_win(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        rows = run("routes", "-o", "json").json
        assert [row["route"] for row in rows] == ["split", "b* of nightly", "b*", "default"]
        assert [row["order"] for row in rows] == [1, 2, 3, 4]
        assert rows[2]["targets"][1] == {"backend": "large", "queue": "other", "weight": None}
        assert rows[2]["overflow_after"] == 30

    @pytest.mark.parametrize("output", ["table", "plain"])
    def test_for_people(self, output: str, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        text = run("routes", "-o", output).out
        assert "large (queue other)" in text
        assert "after 30 s" in text
        assert "small, weight 1" in text

    def test_yaml(self, run: Run, configure: Configure) -> None:
        configure(**GOOD)
        assert len(yaml.safe_load(run("routes", "-o", "yaml").out)) == 4
