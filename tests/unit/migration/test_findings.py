# SPDX-License-Identifier: Apache-2.0
"""Which options are to be changed by hand, against an Airflow that is made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_dispatch_provider.migration.findings import (
    POD_TEMPLATE,
    Target,
    class_paths,
    findings,
    named_providers,
    not_judged,
    queued_timeout,
)
from airflow_dispatch_provider.migration.old import read_old
from airflow_dispatch_provider.migration.options import Key, Option, from_environment, read_ini

TIMEOUT = ("scheduler", "task_queued_timeout")
TARGET = Target(
    version="3.9",
    options={
        TIMEOUT: "600.0",
        ("scheduler", "interval"): "5",
        ("celery", "broker_url"): None,
        ("celery", "broker_url_cmd"): None,
        ("celery", "celery_config_options"): "airflow.providers.celery.default.CONFIG",
        ("kubernetes_executor", "namespace"): "default",
        ("logging", "base_log_folder"): None,
        ("logging", "both_have"): None,
        ("metrics", "both_have"): None,
        ("core", "executor"): "LocalExecutor",
        ("core", "xcom_backend"): "airflow.new.BaseXCom",
        ("core", "auth_manager"): None,
        ("core", "secrets_backend"): None,
        ("sentry", "dsn"): None,
        ("api", "url"): None,
    },
    moves={
        ("celery", "stalled_task_timeout"): TIMEOUT,
        ("celery", "task_adoption_timeout"): TIMEOUT,
        ("kubernetes_executor", "worker_pods_pending_timeout"): TIMEOUT,
        ("webserver", "base_url"): ("api", "url"),
        ("webserver", "cookie"): ("fab", "cookie"),
        ("webserver", "gone"): None,
        ("webserver", "to_nothing"): ("api", "nothing"),
        ("webserver", "twice"): ("webserver", "base_url"),
    },
    outdated={("logging", "base_log_folder"): {"/old"}},
    undescribed=frozenset({("core", "secretly_read")}),
)


def file_of(section: str, name: str, value: str = "x") -> dict[Key, Option]:
    return read_ini(f"[{section}]\n{name} = {value}\n", "airflow.cfg")


def said(options: dict[Key, Option], missing: frozenset[str] = frozenset()) -> list[tuple[str, str | None]]:
    return [(finding.do, finding.to or finding.why) for finding in findings(options, TARGET, missing)]


def test_a_variable_with_an_old_name_counts_before_the_file() -> None:
    """Removing it would put the file's value in force."""
    variable = from_environment({"AIRFLOW__KUBERNETES__NAMESPACE": "prod"})
    in_file = file_of("kubernetes_executor", "namespace", "default")
    assert said({**in_file, **variable}) == [("rename", "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE")]
    both = {**variable, **from_environment({"AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "prod"})}
    assert [do for do, _ in said(both)] == ["remove"]


def test_a_line_of_the_file_under_a_variable_is_named_too() -> None:
    """Left there, it would be in force under its old name, or stand in a section that nobody reads."""
    file = {**file_of("kubernetes", "namespace"), **file_of("scheduler", "interval", "4")}
    variables = {"AIRFLOW__KUBERNETES__NAMESPACE": "prod", "AIRFLOW__SCHEDULER__INTERVAL": "8"}
    old = read_old(file, variables, "airflow.cfg")
    found = [(each.option, each.do) for each in findings(old.options, TARGET, frozenset(), old.overridden)]
    assert found == [("AIRFLOW__KUBERNETES__NAMESPACE", "rename"), ("[kubernetes] namespace", "remove")]


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("postgresql+psycopg2://u:p@h/db", "postgres"),
        ("db+postgresql://u:p@h/db", "postgres"),
        ("mysql+mysqldb://u:p@h/db", "mysql"),
        ("sqlite:////tmp/a.db", None),
    ],
)
def test_the_driver_of_a_database_comes_with_its_provider(url: str, provider: str | None) -> None:
    options = file_of("celery", "result_backend", url)
    expected = (f"apache-airflow-providers-{provider}",) if provider else ()
    assert named_providers(options) == expected


def test_options_of_kubernetes_are_not_judged_without_its_provider() -> None:
    """Which of them exist is known where the provider is installed; there nothing is left open."""
    bare = replace(TARGET, options={("core", "executor"): "LocalExecutor"})
    options = file_of("kubernetes", "dags_in_image")
    (said_of_it,) = not_judged(options, bare)
    assert "[kubernetes] dags_in_image: only apache-airflow-providers-cncf-kubernetes" in said_of_it
    assert findings(options, bare, frozenset()) == ()
    assert [*not_judged(options, TARGET)] == []


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("webserver", "cookie", "x"),
        ("core", "auth_manager", "airflow.auth.managers.fab.fab_auth_manager.FabAuthManager"),
        ("core", "auth_manager", "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"),
    ],
)
@pytest.mark.parametrize("variable", [True, False])
def test_what_needs_the_fab_provider_is_named_where_it_is_not_installed(
    section: str, name: str, value: str, variable: bool
) -> None:
    """Its options have another section, and its classes another package; there nothing is left open."""
    label = f"AIRFLOW__{section}__{name}".upper() if variable else f"[{section}] {name}"
    options = from_environment({label: value}) if variable else file_of(section, name, value)
    (told,) = not_judged(options, TARGET)
    assert told.startswith(
        f"What to do with {label}: only apache-airflow-providers-fab tells, which is not installed"
    )
    there = replace(TARGET, options={**TARGET.options, ("fab", "cookie"): None})
    assert [*not_judged(options, there)] == []


NO_SUCH = "Airflow 3.9 describes no such option"


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        # Known, or not to be judged: the section is a plugin's, takes anything, or its provider is not here.
        ("celery", "broker_url", []),
        ("core", "secretly_read", []),
        ("my_plugin", "anything", []),
        ("sentry", "anything", []),
        ("celery_broker_transport_options", "visibility_timeout", []),
        ("webserver", "cookie", []),
        # The rules of `config lint` say so.
        ("webserver", "base_url", [("rename", "[api] url")]),
        ("webserver", "gone", [("remove", NO_SUCH)]),
        ("webserver", "rbac", [("remove", NO_SUCH)]),
        # They name what nobody reads, or what they would move once more.
        ("webserver", "to_nothing", [("remove", NO_SUCH)]),
        ("webserver", "twice", [("rename", "[api] url")]),
        # They do not know these.
        ("kubernetes", "namespace", [("rename", "[kubernetes_executor] namespace")]),
        ("kubernetes", "git_repo", [("remove", POD_TEMPLATE)]),
        ("kubernetes", "worker_pods_queued_check_interval", [("remove", NO_SUCH)]),
        ("kubernetes_labels", "team", [("remove", POD_TEMPLATE)]),
        ("dask", "cluster_address", [("remove", NO_SUCH)]),
        ("core", "base_log_folder", [("rename", "[logging] base_log_folder")]),
        ("core", "both_have", [("remove", NO_SUCH)]),
        ("celery", "celery_broker_url", [("rename", "[celery] broker_url")]),
        ("celery", "celery_broker_url_cmd", [("rename", "[celery] broker_url_cmd")]),
        ("kubernetes", "namespace_cmd", [("remove", NO_SUCH)]),
    ],
)
def test_option_of_a_file(section: str, name: str, expected: list[tuple[str, str]]) -> None:
    """One option at a time."""
    assert said(file_of(section, name)) == expected


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("kubernetes_executor", "8", [("remove", "no effect any more")]),
        ("kubernetes", "8", [("remove", "no effect any more")]),
        # In every file that Airflow wrote.
        ("kubernetes_executor", "1", []),
        ("kubernetes", "1", [("remove", "no effect any more")]),
    ],
)
def test_an_option_without_effect_is_removed(
    section: str, value: str, expected: list[tuple[str, str]]
) -> None:
    """It is never renamed, and may stay where it changes nothing for Airflow's executor either."""
    key = ("kubernetes_executor", "batch")
    target = replace(TARGET, options={**TARGET.options, key: "1"}, not_used={key: "no effect any more"})
    found = findings(file_of(section, "batch", value), target, frozenset())
    assert [(each.do, each.to or each.why) for each in found] == expected


def test_variable_is_renamed_to_a_variable() -> None:
    """The new name is written as the old one is."""
    options = from_environment({"AIRFLOW__WEBSERVER__BASE_URL": "x"})
    assert said(options) == [("rename", "AIRFLOW__API__URL")]


def test_new_name_that_is_set() -> None:
    """The old one can go; the new one is named as it is set."""
    options = {
        **file_of("kubernetes", "namespace"),
        **from_environment({"AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "x"}),
    }
    assert said(options) == [("remove", "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE is set, too")]


def test_value_that_the_linter_would_refuse_next() -> None:
    """A default of Airflow 2 is not carried to the new name."""
    (only,) = said(file_of("core", "base_log_folder", "/old"))
    assert only[0] == "remove"


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, None),
        ({"stalled_task_timeout": "0"}, None),
        ({"stalled_task_timeout": "0", "task_adoption_timeout": "900"}, "900"),
        # Airflow 2.6 to 2.11 took the largest of all, the default of the new option included.
        ({"task_adoption_timeout": "300"}, "600"),
        ({"task_adoption_timeout": "1800.0", "stalled_task_timeout": "1200"}, "1800"),
        ({"task_adoption_timeout": "many"}, None),
        ({"task_adoption_timeout": "700 # seconds"}, "700"),
    ],
)
def test_one_timeout_for_three(values: dict[str, str], seconds: str | None) -> None:
    """The largest, where 0 was off; nothing where all are off."""
    options = from_environment({f"AIRFLOW__CELERY__{name}".upper(): value for name, value in values.items()})
    assert queued_timeout(options, TARGET) == seconds


def test_timeout_that_is_set_counts_in_place_of_its_default() -> None:
    """As one more of those of which the largest counts."""
    options = {**file_of(*TIMEOUT, "100"), **file_of("kubernetes", "worker_pods_pending_timeout", "200")}
    assert queued_timeout(options, TARGET) == "200"


GONE = frozenset(
    {
        "airflow.old.CONFIG",
        "airflow.models.xcom.BaseXCom",
        "airflow.auth.managers.fab.fab_auth_manager.FabAuthManager",
        "airflow.api.auth.backend.session",
        "airflow.api.auth.backend.deny_all",
        "airflow.contrib.secrets.hashicorp_vault.VaultBackend",
    }
)
CONTRIB = "airflow.contrib.secrets"
VAULT = "airflow.providers.hashicorp.secrets.vault.VaultBackend"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "xcom_backend",
            "airflow.models.xcom.BaseXCom",
            ("remove", "its value is gone; the default of Airflow 3.9 replaces it"),
        ),
        ("secrets_backend", f"{CONTRIB}.hashicorp_vault.VaultBackend", ("change", VAULT)),
        ("auth_manager", "airflow.auth.managers.fab.fab_auth_manager.FabAuthManager", None),
        (
            "auth_manager",
            "airflow.old.CONFIG",
            ("remove", "airflow.old.CONFIG is gone, and nothing took its place"),
        ),
        ("auth_manager", "airflow.api.auth.backend.deny_all, airflow.api.auth.backend.session", None),
        ("xcom_backend", "airflow.still.There", None),
        ("xcom_backend", "our.own.XCom", None),
    ],
)
def test_path_in_a_value(name: str, value: str, expected: tuple[str, str] | None) -> None:
    """The default where that stands for it, else the new path, else nothing."""
    assert said(file_of("core", name, value), GONE) == ([] if expected is None else [expected])


def test_a_value_that_goes_to_a_provider_with_its_option() -> None:
    """Where the provider is installed, the new value is for the new name; where it is not, both are left open."""
    options = file_of(
        "api", "auth_backends", "airflow.api.auth.backend.deny_all, airflow.api.auth.backend.session"
    )
    moves = {**TARGET.moves, ("api", "auth_backends"): ("fab", "auth_backends")}
    bare = replace(TARGET, moves=moves)
    assert findings(options, bare, GONE) == ()
    assert len([*not_judged(options, bare)]) == 1
    there = replace(bare, options={**TARGET.options, ("fab", "auth_backends"): None})
    assert [(each.option, each.to) for each in findings(options, there, GONE)] == [
        ("[api] auth_backends", "[fab] auth_backends"),
        ("[fab] auth_backends", "airflow.providers.fab.auth_manager.api.auth.backend.session"),
    ]


def test_values_that_only_look_like_paths() -> None:
    """Hosts, file names and names of applications are none; those of providers are not looked at."""
    variables = {
        "AIRFLOW__METRICS__STATSD_HOST": "airflow.statsd.example",
        "AIRFLOW__KERBEROS__KEYTAB": "airflow.keytab",
        "AIRFLOW__CELERY__CELERY_APP_NAME": "airflow.executors.celery_executor",
        "AIRFLOW__CELERY__RESULT_BACKEND": "db+postgresql://airflow:x@airflow.db/airflow",
        "AIRFLOW__SECRETS__BACKEND": "airflow.providers.x.Backend",
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.a.B",
    }
    assert class_paths(from_environment(variables)) == {"airflow.a.B"}


def test_function_behind_a_colon() -> None:
    """So Airflow 1.10 wrote the host name's function."""
    target = Target("3.9", {("core", "hostname_callable"): "airflow.utils.net.getfqdn"}, {}, {})
    (found,) = findings(file_of("core", "hostname_callable", "socket:getfqdn"), target, frozenset())
    assert (found.do, found.to) == ("change", "socket.getfqdn")


def test_new_name_for_a_class_that_has_another_name_too() -> None:
    """Both are said."""
    old = "airflow.datasets.manager.DatasetManager"
    target = replace(
        TARGET,
        options={**TARGET.options, ("core", "asset_manager_class"): None},
        moves={("core", "dataset_manager_class"): ("core", "asset_manager_class")},
    )
    found = findings(file_of("core", "dataset_manager_class", old), target, frozenset({old}))
    assert [(each.do, each.to) for each in found] == [
        ("rename", "[core] asset_manager_class"),
        ("change", "airflow.assets.manager.AssetManager"),
    ]
    assert found[1].option == "[core] asset_manager_class"
