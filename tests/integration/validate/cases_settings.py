# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (in tables of short cases, a case is a line)
"""Mistakes in ``[dispatch]``, in the routing file, in ``[core] executor`` and in what Airflow itself needs."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from .harness import LOCAL, ROUTER, Case, airflow_cfg, case

AB = f'{{"a": {LOCAL}, "b": {LOCAL}}}'
RESULTS = "result_backend = db+sqlite:////tmp/r.db"
ONE_BACKEND = f'{{"a": {LOCAL}}}'
BY_NAME = "airflow_dispatch_provider.executors.by_name"
CELERY_KUBERNETES = "airflow_dispatch_provider.executors.celery_kubernetes_executor.CeleryKubernetesExecutor"
AIRFLOW_LOCAL = "airflow.executors.local_executor.LocalExecutor"


def option(name: str, wrong: str, found: str, mended: str = "$e", **more: Any) -> Case:
    """An option of ``[dispatch]`` besides backends, routes and default."""
    key = name.split()[0]
    return case(name, wrong, f"[dispatch] {key}", found, mended, cfg=airflow_cfg(more=f"{key} = <>"), **more)


def executor(name: str, wrong: str, found: str, mended: str = "$1", **more: Any) -> Case:
    """``[core] executor``."""
    more.setdefault("cfg", airflow_cfg(executor="<>"))
    return case(name, wrong, "[core] executor", found, mended, **more)


def backend(name: str, wrong: str, where: str, found: str, mended: str = "$e", remedy: str = "") -> Case:
    """Settings of the backend ``b``."""
    cfg = airflow_cfg(backends=f'{{"a": {LOCAL}, "b": {{<>}}}}')
    return case(name, wrong, f"[dispatch] backends.b{where}", found, mended, remedy, cfg=cfg)


OPTIONS = [
    *(
        option(f"{key} {wrong}", wrong, f"found {shown}")
        for key in ("max_held", "celery_max_unsent", "kubernetes_max_unsent", "kubernetes_concurrency")
        for wrong, shown in (("0", "0"), ("-5", "-5"), ("many", '"many"'), ("1.5", '"1.5"'))
    ),
    option("launch_retries -1", "-1", "found -1"),
    option("max_held with a unit", "10k", 'found "10k"'),
    option("retry_min_delay zero", "0", "found 0"),
    option("retry_min_delay negative", "-1", "found -1"),
    option("retry_min_delay with a unit", "5s", 'found "5s"'),
    option("retry_min_delay above the default of the other", "90", "more than retry_max_delay (60)"),
    option("retry_max_delay text", "soon", 'found "soon"'),
    option("retry_max_delay zero", "0", "found 0"),
    option("local_template unknown", "forkserver", 'found "forkserver"'),
    option("local_template in upper case", "Fork", 'found "Fork"'),
    option("local_preload a list of Python", "['pandas']", "found "),
    option("local_preload a path", "plugins/my.py", "found "),
    option(
        "local_preload of what is not there",
        "no_such_module_at_all",
        "cannot be found",
        "json",
        remedy="Install it for the scheduler, or leave it out.",
        severity="warning",
    ),
    option("on_refused_file unknown", "ignore", 'found "ignore"'),
    case(
        "option misspelt",
        "max_hold = 5",
        "[dispatch] max_hold",
        "is not a known option.",
        "$1 = 5",
        cfg=airflow_cfg(more="<>"),
    ),
    *(
        case(
            f"variable {variable}",
            variable,
            variable,
            "is not read: no option is set by this name.",
            "$1",
            cfg=airflow_cfg(**{**{"backends": "", "routes": None, "default": None}, **left}),
            env={"<>": value},
            files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
        )
        for variable, value, left in (
            ("AIRFLOW_DISPATCH__BACKENDS", f'{{"a": {LOCAL}}}', {}),
            ("AIRFLOW_DISPATCH__BACKENDS_CMD", f"echo '{{\"a\": {LOCAL}}}'", {}),
            ("AIRFLOW_DISPATCH__CONFIG_FILE", "{home}/d.yaml", {}),
            ("AIRFLOW__DISPATCH_CONFIG_FILE", "{home}/d.yaml", {}),
            ("AIRFLOW_DISPATCHER__CONFIG_FILE", "{home}/d.yaml", {}),
            ("AIRFLOW_DISPATCH__MAX_HELD", "5", {"backends": f'{{"a": {LOCAL}}}'}),
            ("AIRFLOW_DISPATCH__LOCAL_PRELOAD", "json", {"backends": f'{{"local": {LOCAL}}}'}),
        )
    ),
    case(
        "config_file and backends",
        "config_file = {home}/d.yaml",
        "[dispatch] config_file",
        "is set, and so is backends.",
        "",
        "remove one or the others",
        cfg=airflow_cfg(backends=f'{{"a": {LOCAL}}}', routes=None, default=None, more="<>"),
        files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
    ),
    case(
        "config_file that is not there, and backends",
        "config_file = {home}/none.yaml",
        "[dispatch] config_file",
        "is set, and so is backends.",
        "",
        "remove one or the others",
        cfg=airflow_cfg(backends=f'{{"a": {LOCAL}}}', routes=None, default=None, more="<>"),
    ),
    *(
        case(
            f"variable in small letters, {option}",
            f"airflow__dispatch__{option}",
            f"airflow__dispatch__{option}",
            "not all of its letters are capitals",
            "$1",
            cfg=airflow_cfg(**{"default": "a", "routes": None, "backends": f'{{"a": {LOCAL}}}', option: None})
            if option in ("backends", "default")
            else airflow_cfg(backends="", routes=None, default=None),
            env={"<>": value},
            files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
        )
        for option, value in (
            ("backends", f'{{"a": {LOCAL}}}'),
            ("default", "a"),
            ("config_file", "{home}/d.yaml"),
        )
    ),
    case(
        "variable in mixed letters, an option of an executor",
        "AIRFLOW__DISPATCH__local_preload",
        "AIRFLOW__DISPATCH__local_preload",
        "not all of its letters are capitals",
        "$1",
        env={"<>": "json"},
    ),
    case(
        "config_file with a URL",
        "https://u:hunter2@h/d.yaml",
        "[dispatch] config_file",
        "found https://***@h/d.yaml, which cannot be read",
        "{home}/d.yaml",
        "Give the path of a YAML file",
        cfg=airflow_cfg(backends="", routes=None, default=None, more="config_file = <>"),
        files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
    ),
    case(
        "config_file that is not there",
        "{home}/dd.yaml",
        "[dispatch] config_file",
        "No such file",
        "{home}/d.yaml",
        "Give the path of a YAML file",
        cfg=airflow_cfg(backends="", routes=None, default=None, more="config_file = <>"),
        files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
    ),
    case(
        "config_file that is a folder",
        "{home}",
        "[dispatch] config_file",
        "is a folder",
        "{home}/d.yaml",
        "Give the path of a YAML file",
        cfg=airflow_cfg(backends="", routes=None, default=None, more="config_file = <>"),
        files={"d.yaml": f"backends: {{a: {LOCAL}}}"},
    ),
]

BACKENDS = [
    case(
        "names that share variables",
        "a_b",
        "[dispatch] backends.a_b",
        "shares the variables AIRFLOW_DISPATCH__A_B__... with",
        "$1",
        cfg=airflow_cfg(
            backends=f'{{"a-b": {LOCAL}, "<>": {LOCAL}}}',
            routes='[{"queue": "q", "to": ["<>"]}]',
            default="a-b",
        ),
    ),
    case(
        "names that differ in case only",
        "A",
        "[dispatch] backends.A",
        "shares the variables AIRFLOW_DISPATCH__A__... with",
        "$1",
        cfg=airflow_cfg(backends=f'{{"a": {LOCAL}, "<>": {LOCAL}}}', routes='[{"queue": "q", "to": ["<>"]}]'),
    ),
    case(
        "name of the router",
        "DispatchExecutor",
        "[dispatch] backends.DispatchExecutor",
        "whose metrics it would overwrite",
        "$1",
        cfg=airflow_cfg(backends=f'{{"a": {LOCAL}, "<>": {LOCAL}}}', routes='[{"queue": "q", "to": ["<>"]}]'),
    ),
    backend(
        "slots zero",
        '"executor": "LocalExecutor", "slots": 0',
        ".slots",
        "found 0",
        '"executor": "LocalExecutor", "slots": 16',
        "e.g. 16",
    ),
    backend(
        "slots in quotes",
        '"executor": "LocalExecutor", "slots": "8"',
        ".slots",
        'found "8"',
        '"executor": "LocalExecutor", "slots": 8',
        "Give a whole number",
    ),
    backend(
        "slots missing",
        '"executor": "LocalExecutor"',
        ".slots",
        "is missing",
        '"executor": "LocalExecutor", "slots": 16',
        "e.g. 16",
    ),
    backend(
        "executor misspelt",
        '"executor": "LocalExecuter", "slots": 1',
        ".executor",
        "no executor's name",
        '"executor": "$1", "slots": 1',
    ),
    backend(
        "key misspelt",
        '"executor": "LocalExecutor", "slot": 1, "slots": 1',
        ".slot",
        "is not a known key",
        '"executor": "LocalExecutor", "$1": 1',
        "Did you mean",
    ),
    backend(
        "option of an executor, of this backend alone",
        '"executor": "LocalExecutor", "slots": 1, "config": {"dispatch": {"local_template": "spawn"}}',
        ".config.dispatch.local_template",
        'found "spawn"',
        '"executor": "LocalExecutor", "slots": 1, "config": {"dispatch": {"local_template": "fork"}}',
        "Give fork or exec",
    ),
    case(
        "backend that nothing uses",
        f', "c": {LOCAL}',
        "[dispatch] backends.c",
        "no route and no default names it",
        "",
        "or remove it",
        cfg=airflow_cfg(backends=f'{{"a": {LOCAL}, "b": {LOCAL}<>}}'),
        severity="warning",
    ),
    case(
        "every target cordoned",
        "true",
        "[dispatch] routes[0]",
        "all its targets are cordoned",
        "false",
        "Take 'cordoned' off one of them: b.",
        cfg=airflow_cfg(
            backends=f'{{"a": {LOCAL}, "b": {{"executor": "LocalExecutor", "slots": 1, "cordoned": <>}}}}'
        ),
        severity="warning",
    ),
    case(
        "target misspelt",
        "bb",
        "[dispatch] routes[0].to[0]",
        "which is not configured",
        "$1",
        cfg=airflow_cfg(routes='[{"queue": "q", "to": ["<>"]}]'),
    ),
    case(
        "to is text",
        '"b"',
        "[dispatch] routes[0].to",
        'found "b"',
        "$e",
        cfg=airflow_cfg(routes='[{"queue": "q", "to": <>}]'),
        also_mended=(('"a"]', '"b"]'),),
    ),
    case(
        "default missing",
        "",
        "[dispatch] default",
        "is missing",
        "default = $1",
        cfg=airflow_cfg(default=None, more="<>"),
    ),
    case(
        "routes with too many values",
        ", ".join(f'{{"queue": "q{n}", "to": ["b"]}}' for n in range(8000)),
        "[dispatch] routes",
        "has more than 30000 values",
        '{"queue": "q*", "to": ["b"]}',
        "Write out what the routes and backends need",
        cfg=airflow_cfg(routes="[<>]"),
    ),
    case(
        "routes that are too long",
        f'{{"queue": "{"q" * 1_000_001}", "to": ["b"]}}',
        "[dispatch] routes",
        "is longer than 1000000 bytes",
        '{"queue": "q*", "to": ["b"]}',
        "Write out what the routes and backends need",
        cfg=airflow_cfg(routes="[<>]"),
    ),
    case(
        "backends that are nested too deeply",
        "[" * 50 + "]" * 50,
        "[dispatch] backends",
        "is nested too deeply",
        f'{{"a": {LOCAL}, "b": {LOCAL}}}',
        "Give an object of backends",
        cfg=airflow_cfg(backends="<>"),
    ),
    case(
        "default is no JSON", '["a"', "[dispatch] default", "is not JSON", "$1", cfg=airflow_cfg(default="<>")
    ),
    case(
        "default misspelt",
        "aa",
        "[dispatch] default",
        'found the backend "aa", which is not configured.',
        "$1",
        cfg=airflow_cfg(default="<>"),
    ),
    case(
        "one target and overflow_after",
        ', "overflow_after": 5',
        "[dispatch] routes[0].overflow_after",
        "nothing to overflow to",
        "",
        "leave overflow_after out",
        cfg=airflow_cfg(routes='[{"queue": "q", "to": ["b"]<>}]'),
    ),
]

CELERY = "airflow_dispatch_provider.executors.celery_executor.CeleryExecutor"


def alone(name: str, wrong: str, where: str, found: str, mended: str = "$e", **more: Any) -> Case:
    """An executor of ours that ``[core] executor`` itself lists."""
    return case(name, wrong, where, found, mended, **more)


MISSPELT = [
    *(
        case(f"backends of {form} that gives nothing", value, "[dispatch] backends", found, f"echo '{ONE_BACKEND}'", "airflow config get-value", cfg=airflow_cfg(backends="", routes=None, default=None).replace("backends = \n", ""), env={f"AIRFLOW__DISPATCH__BACKENDS_{form}": "<>"}, also_mended=((f"BACKENDS_{form}", "BACKENDS_CMD"),))
        for form, value, found in (("CMD", "true", "gives no text"), ("SECRET", "no-such", "cannot be found"))
    ),
    option("max_held with a comment", "10 # so many", "found", "10", remedy="Give a comment a line of its own"),
    case("file by a relative path", "d.yaml", "[dispatch] config_file", "the relative path", "$e", severity="warning", cfg=airflow_cfg(backends="", routes=None, default=None, more="config_file = <>"), files={"d.yaml": f"backends: {{a: {LOCAL}}}"}),
    case("slots for want of workers", ', "fallback_slots": 3', "[dispatch] backends.a.fallback_slots", "is not used", "", "Leave it out", severity="warning", cfg=airflow_cfg(backends=f'{{"a": {LOCAL[:-1]}<>}}, "b": {LOCAL}}}')),
    backend("executor that is gone", '"executor": "SequentialExecutor", "slots": 1', ".executor", "no executor's name", '"executor": "$1", "slots": 1'),
    backend("executor of Airflow 2", '"executor": "airflow.executors.local_executors.LocalExecutor", "slots": 1', ".executor", "cannot be imported", '"executor": "LocalExecutor", "slots": 1', "or give LocalExecutor"),
    backend("executor of a backend", '"executr": "LocalExecutor", "slots": 1', ".executr", "not a known key", '"$1": "LocalExecutor", "slots": 1'),
    backend("slots of a backend", '"executor": "LocalExecutor", "slot": 1', ".slot", "not a known key", '"executor": "LocalExecutor", "$1": 1'),
    case("queue of a route", "que", "[dispatch] routes[0].que", "not a known key", "$1", cfg=airflow_cfg(routes='[{"<>": "q", "to": ["b"]}]')),
    case("backends", "backend", "[dispatch] backend", "not a known option", "$1", cfg=airflow_cfg(backends="", routes=None, default=None, more=f'<> = {{"a": {LOCAL}}}').replace("backends = \n", "")),
    case("variable of backends", "BACKEND", "[dispatch] backend", "not a known option", "BACKENDS", "Did you mean 'backends'", cfg=airflow_cfg(backends="", routes=None, default=None), env={"AIRFLOW__DISPATCH__<>": f'{{"a": {LOCAL}}}'}),
    case("command of a file", "config_file_cmd = echo {home}/d.yaml", "[dispatch] config_file_cmd", "not a known option", "$1 = {home}/d.yaml", cfg=airflow_cfg(backends="", routes=None, default=None, more="<>"), files={"d.yaml": f"backends: {{a: {LOCAL}}}"}),
    case("backends in backends", f'{{"backends": {AB}}}', "[dispatch] backends", "has the key backends in it once more", AB, "what stands under that", cfg=airflow_cfg(backends="<>")),
    case("default like a route", '{"to": ["a"]}', "[dispatch] default", "has the key to", "$1", cfg=airflow_cfg(default="<>")),
]  # fmt: skip


def team(name: str, wrong: str, where: str, found: str, mended: str, remedy: str = "", **more: Any) -> Case:
    """A hole in the section of a team that has a router of its own, beside everybody's."""
    cfg = airflow_cfg(executor=f"{ROUTER};blue={ROUTER}", more="[blue=dispatch]\n<>").replace(
        "parallelism", "multi_team = True\nparallelism"
    )
    return case(name, wrong, where, found, mended, remedy, cfg=cfg, when=AIRFLOW_V_3_2_PLUS, **more)


ONE = f'{{"a": {LOCAL}}}'
TEAMS = [
    team("team's backends missing", "", "[blue=dispatch] backends", "is missing", f"backends = {ONE}", "Give an object"),
    team("team's backends misspelt", f"backend = {ONE}", "[blue=dispatch] backend", "not a known option", f"$1 = {ONE}"),
    team("team's default", f"backends = {ONE}\ndefault = b", "[blue=dispatch] default", "not configured", f"backends = {ONE}\ndefault = a", "Known: 'a'"),
    team("team's executor", f"backends = {ONE.replace('LocalExecutor', 'json.JSONDecoder')}", "[blue=dispatch] backends.a.executor", "is not an executor", f"backends = {ONE}", "Correct"),
    case("team's variable misspelt", "BACKEND", "[blue=dispatch] backend", "not a known option", "MAX_HELD", "Did you mean", cfg=airflow_cfg(executor=f"{ROUTER};blue={ROUTER}", more=f"[blue=dispatch]\nbackends = {ONE}").replace("parallelism", "multi_team = True\nparallelism"), env={"AIRFLOW__BLUE___DISPATCH__<>": "5"}, when=AIRFLOW_V_3_2_PLUS),
]  # fmt: skip

ALONE = [
    alone(
        "broker of an executor that runs alone",
        "nonsense",
        "[celery] broker_url",
        "is not a URL",
        cfg=airflow_cfg(
            backends="", routes=None, default=None, executor=CELERY, more=f"[celery]\nbroker_url = <>\n{RESULTS}"
        ),
    ),
    alone(
        "broker of an executor beside the router",
        "nonsense",
        "[celery] broker_url",
        "is not a URL",
        cfg=airflow_cfg(executor=f"{ROUTER},{CELERY}", more=f"[celery]\nbroker_url = <>\n{RESULTS}"),
    ),
    alone(
        "number of an executor that runs alone",
        "x",
        "[celery] operation_timeout",
        "not a number",
        cfg=airflow_cfg(
            backends="",
            routes=None,
            default=None,
            executor=CELERY,
            more=f"[celery]\noperation_timeout = <>\nbroker_url = redis://h:6379/0\n{RESULTS}",
        ),
    ),
    alone(
        "bound of an executor that runs alone",
        "x",
        "[dispatch] celery_max_unsent",
        "found",
        cfg=airflow_cfg(
            backends="",
            routes=None,
            default=None,
            executor=CELERY,
            more=f"celery_max_unsent = <>\n[celery]\nbroker_url = redis://h:6379/0\n{RESULTS}",
        ),
    ),
]  # fmt: skip

CASES = [*TEAMS, *MISSPELT, *ALONE, *OPTIONS, *BACKENDS]
