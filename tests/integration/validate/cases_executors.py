# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (in tables of short cases, a case is a line)
"""Mistakes in executors, and in what stands around them."""

from __future__ import annotations

from kubernetes_files import kubeconfig

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

from .cases_settings import (
    AIRFLOW_LOCAL,
    BY_NAME,
    CELERY_KUBERNETES,
    RESULTS,
    executor,
)
from .harness import ROUTER, airflow_cfg, case

EXECUTORS = [
    executor("router misspelt", "DispatchExecuter", "which is no executor of Airflow's"),
    executor("router by its short name", "DispatchExecutor", "which is no executor of Airflow's"),
    executor("router with its class misspelt", ROUTER.replace("Executor", "Executer"), "cannot be imported"),
    executor(
        "router with its module misspelt",
        ROUTER.replace("dispatch_executor", "dispatch_exekutor"),
        "cannot be imported",
    ),
    executor(
        "router with its package misspelt",
        ROUTER.replace("dispatch_provider", "dispatch_providers"),
        "cannot be imported",
    ),
    executor("another class of ours", "airflow_dispatch_provider.dispatch.loop.Loop", "which is no executor"),
    executor("function of ours", "airflow_dispatch_provider.bridge.metrics.stats", "which is no executor"),
    executor("module of somebody else", "my_company.executors.Mine", "cannot be imported", "$1"),
    executor(
        "router twice",
        f"{ROUTER},{ROUTER}",
        "twice, which Airflow refuses",
        ROUTER,
        remedy="Remove one of the two.",
    ),
    executor(
        "two routers",
        f"{ROUTER},{CELERY_KUBERNETES}",
        "lists two routers",
        ROUTER,
        remedy="Remove '" + CELERY_KUBERNETES,
    ),
    executor(
        "router twice by an alias",
        f"{ROUTER},again:{ROUTER}",
        "twice, which Airflow refuses",
        ROUTER,
        remedy="Remove one of the two.",
    ),
    executor(
        "executor of Airflow's twice, by name and by import path",
        f"{ROUTER},LocalExecutor,{AIRFLOW_LOCAL}",
        "twice, which Airflow refuses",
        f"{ROUTER},LocalExecutor",
        remedy="Remove one of the two.",
    ),
    executor(
        "alias of two",
        f"x:{ROUTER},x:{AIRFLOW_LOCAL}",
        "lists two executors as 'x'",
        f"x:{ROUTER},y:{AIRFLOW_LOCAL}",
        remedy="an alias of its own",
    ),
    executor(
        "team without teams",
        f";blue={ROUTER}",
        "and Airflow passes over them",
        "",
        remedy="or leave them out",
        severity="warning",
        cfg=airflow_cfg(executor=f"{ROUTER}<>"),
        when=AIRFLOW_V_3_2_PLUS,
    ),
    executor(
        "team where Airflow has none",
        f";blue={ROUTER}",
        "is refused by Airflow",
        "",
        remedy="Correct it",
        cfg=airflow_cfg(executor=f"{ROUTER}<>"),
        when=not AIRFLOW_V_3_2_PLUS,
    ),
    executor(
        "team twice",
        f"{ROUTER};blue=LocalExecutor;blue=CeleryExecutor",
        "is refused by Airflow: Team 'blue' appears more than once",
        f"{ROUTER};blue=LocalExecutor",
        remedy="Correct it",
        cfg=airflow_cfg(executor="<>").replace("parallelism", "multi_team = True\nparallelism"),
        when=AIRFLOW_V_3_2_PLUS,
    ),
    executor("empty entry", f"{ROUTER},", "has an empty entry", ROUTER, remedy="separated by single commas"),
    executor(
        "two aliases", f"x:y:{ROUTER}", "has the entry", f"x:{ROUTER}", remedy="separated by single commas"
    ),
    executor("URL", "redis://:hunter2@h/0", "has the entry what can be no name", ROUTER, remedy="Give names"),
    executor("word with an @", "hunter2@h", "lists what can be no name", "$1"),
    executor(
        "second executor misspelt",
        f"{ROUTER},CeleryExecuter",
        "which is no executor of Airflow's",
        f"{ROUTER},$1",
    ),
    executor(
        "alias of a name",
        f"{ROUTER},x:LocalExecutor",
        "takes no name after an alias",
        f"{ROUTER},x:airflow.executors.local_executor.LocalExecutor",
        remedy="import path",
        when=not AIRFLOW_V_3_2_PLUS,
    ),
    executor(
        "by name, without a backend of that name",
        f"{ROUTER},CeleryExecutor:{BY_NAME}.CeleryExecutor",
        "no backend has an executor of that name",
        ROUTER,
        remedy="or remove it from the list",
    ),
    executor(
        "by name, before the router",
        f"LocalExecutor:{BY_NAME}.LocalExecutor,{ROUTER}",
        "before the router",
        f"{ROUTER},LocalExecutor:{BY_NAME}.LocalExecutor",
        remedy=f"Put {ROUTER} first.",
    ),
    executor(
        "another executor before the router",
        f"LocalExecutor,{ROUTER}",
        "has 'LocalExecutor' before the router",
        f"{ROUTER},LocalExecutor",
        remedy=f"Put '{ROUTER}' first.",
        severity="warning",
    ),
    executor(
        "not the router",
        "LocalExecutor",
        "nothing of [dispatch] is in use",
        severity="warning",
        when=AIRFLOW_V_3_2_PLUS,
    ),
]

AROUND = [
    case(
        "parallelism in words",
        "x",
        "[core] parallelism",
        "the scheduler does not start",
        "$e",
        cfg=airflow_cfg(
            backends="",
            routes=None,
            default=None,
            executor=CELERY_KUBERNETES,
            more=f"[celery]\nbroker_url = redis://h:6379/0\n{RESULTS}\n[kubernetes_executor]\nin_cluster = False\nconfig_file = {{home}}/kubeconfig\nnamespace = n\nworker_container_repository = r\nworker_container_tag = 1",
        ).replace("= 64", "= <>"),
        files={"kubeconfig": kubeconfig()},
    ),
    case(
        "teams in words",
        "maybe",
        "[core] multi_team",
        "the scheduler does not start",
        "$e",
        cfg=airflow_cfg().replace("parallelism", "multi_team = <>\nparallelism"),
        when=AIRFLOW_V_3_2_PLUS,
    ),
    case(
        "parallelism zero",
        "0",
        "[core] parallelism",
        "the scheduler does not start",
        "$e",
        cfg=airflow_cfg().replace("= 64", "= <>"),
    ),
    case(
        "parallelism negative",
        "-1",
        "[core] parallelism",
        "the scheduler does not start",
        "$e",
        cfg=airflow_cfg().replace("= 64", "= <>"),
    ),
    case(
        "parallelism text",
        "lots",
        "[core] parallelism",
        "the scheduler does not start",
        "$e",
        cfg=airflow_cfg().replace("= 64", "= <>"),
    ),
    case(
        "fewer than the slots",
        "7",
        "[core] parallelism",
        "less than the 8 slots",
        "8",
        "Give at least 8:",
        cfg=airflow_cfg().replace("= 64", "= <>"),
        severity="warning",
    ),
    case(
        "no secret for tokens",
        "",
        "[api_auth] jwt_secret",
        "every task fails with 'Invalid auth token'",
        "one-long-random-text",
        "Set it to the same",
        cfg=airflow_cfg().replace("of-a-test", "<>"),
        severity="warning",
    ),
    case(
        "execution API without a scheme",
        "api:8080/execution/",
        "[core] execution_api_server_url",
        "is no URL",
        "$e",
        cfg=airflow_cfg().replace("[api_auth]", "execution_api_server_url = <>\n[api_auth]"),
    ),
    case(
        "execution API without a host",
        "http:///execution/",
        "[core] execution_api_server_url",
        "is no URL",
        "$e",
        cfg=airflow_cfg().replace("[api_auth]", "execution_api_server_url = <>\n[api_auth]"),
    ),
    case(
        "connection tests that nothing runs",
        "tests.integration.validate.executors.TasksOnly",
        "[dispatch] backends",
        "no backend can run connection tests",
        "LocalExecutor",
        "e.g. a LocalExecutor",
        cfg=airflow_cfg(backends='{"a": {"executor": "<>", "slots": 1}}', routes=None).replace(
            "[api_auth]", "test_connection = Enabled\n[api_auth]"
        ),
        severity="warning",
        when=AIRFLOW_V_3_3_PLUS,
    ),
]

CASES = [*EXECUTORS, *AROUND]
