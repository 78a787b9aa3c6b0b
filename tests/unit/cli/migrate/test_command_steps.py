# SPDX-License-Identifier: Apache-2.0
"""Steps that the command proposes, and how it shows them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import airflow
import pytest
import yaml
from literal.printed import is_printed
from packaging.requirements import Requirement

from airflow_dispatch_provider.bridge.options.reads import not_used
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.migration.executors import OURS, ROUTER
from tests.unit.cli.conftest import Outcome
from tests.unit.docs.pages import DOCS

Run = Callable[..., Outcome]


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
        # Read by no backend that is proposed.
        ("[celery]\ncelery_config_options = airflow.providers.google.cloud.CONFIG", None),
        ("[celery]\nresult_backend = db+postgresql://u:p@h/db", None),
        ("[celery_broker_transport_options]\nx = airflow.providers.google.cloud.X", None),
        ("[kubernetes]\nclient_factory = airflow.providers.google.cloud.X", None),
        # Maybe read by an executor that is kept.
        ("[core]\nexecutor = own.Celery\n[celery]\nresult_backend = db+postgresql://u:p@h/db", "postgres"),
        # Written into every new file.
        (
            "[core]\nexecutor = own.Celery\n[celery]\n"
            "celery_app_name = airflow.providers.celery.executors.celery_executor",
            None,
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
    found = run("migrate", "--config", path, "-o", "json").json
    assert (found["options"], found["requirements"]) == ([], [])


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


@pytest.mark.parametrize(
    ("executor", "removed"),
    [
        ("CeleryExecutor,KubernetesExecutor", True),
        ("CeleryKubernetesExecutor,own.Executor", True),
        ("own.KubernetesExecutor", False),
    ],
)
@pytest.mark.parametrize(("section", "name"), not_used())
def test_no_option_without_effect_is_kept(
    section: str, name: str, executor: str, removed: bool, config: Callable[[str], str], run: Run
) -> None:
    """Airflow's executor, or a subclass of it that is kept, still reads it."""
    path = config(f"[core]\nexecutor = {executor}\n[{section.removesuffix('_executor')}]\n{name} = 987\n")
    found = run("migrate", "--config", path, "-o", "json").json["options"]
    without = [row for row in found if row["why"].startswith("no effect any more")]
    assert without == (found if removed else [])
    assert [row["do"] for row in without] == ["remove"] * removed


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


@pytest.mark.once
def test_the_page_shows_what_is_printed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, where nothing is left out."""
    page = (DOCS / "migration.md").read_text()
    (config_,) = re.findall(r"<!-- migrate: old.cfg -->\n```ini\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"<!-- printed -->\n```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "old.cfg").write_text(config_)
    monkeypatch.chdir(tmp_path)
    assert is_printed(shown, run("migrate", "--config", "old.cfg").out)
