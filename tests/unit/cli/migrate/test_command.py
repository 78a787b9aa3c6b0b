# SPDX-License-Identifier: Apache-2.0
"""Input of the command, and its answers where that is wrong. Its reports are in ``test_cases``."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Callable
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
from typing import Any

import airflow
import pytest
import yaml
from literal.printed import is_printed
from packaging.requirements import Requirement

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.cli import migrate
from airflow_dispatch_provider.migration.executors import OURS, ROUTER
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.presets import CELERY_KUBERNETES, LOCAL_KUBERNETES, Hybrid
from airflow_dispatch_provider.settings.source import SettingsSource
from tests.unit.cli.conftest import Outcome
from tests.unit.docs.pages import DOCS
from tests.unit.settings.fakes import FakeConf

Run = Callable[..., Outcome]


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Write an airflow.cfg; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "airflow.cfg"
        path.write_text(text)
        return str(path)

    return write


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


@pytest.mark.parametrize("image", ["apache/airflow:2.10.4", "apache/airflow:3.3.2", None])
def test_the_image_in_a_pod_template_counts(
    image: str | None, tmp_path: Path, config: Callable[[str], str], run: Run
) -> None:
    """The template is read where it is on this machine; one that is not is no mistake."""
    template = tmp_path / "pod.yaml"
    if image:
        template.write_text(f"spec:\n  containers:\n    - name: base\n      image: {image}\n")
    done = run("migrate", "--config", config(f"[kubernetes]\npod_template_file = {template}\n"), "-o", "json")
    found = [row["option"] for row in done.json["options"] if row["do"] == "change"]
    assert found == ["[kubernetes_executor] pod_template_file"] * (image == "apache/airflow:2.10.4")


@pytest.mark.parametrize(
    ("executor", "is_left"), [("", True), (f"{OURS}.celery_kubernetes_executor.", False)]
)
def test_the_queue_of_a_hybrid_is_to_be_removed(
    executor: str, is_left: bool, config: Callable[[str], str], run: Run
) -> None:
    """It is a route now. The ready-made router of this package still reads it."""
    text = f"[core]\nexecutor = {executor}CeleryKubernetesExecutor\n"
    text += "[celery_kubernetes_executor]\nkubernetes_queue = k\n[local_kubernetes_executor]\nkubernetes_queue = k\n"
    rows = run("migrate", "--config", config(text), "-o", "json").json["options"]
    found = [(row["do"], row["option"]) for row in rows]
    assert found == [("remove", "[celery_kubernetes_executor] kubernetes_queue")] * is_left


def test_yaml_is_json_in_another_coat(config: Callable[[str], str], run: Run) -> None:
    """Both structured formats hold the same."""
    arguments = ["migrate", "--config", config("[core]\nexecutor = CeleryKubernetesExecutor\n"), "-o"]
    assert yaml.safe_load(run(*arguments, "yaml").out) == run(*arguments, "json").json


def test_a_router_that_is_there_leaves_nothing_to_put_in(config: Callable[[str], str], run: Run) -> None:
    """No step speaks of lines or options that are not there."""
    text = run("migrate", "--config", config(f"[core]\nexecutor = {ROUTER}\n")).out
    assert "configured already: nothing has to be put into airflow.cfg." in text
    assert [word for word in ("Put in", "pip install", "config update", "Restart") if word in text] == []


def test_steps_speak_of_what_there_is(config: Callable[[str], str], run: Run) -> None:
    """Old options beside a router: they change, and no lines are put in."""
    path = config(f"[core]\nexecutor = {ROUTER}\n[webserver]\nbase_url = http://a\n")
    text = run("migrate", "--config", path).out
    assert "1. Change the options as shown above." in text
    assert "ut in the lines" not in text


def test_what_is_to_be_installed_has_the_bounds_of_the_extras(config: Callable[[str], str], run: Run) -> None:
    """Without them, pip takes a Celery that the provider cannot be imported with."""
    path = config("[core]\nexecutor = CeleryKubernetesExecutor\n")
    wanted = {
        f"{each.name}{each.specifier}"
        for each in map(Requirement, metadata.requires("airflow-dispatch-provider") or ())
        if re.search("celery|cncf-kubernetes", str(each.marker))
    }
    assert {*run("migrate", "--config", path, "-o", "json").json["requirements"]} == wanted
    command = shlex.split(re.findall("pip install.*", run("migrate", "--config", path).out)[0])
    assert {*command} == {"pip", "install", *wanted}
    assert any("<" in requirement for requirement in command)


@pytest.mark.parametrize(
    ("lines", "provider"),
    [
        ("[logging]\nremote_logging = True\nremote_base_log_folder = s3://logs", "amazon"),
        ("[core]\nremote_logging = True\nremote_base_log_folder = wasb-logs", "microsoft-azure"),
        ("[logging]\nremote_logging = False\nremote_base_log_folder = gs://logs", None),
        ("[secrets]\nbackend = airflow.contrib.secrets.hashicorp_vault.VaultBackend", "hashicorp"),
        ("[core]\nexecutor = ecs:airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor", "amazon"),
        (
            "[core]\nxcom_backend = airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
            "common-io",
        ),
    ],
)
def test_providers_that_values_name_are_to_be_installed(
    lines: str, provider: str | None, config: Callable[[str], str], run: Run
) -> None:
    """Without them every command of Airflow ends with an ImportError."""
    found = run("migrate", "--config", config(f"{lines}\n"), "-o", "json").json["requirements"]
    assert found == ([] if provider is None else [f"apache-airflow-providers-{provider}"])


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="Airflow 3.1 keeps a path there that is gone")
def test_a_file_that_airflow_wrote_has_nothing_to_change(config: Callable[[str], str], run: Run) -> None:
    """Into a new airflow.cfg, Airflow also puts options of providers that may not describe them any more."""
    source = Path(airflow.__file__).parent / "config_templates" / "provider_config_fallback_defaults.cfg"
    path = config(source.read_text())
    assert run("migrate", "--config", path, "-o", "json").json["options"] == []


@pytest.mark.parametrize(("parallelism", "named"), [("16", True), ("20", False)])
def test_a_variable_is_named_where_its_value_changes(
    parallelism: str, named: bool, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``[core] parallelism`` does not where it is large enough for the slots that there are."""
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", parallelism)
    executor = "SequentialExecutor" if not named else "CeleryKubernetesExecutor"
    path = config(f"[core]\nexecutor = {executor}\n")
    found = run("migrate", "--config", path, "-o", "json").json["variables"]
    assert found == (["AIRFLOW__CORE__PARALLELISM"] if named else [])


@pytest.mark.parametrize("columns", [60, 80])
def test_options_to_change_fit_the_terminal(
    columns: int, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new name that finds no room beside the old one stands below it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    path = config(
        "[kubernetes]\nworker_pods_creation_batch_size = 3\ngit_repo = x\n[webserver]\nworkers = 4\n"
    )
    text = run("migrate", "--config", path).out
    options = text.partition("Options to change")[2].partition("Then\n")[0].splitlines()
    assert max(map(len, options)) <= columns
    assert ("      -> [kubernetes_executor] worker_pods_creation_batch_size" in options) == (columns == 80)


@pytest.mark.parametrize("columns", [60, 80])
def test_sentences_are_as_wide_as_the_terminal(
    columns: int, config: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands keep their line, so that they can be copied."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = run("migrate", "--config", config("[core]\nexecutor = SequentialExecutor\n")).out
    changes = text.partition("What changes")[2].partition("Then\n")[0].splitlines()
    assert columns - 15 < max(map(len, changes)) <= columns


def test_it_writes_nothing(tmp_path: Path, config: Callable[[str], str], run: Run) -> None:
    """The folder of the configuration is as before."""
    path = config("[core]\nexecutor = CeleryKubernetesExecutor\n")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*")}
    assert run("migrate", "--config", path, "--dags", str(tmp_path)).code == 0
    assert {file: file.read_bytes() for file in tmp_path.rglob("*")} == before


def test_names_in_json_stay(config: Callable[[str], str], run: Run) -> None:
    """Programs rely on them."""
    path = config("[core]\nexecutor = CeleryExecutor\n[kubernetes]\nnamespace = x\n")
    found = run("migrate", "--config", path, "-o", "json").json
    assert set(found) == {
        "airflow",
        "by_name",
        "by_name_lacks",
        "changes",
        "configuration",
        "dags",
        "one_class",
        "options",
        "read",
        "ready",
        "requirements",
        "scanned",
        "slots",
        "source",
        "unknown",
        "unread",
        "variables",
    }
    assert set(found["options"][0]) == {"option", "do", "to", "why"}


def test_help_tells_its_own_exit_codes(run: Run) -> None:
    """It judges no configuration, unlike `validate`."""
    text = " ".join(run("migrate", "--help").out.split())
    assert "or a Dag has a queue that is not known, such as a computed one, 2 wrong usage" in text
    assert "has mistakes" not in text


def test_wrong_argument(run: Run) -> None:
    """Exit code 2, as of every command of Airflow."""
    assert run("migrate", "--dag", "x", "--nothing").code == 2


@pytest.mark.parametrize("argument", ["--config", "--executor", "--dags"])
def test_empty_argument(argument: str, run: Run) -> None:
    """An empty argument, as an unset variable of a shell leaves it, is wrong usage, not the default."""
    done = run("migrate", argument, "")
    assert done.code == 2
    assert "is empty" in done.err


@pytest.mark.parametrize("hybrid", [CELERY_KUBERNETES, LOCAL_KUBERNETES])
def test_the_class_is_the_same_configuration_as_the_lines(
    hybrid: Hybrid, config: Callable[[str], str], run: Run
) -> None:
    """Neither side of a hybrid may take the other's slots."""
    executor = hybrid.executor.replace("Executor", "KubernetesExecutor")
    path = config(
        f"[core]\nexecutor = {executor}\nparallelism = 48\n[{hybrid.section}]\nkubernetes_queue = pods\n"
    )
    found = run("migrate", "--config", path, "-o", "json").json
    queue = {f"{hybrid.section}.kubernetes_queue": "pods"}
    lines = _settings(found["configuration"], None, {})
    assert _settings(found["one_class"], hybrid, queue) == lines
    assert [backend.slots for backend in lines.backends.values()] == [48, 48]


def _settings(text: str, hybrid: Hybrid | None, more: dict[str, str]) -> Settings:
    """The settings that the router of the printed lines reads."""
    parser = ConfigParser()
    parser.read_string(text)
    options = {**parser["dispatch"], **more}
    parallelism = parser.getint("core", "parallelism")
    return SettingsSource(FakeConf(options), lambda: parser["dispatch"], hybrid, lambda: parallelism).load()


@pytest.mark.once
def test_the_page_shows_what_is_printed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, where nothing is left out."""
    page = (DOCS / "migration.md").read_text()
    (config_,) = re.findall(r"<!-- migrate: old.cfg -->\n```ini\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"<!-- printed -->\n```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "old.cfg").write_text(config_)
    monkeypatch.chdir(tmp_path)
    assert is_printed(shown, run("migrate", "--config", "old.cfg").out)
