# SPDX-License-Identifier: Apache-2.0
"""Input of the command, and its answers where that is wrong. Its reports are in ``test_cases``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_dispatch_provider.cli import migrate
from airflow_dispatch_provider.migration.executors import ROUTER
from tests.unit.cli.conftest import Outcome

Run = Callable[..., Outcome]


class TestFile:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            (
                "missing.cfg",
                None,
                "cannot be read (No such file or directory). Give the path of an airflow.cfg",
            ),
            ("", None, "is a folder. Give the path of an airflow.cfg"),
            ("bytes.cfg", b"[core]\nx = \xff\n", "cannot be read (not text in UTF-8)"),
            (
                "values.yaml",
                b"executor: CeleryExecutor\n",
                "is no airflow.cfg: line 1 is neither a [section]",
            ),
            ("bad.cfg", b"[core]\nparallelism = many\n", "[core] parallelism is not a whole number"),
            (
                "misspelt.cfg",
                b"[core]\nexecutor = CeleryKubernetesExecuter\n",
                "Did you mean 'CeleryKubernetesExecutor'?",
            ),
            (
                "gone.cfg",
                b"[core]\nexecutor = airflow.executors.dask_executor.DaskExecutor\n",
                "which Airflow 3 does not have",
            ),
        ],
    )
    def test_that_is_none(
        self, name: str, content: bytes | None, said: str, tmp_path: Path, run: Run
    ) -> None:
        """One message on stderr, nothing on stdout, exit code 1."""
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        done = run("migrate", "--config", str(path))
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert said in " ".join(done.err.split())

    def test_a_pipe_without_a_writer_is_refused(
        self, tmp_path: Path, config: Callable[[str], str], run: Run
    ) -> None:
        """As a configuration, and as a Dag file: it would never end."""
        os.mkfifo(tmp_path / "pipe.py")
        assert "is a named pipe" in run("migrate", "--config", str(tmp_path / "pipe.py")).err
        done = run("migrate", "--config", config(""), "--dags", str(tmp_path), "-o", "json")
        assert (done.code, done.json["unread"][0]["what"]) == (1, "is a named pipe")

    def test_with_a_byte_order_mark(self, tmp_path: Path, run: Run) -> None:
        """Editors of Windows put one there."""
        path = tmp_path / "airflow.cfg"
        path.write_bytes(b"\xef\xbb\xbf[core]\nexecutor = CeleryExecutor\n")
        assert (
            run("migrate", "--config", str(path), "-o", "json").json["read"]["[core] executor"]
            == "CeleryExecutor"
        )

    def test_in_use(self, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without ``--config`` it is Airflow's own."""
        path = config("[core]\nexecutor = LocalKubernetesExecutor\n")
        monkeypatch.setattr(migrate, "AIRFLOW_CONFIG", path)
        found = run("migrate", "-o", "json").json
        assert (found["source"], found["read"]["[core] executor"]) == (path, "LocalKubernetesExecutor")

    def test_in_use_but_missing(self, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """An Airflow without airflow.cfg has the environment and defaults."""
        monkeypatch.setattr(migrate, "AIRFLOW_CONFIG", str(tmp_path / "none.cfg"))
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
        done = run("migrate")
        assert (done.code, done.err) == (0, "")
        assert "Read: the environment; there is no airflow.cfg" in done.out
        assert "AIRFLOW__CORE__EXECUTOR  CeleryExecutor" in done.out


class TestEnvironment:
    @pytest.mark.parametrize(
        ("arguments", "executor"),
        [
            ([], {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}),
            (["--ignore-environment"], {"[core] executor": "LocalExecutor"}),
            (["--executor", "KubernetesExecutor"], {"--executor": "KubernetesExecutor"}),
        ],
    )
    def test_which_executor_counts(
        self,
        arguments: list[str],
        executor: dict[str, str],
        config: Callable[[str], str],
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The environment over the named file unless told otherwise, ``--executor`` over everything."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
        path = config("[core]\nexecutor = LocalExecutor\nparallelism = 4\n")
        found = run("migrate", "--config", path, *arguments, "-o", "json").json
        assert found["read"] == {**executor, "[core] parallelism": "4"}
        assert found["variables"] == [name for name in executor if name.startswith("AIRFLOW__")]

    def test_a_variable_in_small_letters_is_none(
        self, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow does not ask for it."""
        monkeypatch.setenv("AIRFLOW__core__executor", "LocalExecutor")
        found = run("migrate", "--config", config("[core]\nexecutor = CeleryExecutor\n"), "-o", "json").json
        assert found["read"]["[core] executor"] == "CeleryExecutor"

    def test_a_router_that_only_lets_the_command_exist(
        self, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On Airflow 3.1 the command comes with the router; ``--executor`` says what was there before."""
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", ROUTER)
        path = config("")
        assert run("migrate", "--config", path, "-o", "json").json["ready"]
        found = run("migrate", "--config", path, "--executor", "CeleryKubernetesExecutor", "-o", "json").json
        assert (found["ready"], "kubernetes" in found["configuration"]) == (False, True)


class TestDags:
    def test_folders_and_files(self, tmp_path: Path, config: Callable[[str], str], run: Run) -> None:
        """Files below the folders given count, hidden ones and caches do not; archives are named."""
        for name in (
            "one/a.py",
            "one/deep/b.py",
            "one/.git/c.py",
            "one/__pycache__/d.py",
            "one/e.txt",
            "two/f.py",
        ):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"O(queue='{path.stem}')\n")
        (tmp_path / "one" / "packed.zip").write_bytes(b"")
        (tmp_path / "one" / "deep" / "loop").symlink_to(tmp_path / "one")
        folders = [str(tmp_path / name) for name in ("one", "two/f.py")]
        found = run("migrate", "--config", config(""), "--dags", *folders, "-o", "json").json
        assert [row["queue"] for row in found["dags"]] == ["a", "b", "f"]
        assert [Path(row["where"]).name for row in found["unread"]] == ["packed.zip"]
        assert found["scanned"].startswith("3 Python files in ")

    def test_folder_that_is_not_there(self, tmp_path: Path, config: Callable[[str], str], run: Run) -> None:
        """A misspelt folder is a mistake, not an empty answer."""
        done = run("migrate", "--config", config(""), "--dags", str(tmp_path / "none"))
        assert (done.code, done.out) == (1, "")
        assert "none does not exist. Give a folder of Dags" in " ".join(done.err.split())

    def test_file_that_cannot_be_opened(self, tmp_path: Path, config: Callable[[str], str], run: Run) -> None:
        """It is named, and the others are read."""
        (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
        (tmp_path / "there.py").write_text("O(queue='q')\n")
        found = run("migrate", "--config", config(""), "--dags", str(tmp_path), "-o", "json").json
        assert [row["queue"] for row in found["dags"]] == ["q"]
        assert [row["what"] for row in found["unread"]] == ["cannot be read (No such file or directory)"]

    @pytest.mark.parametrize("name", ["dags", "dags/closed"])
    def test_folder_that_cannot_be_opened(
        self,
        name: str,
        tmp_path: Path,
        config: Callable[[str], str],
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is named, and the exit code tells that not all was read."""
        (tmp_path / "dags" / "closed").mkdir(parents=True)
        (tmp_path / "dags" / "there.py").write_text("O(queue='q')\n")
        scandir = os.scandir

        def refuse(path: str) -> Any:
            if str(path) == str(tmp_path / name):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        done = run("migrate", "--config", config(""), "--dags", str(tmp_path / "dags"), "-o", "json")
        assert done.code == 1
        assert [(row["where"], row["what"]) for row in done.json["unread"]] == [
            (str(tmp_path / name), "cannot be read (Permission denied)")
        ]
        assert len(done.json["dags"]) == (name == "dags/closed")

    def test_a_computed_queue_is_told_apart(
        self, tmp_path: Path, config: Callable[[str], str], run: Run
    ) -> None:
        """A script learns by the exit code that the answer does not cover all tasks, and by a key where; people read
        how to know more."""
        (tmp_path / "d.py").write_text("O(queue='q')\nO(queue=some_variable)\n")
        arguments = ["migrate", "--config", config(""), "--dags", str(tmp_path)]
        done = run(*arguments, "-o", "json")
        assert done.code == 1
        assert done.json["unread"] == [
            {"where": f"{tmp_path}/d.py:2", "what": "queue= is computed", "computed": True}
        ]
        text = " ".join(run(*arguments).out.split())
        assert "Could not be read" not in text
        assert (
            "since they are computed; `airflow dispatch migrate --dags` without a folder reads them" in text
        )

    def test_dags_of_a_router_do_not_count(
        self, tmp_path: Path, config: Callable[[str], str], run: Run
    ) -> None:
        """Where there is nothing to migrate, what is unknown about them is no reason for an exit code."""
        (tmp_path / "d.py").write_text("O(queue=some_variable)\n")
        there = config(f"[core]\nexecutor = {ROUTER}\n")
        assert run("migrate", "--config", there, "--dags", str(tmp_path)).code == 0

    def test_names_cannot_act_on_the_terminal(
        self, tmp_path: Path, config: Callable[[str], str], run: Run
    ) -> None:
        """Control characters, signs that turn the direction of writing, and file names that are no UTF-8."""
        (tmp_path / "z\udcff.py").write_text("O(queue='a\\x1b[31m\\u202e')\n")
        text = run("migrate", "--config", config(""), "--dags", str(tmp_path)).out
        assert 'queue="a\\x1b[31m\\u202e"' in text
        assert "z\\udcff.py:1" in text

    def test_long_lists_are_cut_for_people(
        self, tmp_path: Path, config: Callable[[str], str], run: Run
    ) -> None:
        """Five places of one queue and twenty unread spots in text, all of them in JSON."""
        (tmp_path / "many.py").write_text("O(queue='q')\n" * 7 + "O(queue=x)\n" * 23)
        arguments = ["migrate", "--config", config(""), "--dags", str(tmp_path / "many.py")]
        text = " ".join(run(*arguments).out.split())
        assert "many.py:5 and 2 more" in text
        assert "and 3 more; --output json lists all" in text
        found = run(*arguments, "-o", "json").json
        assert (len(found["dags"][0]["places"]), len(found["unread"])) == (7, 23)
