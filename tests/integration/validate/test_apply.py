# SPDX-License-Identifier: Apache-2.0
"""``apply FILE``: a routing file is checked, and takes the place of ``config_file``."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from .conftest import Run
from .harness import LOCAL, Configuration, airflow_cfg
from .test_file import IN_USE, WITH_FILE, configuration

NEW = IN_USE.replace("b:", "c:").replace("[b]", "[c]")
DRAINED = "backends.b removed: LocalExecutor (it gets no new work, and is stopped when it is empty)"


def used(home: str) -> Path:
    return Path(home, "used.yaml")


@pytest.mark.parametrize("dry_run", [True, False])
def test_says_what_changes_and_changes_it(run: Run, home: str, dry_run: bool) -> None:
    """With --dry-run it changes nothing, and says the same."""
    code, out, err = run(configuration(NEW), "apply", "new.yaml", *(["--dry-run"] if dry_run else []))
    assert (code, err) == (0, "")
    assert DRAINED in out
    assert "backends.c added: LocalExecutor, slots 4 (it is started)" in out
    assert "A running scheduler would take it over within seconds, without a restart." in out
    assert used(home).read_text() == (IN_USE if dry_run else NEW)
    assert ("It has to reach every scheduler" in out) is not dry_run


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_says_it_to_programs(run: Run, home: str, output: str) -> None:
    code, out, _ = run(configuration(NEW), "apply", "new.yaml", "--output", output)
    answer = (json.loads if output == "json" else yaml.safe_load)(out)
    assert (code, answer["applied"], answer["config_file"]) == (0, True, str(used(home)))
    effects = {change["what"]: change["effect"] for change in answer["changes"]}
    assert effects["backends.c"] == "it is started"
    assert effects["routes[0]"] == ""


def test_file_with_a_mistake_is_not_used(run: Run, home: str) -> None:
    code, out, _ = run(configuration(NEW.replace("[c]", "[d]")), "apply", "new.yaml")
    assert (code, "routes[0].to[0]" in out) == (1, True)
    assert used(home).read_text() == IN_USE


def test_mends_a_configuration_that_is_wrong(run: Run, home: str) -> None:
    """The file that it replaces need not be right."""
    code, _, _ = run(configuration(NEW, used="backends: 7"), "apply", "new.yaml")
    assert (code, used(home).read_text()) == (0, NEW)


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_mode_stays_as_it_is(run: Run, home: str, mode: int) -> None:
    """The file may hold passwords; and nothing else is left behind."""
    settings = configuration(NEW)
    run(settings, "validate")
    used(home).chmod(mode)
    assert run(settings, "apply", "new.yaml")[0] == 0
    assert stat.S_IMODE(used(home).stat().st_mode) == mode
    assert [name for name in os.listdir(home) if name.startswith(".used")] == []


def test_link_stays_a_link(run: Run, home: str) -> None:
    settings = Configuration(WITH_FILE, files={"real.yaml": IN_USE, "new.yaml": NEW})
    used(home).symlink_to("real.yaml")
    assert run(settings, "apply", "new.yaml")[0] == 0
    assert (used(home).is_symlink(), Path(home, "real.yaml").read_text()) == (True, NEW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_file_that_may_not_be_written_is_refused(run: Run, home: str) -> None:
    settings = configuration(NEW)
    run(settings, "validate")
    used(home).chmod(0o400)
    code, _, err = run(settings, "apply", "new.yaml")
    assert (code, "cannot be replaced" in err, used(home).read_text()) == (1, True, IN_USE)


def test_place_that_cannot_be_written_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a ConfigMap; what the answer says of it is true, and no part is left behind."""

    def refuse(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    code, out, err = run(configuration(NEW), "apply", "new.yaml", "--output", "json")
    assert (code, json.loads(out)["applied"]) == (1, False)
    assert "used.yaml cannot be replaced (Read-only file system)." in err
    assert not [name for name in os.listdir(".") if name.startswith(".used")]


def test_without_config_file_there_is_nothing_to_replace(run: Run) -> None:
    code, _, err = run(
        Configuration(airflow_cfg(), files={"new.yaml": NEW}), "apply", "new.yaml", "--dry-run"
    )
    assert (code, "[dispatch] config_file is not set" in err) == (2, True)


def test_file_itself_is_no_new_version(run: Run) -> None:
    code, _, err = run(configuration(NEW), "apply", "used.yaml")
    assert (code, "is config_file itself" in err) == (1, True)


def test_yaml_is_no_new_version_of_json(run: Run, home: str) -> None:
    """It would be read as JSON, and was checked as YAML."""
    cfg = WITH_FILE.replace("used.yaml", "used.json")
    backends = f'{{"backends": {{"a": {LOCAL}}}}}'
    settings = Configuration(cfg, files={"used.json": backends, "new.yaml": NEW, "new.json": backends})
    code, _, err = run(settings, "apply", "new.yaml")
    assert (code, "is read as JSON" in err) == (1, True)
    assert run(settings, "apply", "new.json")[0] == 0


def test_json_is_no_new_version_of_yaml(run: Run, home: str) -> None:
    """A number such as 1e3 is one in JSON and text in YAML: the scheduler would refuse what was found right."""
    new = (
        f'{{"backends": {{"a": {LOCAL}}}, "routes": [{{"queue": "q", "to": ["a"], "overflow_after": 1e3}}]}}'
    )
    settings = Configuration(WITH_FILE, files={"used.yaml": NEW, "new.json": new})
    code, _, err = run(settings, "apply", "new.json")
    assert (code, "is read as YAML" in err) == (1, True)


def test_two_clusters_of_one_place_are_never_used_at_once(run: Run) -> None:
    """A backend under another name that uses what a drained one uses is started after that."""
    options = '{"kubernetes_executor": {"config_file": "{home}/k", "in_cluster": "False"}}'
    kube = f'{{"executor": "KubernetesExecutor", "slots": 4, "config": {options}}}'
    old, new = (f"backends: {{a: {LOCAL}, {name}: {kube}}}\ndefault: a\n" for name in ("k", "l"))
    settings = Configuration(WITH_FILE, files={"used.yaml": old, "new.yaml": new, "k": KUBECONFIG})
    code, out, _ = run(settings, "apply", "new.yaml", "--dry-run")
    assert "it is started when 'k', which uses the same, is empty" in out, out
    assert code == 0


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
