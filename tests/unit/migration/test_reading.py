# SPDX-License-Identifier: Apache-2.0
"""From the text of an airflow.cfg to what it means for executors."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.exceptions import MigrationError
from airflow_dispatch_provider.migration.executors import Entry, Kind, backend_name, read_entries
from airflow_dispatch_provider.migration.old import OldConfig, read_old
from airflow_dispatch_provider.migration.options import from_environment, read_ini

ECS = "airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor"


def old(text: str, **environ: str) -> OldConfig:
    return read_old(read_ini(text, "a.cfg"), environ, "a.cfg")


class TestFile:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("executor: hunter2\n", "line 1 is neither a [section]"),
            ("[core]\nhunter2\n", "line 2 is neither a [section]"),
            ("[celery]\nbroker_url = hunter2\nbroker_url = hunter2\n", "[celery] broker_url twice (line 3)"),
            ("[core]\n[core]\n", "the section [core] twice (line 2)"),
        ],
    )
    def test_what_is_no_ini_is_named_without_its_text(self, text: str, said: str) -> None:
        """The message has the file and the line, and nothing of the line, which may be a password."""
        with pytest.raises(MigrationError) as caught:
            read_ini(text, "a.cfg")
        assert str(caught.value).startswith("a.cfg is no airflow.cfg: ")
        assert said in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_values_may_name_other_options(self) -> None:
        """As Airflow reads them; [DEFAULT] is for that, and is no option of any section."""
        text = "[DEFAULT]\nhome = /opt\n[core]\nstage = prod\nqueue = %(stage)s-k8s\nfolder = %(home)s/dags\n"
        options = read_ini(text, "a.cfg")
        assert {option.label: option.value for option in options.values()} == {
            "[core] stage": "prod",
            "[core] queue": "prod-k8s",
            "[core] folder": "/opt/dags",
        }

    def test_sections_in_capitals_are_not_read(self) -> None:
        """Airflow asks for none of them."""
        assert read_ini("[CORE]\nexecutor = CeleryExecutor\n[core]\nx = 1\n", "a.cfg").keys() == {
            ("core", "x")
        }

    def test_percent_signs_need_no_meaning(self) -> None:
        """Log formats with percent signs do not stop the reading; doubled ones are one."""
        options = read_ini("[logging]\nformat = [%%(asctime)s] %(message)s\n", "a.cfg")
        assert options["logging", "format"].value == "[%(asctime)s] %(message)s"

    def test_values_are_in_no_repr(self) -> None:
        """An option shows its name only, wherever it is printed."""
        assert "hunter2" not in repr(old("[celery]\nbroker_url = hunter2\n"))


class TestEnvironment:
    def test_it_stands_over_the_file(self) -> None:
        """A variable wins over the same option of the file."""
        found = old("[core]\nexecutor = LocalExecutor\n", AIRFLOW__CORE__EXECUTOR="CeleryExecutor")
        assert [entry.kind for entry in found.entries] == [Kind.CELERY]

    def test_an_argument_stands_over_both(self) -> None:
        """``--executor`` wins over file and environment."""
        found = read_old({}, {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}, None, "KubernetesExecutor")
        assert [entry.kind for entry in found.entries] == [Kind.KUBERNETES]

    def test_options_of_teams_are_left_out(self) -> None:
        """Three underscores end the name of a team, not of a section."""
        assert from_environment({"AIRFLOW__BLUE___CORE__EXECUTOR": "x", "HOME": "/"}) == {}

    def test_variables_in_values_are_filled_in(self) -> None:
        """Airflow expands ``$NAME`` in a value, and so does this."""
        text = "[core]\nexecutor = $MINE\nparallelism = ${MANY}\n"
        found = old(text, MINE="CeleryExecutor", MANY="7")
        assert (found.entries[0].kind, found.parallelism) == (Kind.CELERY, 7)


class TestExecutors:
    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            ("LocalExecutor", [Kind.LOCAL]),
            ("airflow.executors.local_executor.LocalExecutor", [Kind.LOCAL]),
            ("airflow.executors.celery_executor.CeleryExecutor", [Kind.CELERY]),
            ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", [Kind.CELERY]),
            ("airflow_dispatch_provider.executors.celery_executor.CeleryExecutor", [Kind.CELERY]),
            ("my_company.executors.CeleryExecutor", [Kind.OTHER]),
            ("my_company.executors.CeleryKubernetesExecutor", [Kind.CELERY_KUBERNETES]),
            ("alias:KubernetesExecutor", [Kind.KUBERNETES]),
            (f" CeleryExecutor ,\n ecs:{ECS} ", [Kind.CELERY, Kind.OTHER]),
            ("SequentialExecutor", [Kind.SEQUENTIAL]),
        ],
    )
    def test_every_form(self, text: str, kinds: list[Kind]) -> None:
        """Names, import paths of Airflow 2 and 3, aliases and lists are understood."""
        assert [entry.kind for entry in read_entries(text, multi_team=False)] == kinds

    def test_teams(self) -> None:
        """Lists of teams count with ``multi_team`` only, as in Airflow."""
        text = "LocalExecutor;blue=CeleryExecutor,KubernetesExecutor"
        assert [entry.team for entry in read_entries(text, multi_team=True)] == [None, "blue", "blue"]
        assert [entry.team for entry in read_entries(text, multi_team=False)] == [None]

    @pytest.mark.parametrize(
        "text",
        ["DaskExecutor", "my-company.Executor", "LocalExecutor:", ":LocalExecutor", "blue=LocalExecutor"],
    )
    def test_what_cannot_be_one_is_refused(self, text: str) -> None:
        """The message names the value and the option."""
        with pytest.raises(MigrationError, match=r"\[core\] executor"):
            read_entries(text, multi_team=True)

    @pytest.mark.parametrize(
        ("entry", "name"),
        [
            (Entry(Kind.OTHER, ECS), "aws-ecs"),
            (Entry(Kind.OTHER, ECS, "My ECS!"), "My-ECS"),
            (Entry(Kind.OTHER, "m.Executor"), "backend"),
        ],
    )
    def test_names_of_backends(self, entry: Entry, name: str) -> None:
        """A class or an alias becomes a name that ``[dispatch]`` accepts."""
        assert backend_name(entry) == name


class TestNumbersAndQueues:
    def test_defaults(self) -> None:
        """Options that are not set have Airflow's defaults."""
        found = old("")
        assert (found.entries[0].path, found.parallelism, found.default_queue) == (
            "LocalExecutor",
            32,
            "default",
        )
        assert set(found.queues.values()) == {"kubernetes"}

    @pytest.mark.parametrize(("text", "slots"), [("8 # each", 8), ("0", 1024), ("9000000", 1_000_000)])
    def test_parallelism(self, text: str, slots: int) -> None:
        """Comments behind a number, no bound, and more than ``[dispatch]`` accepts."""
        assert old(f"[core]\nparallelism = {text}\n").slots == slots

    @pytest.mark.parametrize("text", ["many", "-1", "1.5"])
    def test_parallelism_that_is_no_number(self, text: str) -> None:
        """The option is named where its value is of no use."""
        with pytest.raises(MigrationError, match=r"\[core\] parallelism is not a whole number"):
            old(f"[core]\nparallelism = {text}\n")

    def test_default_queue_of_airflow_2(self) -> None:
        """``[celery] default_queue`` counts unless ``[operators]`` has one."""
        text = "[celery]\ndefault_queue = old\n"
        assert old(text).default_queue == "old"
        assert old(f"{text}[operators]\ndefault_queue = new\n").default_queue == "new"


def test_an_empty_value_is_no_value() -> None:
    """As in a file that lists every option; an empty variable stands over the file."""
    found = old("[core]\nexecutor = CeleryExecutor\n[secrets]\nbackend =\n", AIRFLOW__CORE__EXECUTOR="")
    assert (found.executor_option, found.options) == (None, {})


def test_a_default_queue_in_a_variable_counts_before_the_file() -> None:
    """Also under the name that it had in Airflow 1."""
    options = read_ini("[operators]\ndefault_queue = default\n", "a.cfg")
    old = read_old(options, {"AIRFLOW__CELERY__DEFAULT_QUEUE": "etl"}, "a.cfg")
    assert old.default_queue == "etl"


@pytest.mark.parametrize("package", ["airflow.executors", "airflow.contrib.executors"])
def test_executors_of_airflow_1_are_known_by_their_paths(package: str) -> None:
    """Airflow 3 has neither module."""
    (entry,) = read_entries(f"{package}.kubernetes_executor.KubernetesExecutor", False)
    assert entry.kind is Kind.KUBERNETES
