# SPDX-License-Identifier: Apache-2.0
"""Options that the target Airflow does not read as they are set: those that the rules of ``airflow config lint`` name,
and those that they do not know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from airflow_dispatch_provider.migration.options import Key, Option, Options, is_true, today

TIMEOUT: Key = ("scheduler", "task_queued_timeout")
"""Replaces three time-outs since Airflow 2.6; up to 2.11 the scheduler took the largest of all four."""

POD_TEMPLATE = "belongs in the file of [kubernetes_executor] pod_template_file"

_GONE_SECTIONS = frozenset({"admin", "dask", "debug", "mesos", "smart_sensor", "webserver"})
"""Sections of Airflow 1.10 and 2 of which nothing is left; some of their options went elsewhere."""

_ANY_OPTION = re.compile(r"sentry|dispatch|.*(_transport_options|_configs)")
"""Sections whose options are passed on, whatever they are called."""

_PATH_OPTION = re.compile(
    r"(?:.*_)?(?:backends?|class|callable|manager|factory|handler|detector|options|path)"
)
_PATH = re.compile(r"airflow(?!\.providers\.)(?:\.[A-Za-z_]\w*)+[.:][A-Za-z_]\w*")

_AUTH = "airflow.api.auth.backend."
_FAB_AUTH = "airflow.providers.fab.auth_manager.api.auth.backend."
_NEW_PATHS = {
    **{f"{_AUTH}{name}": f"{_FAB_AUTH}{name}" for name in ("basic_auth", "kerberos_auth", "session")},
    "airflow.auth.managers.fab.fab_auth_manager.FabAuthManager": (
        "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    ),
    "airflow.contrib.secrets.aws_secrets_manager.SecretsManagerBackend": (
        "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
    ),
    "airflow.contrib.secrets.aws_systems_manager.SystemsManagerParameterStoreBackend": (
        "airflow.providers.amazon.aws.secrets.systems_manager.SystemsManagerParameterStoreBackend"
    ),
    "airflow.contrib.secrets.azure_key_vault.AzureKeyVaultBackend": (
        "airflow.providers.microsoft.azure.secrets.key_vault.AzureKeyVaultBackend"
    ),
    "airflow.contrib.secrets.gcp_secrets_manager.CloudSecretsManagerBackend": (
        "airflow.providers.google.cloud.secrets.secret_manager.CloudSecretManagerBackend"
    ),
    "airflow.contrib.secrets.hashicorp_vault.VaultBackend": "airflow.providers.hashicorp.secrets.vault.VaultBackend",
    "airflow.contrib.utils.sendgrid.send_email": "airflow.providers.sendgrid.utils.emailer.send_email",
    "airflow.datasets.manager.DatasetManager": "airflow.assets.manager.AssetManager",
}
"""Classes that moved to a provider, or got another name."""

_PROVIDERS = {
    "kubernetes_executor": "apache-airflow-providers-cncf-kubernetes",
    "fab": "apache-airflow-providers-fab",
}
"""Which provider describes the options that Airflow once had in another section."""

_PROVIDER_PATH = re.compile(
    r"airflow\.providers\.((?:(?:apache|atlassian|cncf|common|dbt|microsoft)\.)?[a-z0-9_]+)\."
)
_LOG_PROVIDERS = {
    "s3://": "amazon",
    "cloudwatch://": "amazon",
    "gs://": "google",
    "stackdriver://": "google",
    "wasb": "microsoft.azure",
    "oss://": "alibaba",
    "hdfs://": "apache.hdfs",
}
"""By the beginning of ``[logging] remote_base_log_folder``, as Airflow's ``airflow_local_settings`` imports them."""

_URLS = ("sql_alchemy_conn", "result_backend")
_DATABASE = re.compile(r"(?:db\+)?(postgres|mysql)\w*(?:\+\w+)?://")
"""The scheme of a database whose driver a provider of Airflow brings along, named as that provider."""

_OLDEST = {("celery", "celeryd_concurrency"): ("celery", "worker_concurrency")}
"""Names that Airflow 1.10 still read. Others of that age begin with the name of their section."""


@dataclass(frozen=True)
class Target:
    """An Airflow's knowledge about options, as plain data."""

    version: str
    options: Mapping[Key, str | None]
    """The default of each option that Airflow or a provider describes; of sensitive ones also with ``_cmd`` and
    ``_secret``."""

    moves: Mapping[Key, Key | None]
    """Where ``airflow config lint`` moves an option; None: it is gone."""

    outdated: Mapping[Key, Set[str]]
    """Values that ``airflow config lint`` wants removed, by option."""

    undescribed: Set[Key] = frozenset()
    """Options that are read without being described."""

    written: Mapping[Key, str] = field(default_factory=dict)
    """Values that Airflow puts into a new airflow.cfg for providers, which may not describe these options any more."""

    not_used: Mapping[Key, str] = field(default_factory=dict)
    """Why to remove an option that Airflow's executors use, and those of this package do not."""

    sections: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sections", frozenset(section for section, _ in self.options))

    def destination(self, key: Key) -> Key | None:
        """Where an option stands after all its moves; None: it is gone."""
        at: Key | None = key
        while at is not None and at in self.moves and at not in self.options:
            at = self.moves[at]
        known = at is None or at in self.options or at[0] not in self.sections
        return at if known else None

    def is_default(self, option: Option) -> bool:
        """Whether its value is that of an Airflow without it."""
        at = self.destination(today(option))
        return at is not None and option.value.strip() in (self.options.get(at), self.written.get(at))


@dataclass(frozen=True)
class Finding:
    """One option to change."""

    option: str
    """``[section] name``, the variable, or a whole ``[section]``. Never the value."""

    do: str
    """``rename``, ``remove`` or ``change`` (its value)."""

    to: str | None
    """The new name or value; of a value None where only ``why`` can say what it needs, as of an image."""

    why: str


def findings(
    options: Options, target: Target, missing: Set[str], overridden: Iterable[Option] = ()
) -> tuple[Finding, ...]:
    """Changes to be made by hand, in the order in which the options are set.

    :param missing: those of ``class_paths`` that the target cannot import
    :param overridden: options of the file that stand in ``options`` as a variable sets them
    """
    found = (each for option in options.values() for each in _findings(option, options, target, missing))
    left = (
        _remove(option, f"{options[option.key].label} is set, too")
        for option in overridden
        if option.key in options and _name(option, options, target) is not None
    )
    return tuple(dict.fromkeys([*found, *left]))


def queued_timeout(options: Options, target: Target) -> str | None:
    """The value of ``[scheduler] task_queued_timeout`` (s) that replaces the old time-outs; None: none was set, or
    all were 0, which meant off."""
    old = [_number(option) for option in options.values() if _is_timeout(option, target)]
    if not any(old):
        return None
    new = options.get(TIMEOUT)
    default = float(target.options.get(TIMEOUT) or 0)
    return f"{max(*old, default if new is None else _number(new)):g}"


def not_judged(options: Options, target: Target) -> Iterator[str]:
    """Doubts about options whose provider is not installed here."""
    for section, provider in _PROVIDERS.items():
        names = [option.label for option in options.values() if _needs(option, section, target)]
        if names and section not in target.sections:
            yield (
                f"What to do with {', '.join(names)}: only {provider} tells, which is not installed here. Install it if"
                " it is used, and run this command again."
            )


def named_providers(options: Options) -> tuple[str, ...]:
    """The packages of Airflow without which it cannot load what values name: classes, a place for logs, the drivers of
    databases."""
    words = (
        _NEW_PATHS.get(word, word)
        for option in options.values()
        for word in re.split(r"[\s,]+", option.value)
    )
    found = {match[1] for word in words if (match := _PROVIDER_PATH.search(word))}
    said = {option.name: option.value.strip() for option in options.values()}
    if is_true(said.get("remote_logging", "")):
        folder = said.get("remote_base_log_folder", "")
        found |= {name for start, name in _LOG_PROVIDERS.items() if folder.startswith(start)}
    found |= {match[1] for name in _URLS if (match := _DATABASE.match(said.get(name, "")))}
    return tuple(f"apache-airflow-providers-{re.sub('[._]', '-', name)}" for name in sorted(found))


def class_paths(options: Options) -> frozenset[str]:
    """The import paths in values that begin with ``airflow.``, with a dot before the last part. Those of providers are
    left out: the provider may be installed elsewhere."""
    return frozenset(path for option in options.values() for path in _paths(option))


def _number(option: Option) -> float:
    try:
        return float(option.value.partition("#")[0])
    except ValueError:
        return 0.0


def _is_timeout(option: Option, target: Target) -> bool:
    return option.key != TIMEOUT and target.destination(today(option)) == TIMEOUT


def _findings(option: Option, options: Options, target: Target, missing: Set[str]) -> Iterator[Finding]:
    """None of an option that only a provider can judge which is not installed: see ``not_judged``."""
    if any(section not in target.sections and _needs(option, section, target) for section in _PROVIDERS):
        return
    name, value = _name(option, options, target), _value(option, target, missing)
    if value is not None and value.do == "remove":
        yield value
    elif name is not None:
        yield name
        if value is not None and name.do == "rename":
            yield replace(value, option=str(name.to))
    elif value is not None:
        yield value


def _remove(option: Option, why: str) -> Finding:
    return Finding(option.label, "remove", None, why)


def _name(option: Option, options: Options, target: Target) -> Finding | None:
    section = option.section
    if section not in target.sections and _describes_pods(section):
        return Finding(f"[{section}]", "remove", None, POD_TEMPLATE)
    key = today(option)
    if key in target.not_used:
        changes_nothing = option.key == key and target.is_default(option)
        return None if changes_nothing else _remove(option, target.not_used[key])
    if key in target.moves and key not in target.options:
        return _moved(option, options, target)
    if section == "kubernetes":
        return _renamed(option, key if key in target.options else None, options, target)
    return _renamed(option, _elsewhere(key, target), options, target) if _unknown(option, target) else None


def _describes_pods(section: str) -> bool:
    return section.startswith("kubernetes_") and section != "kubernetes_executor"


def _moved(option: Option, options: Options, target: Target) -> Finding | None:
    to = target.destination(today(option))
    if to == TIMEOUT:
        return _timeout(option, options, target)
    if to is not None and to not in target.options:
        return None  # its new section is a provider's that is not installed
    return _renamed(option, to, options, target)


def _timeout(option: Option, options: Options, target: Target) -> Finding:
    value = queued_timeout(options, target)
    if value is None:
        default = float(target.options.get(TIMEOUT) or 0)
        return _remove(option, f"0 meant off; Airflow 3 has no off, and takes {default:g} s")
    return _remove(option, f"replaced by [scheduler] task_queued_timeout = {value}")


def _needs(option: Option, section: str, target: Target) -> bool:
    """Whether it is an option of that section by now, or its value a class of that provider."""
    key = today(option)
    to = target.destination(key) if key in target.moves else key
    paths = (_NEW_PATHS.get(word, word) for word in _words(option))
    moved = to is not None and to[0] == section != option.section
    return moved or any(path.startswith(f"airflow.providers.{section}.") for path in paths)


def _unknown(option: Option, target: Target) -> bool:
    """Whether Airflow describes the section, but no such option."""
    section = option.section
    judged = section in target.sections | _GONE_SECTIONS and not _ANY_OPTION.fullmatch(section)
    return judged and option.key not in target.options and option.key not in target.undescribed


def _elsewhere(key: Key, target: Target) -> Key | None:
    section, name = key
    shorter = section, name.removeprefix(f"{section}_")
    for new in (_OLDEST.get(key), shorter):
        if new in target.options:
            return new
    others = [other for other in target.options if other[1] == name and "_" in name]
    return others[0] if len(others) == 1 else None


def _renamed(option: Option, to: Key | None, options: Options, target: Target) -> Finding:
    new = None if to is None else (to[0], to[1] + _ending(option))
    if new is None or new not in target.options:
        gone = f"Airflow {target.version} describes no such option"
        pods = today(option)[0] == "kubernetes_executor" and not re.match(
            "worker_pods_|.*_(cmd|secret)$", option.name
        )
        return _remove(option, POD_TEMPLATE if pods else gone)
    if option.value in target.outdated.get(new, ()):
        return _remove(option, f"the default of Airflow 2; [{new[0]}] {new[1]} has another")
    if new in options and not _wins(option, options[new]):
        return _remove(option, f"{options[new].label} is set, too")
    return Finding(option.label, "rename", label(new, option), f"the name in Airflow {target.version}")


def _wins(old: Option, new: Option) -> bool:
    """Whether the old name counts though the new one is set: Airflow asks variables of either name before the file."""
    return old.variable is not None and new.variable is None


def _ending(option: Option) -> str:
    ending = re.search("_(cmd|secret)$", option.name)
    return ending[0] if ending else ""


def label(key: Key, like: Option) -> str:
    """Written as the old one is: as a variable, or as an option of a file."""
    section, name = key
    return f"AIRFLOW__{section}__{name}".upper() if like.variable else f"[{section}] {name}"


def _words(option: Option) -> list[str]:
    return re.split(r"[\s,]+", option.value.strip()) if _PATH_OPTION.fullmatch(option.name) else []


def _paths(option: Option) -> Iterator[str]:
    yield from (word.replace(":", ".") for word in _words(option) if _PATH.fullmatch(word))


def _value(option: Option, target: Target, missing: Set[str]) -> Finding | None:
    gone = [path for path in _paths(option) if path in missing]
    if gone and target.options.get(option.key) not in gone:
        return _gone(option, gone, target)
    if option.name == "hostname_callable" and ":" in option.value:
        return Finding(
            option.label, "change", option.value.replace(":", "."), "a dot stands before the function"
        )
    return None


def _gone(option: Option, gone: list[str], target: Target) -> Finding:
    """Of an option with paths that are gone."""
    default = target.options.get(option.key) or ""
    if default.rpartition(".")[2] == gone[0].rpartition(".")[2]:
        return _remove(option, f"its value is gone; the default of Airflow {target.version} replaces it")
    left = [_NEW_PATHS.get(word, word) for word in _words(option) if _NEW_PATHS.get(word, word) not in gone]
    if not left:
        return _remove(option, f"{', '.join(gone)} is gone, and nothing took its place")
    return Finding(option.label, "change", ",".join(left), f"gone: {', '.join(gone)}")
