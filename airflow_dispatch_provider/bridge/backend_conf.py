# SPDX-License-Identifier: Apache-2.0
"""Airflow's configuration as one backend sees it: its own options over everybody's."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Collection, Iterator, Mapping
from configparser import InterpolationError
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, CalledProcessError, Popen
from typing import Any

from airflow.configuration import AIRFLOW_HOME, expand_env_var
from airflow.configuration import conf as airflow_conf
from airflow.exceptions import AirflowConfigException
from airflow.providers_manager import ProvidersManager
from psutil import Process, wait_procs

from airflow_dispatch_provider.bridge.slow_failures import SlowFailures
from airflow_dispatch_provider.bridge.users_code import bounded
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.exceptions import DispatchError, Problem, TookTooLong
from airflow_dispatch_provider.masking import kind_of
from airflow_dispatch_provider.settings.given import misnamed
from airflow_dispatch_provider.settings.model import Settings
from airflow_dispatch_provider.settings.options import SECTION
from airflow_dispatch_provider.settings.parse import in_variable
from airflow_dispatch_provider.settings.presets import Hybrid
from airflow_dispatch_provider.settings.source import SettingsSource

PREFIX = "AIRFLOW_DISPATCH__"
FORMS = ("", "_cmd", "_secret")
"""Ends of an option's name: for its value, for a command, and for a key of the secrets backend that give it."""

COMMAND_TIMEOUT = 10.0
"""Seconds for one command; it runs on the scheduler's thread."""


class NotGiven(DispatchError, AirflowConfigException):
    """A command or the secrets backend gives no value. Its text quotes nothing of what they said."""


class EmptyValue(NotGiven):
    """They give an empty text. Whoever reads it would take a default of its own, e.g. another broker."""


def settings_source(conf: Any, hybrid: Hybrid | None = None) -> SettingsSource:
    """The settings of ``[dispatch]`` as ``conf`` (global, or a team's ExecutorConf) has them, for a router with or
    without a preset. Reads nothing yet."""
    once, team = RunOnce(conf), getattr(conf, "team_name", None)

    def options_given() -> Collection[str]:
        once.forget_failures()  # each time that everything is read
        return _options_of(team) if team else _options_given()

    copies = Path(AIRFLOW_HOME, "dispatch-last-good")
    section = f"{team}={SECTION}" if team else SECTION
    return SettingsSource(once, options_given, hybrid, _parallelism, copies, section)


def _parallelism() -> int:
    """Of the scheduler, which all teams share; 1 where it is no such number, with which no scheduler starts."""
    try:
        return max(1, airflow_conf.getint("core", "parallelism"))
    except (AirflowConfigException, ValueError):
        return 1


def several_teams() -> bool:
    """Whether executors belong to teams; False where that cannot be read, with which no scheduler starts."""
    try:
        return airflow_conf.getboolean("core", "multi_team", fallback=False)
    except (AirflowConfigException, ValueError):
        return False


def _options_given() -> Collection[str]:
    """Names of all options in ``[dispatch]``, by whatever source; of a variable that is meant for one, but is not read,
    the name as it is. Runs no command."""
    if not AIRFLOW_V_3_2_PLUS:
        # Until then Airflow 3.1 does not know that ``backends`` may come from a command or a secret.
        manager: Any = ProvidersManager
        manager().initialize_providers_configuration()
    start = f"AIRFLOW__{SECTION.upper()}__"
    variables = [
        name.removeprefix(start).lower() if name.isupper() and name.startswith(start) else name
        for name in os.environ
        if name.upper().startswith(start) or misnamed(name)
    ]
    return [*(airflow_conf.options(SECTION) if airflow_conf.has_section(SECTION) else ()), *variables]


def _options_of(team: str) -> Collection[str]:
    """Names of a team's own options of ``[dispatch]``: Airflow asks for no others."""
    section, start = f"{team}={SECTION}", f"AIRFLOW__{team}___{SECTION}__".upper()
    variables = [name.removeprefix(start).lower() for name in os.environ if name.startswith(start)]
    return [*(airflow_conf.options(section) if airflow_conf.has_section(section) else ()), *variables]


def unread_options(settings: Settings) -> Iterator[Problem]:
    """Options under a name that Airflow 2 still took, with a warning, and Airflow 3 does not."""
    set_in_environment = any(name.startswith("AIRFLOW__KUBERNETES__") for name in os.environ)
    there = set_in_environment or airflow_conf.has_section("kubernetes")
    if there and "KubernetesExecutor" in settings.executors:
        remedy = "Move its options to [kubernetes_executor], where Airflow reads them since 2.5."
        yield Problem("[kubernetes]", "Airflow 3 reads nothing of this section.", remedy)


def environment_variable(backend: str, section: str, key: str) -> str:
    """The variable that overrides one option of one backend."""
    return PREFIX + "__".join(map(in_variable, (backend, section, key)))


def read_as(getter: str, text: str, **kwargs: Any) -> Any:
    """The value that a getter of Airflow's configuration, e.g. ``getint``, reads from this text. Raises ValueError
    where it cannot read it; the text is no part of that error."""
    try:
        return getattr(type(airflow_conf), getter)(_Text(text), "", "", **kwargs)
    except (AirflowConfigException, ValueError):
        raise ValueError(getter) from None


class _Text:
    """Stands in for Airflow's parser, where its own getters ask for the text that they are to convert."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get(self, *args: Any, **kwargs: Any) -> str:
        return self._text


def automatic(text: str) -> str | int | float | bool:
    """The value that ``getsection`` of Airflow's configuration reads from a text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return {"t": True, "true": True, "f": False, "false": False}.get(text.lower(), text)


class RunOnce:
    """Airflow's configuration, global or of a team, for several who read the same options: each command is run, and
    each secret asked for, once and for at most ``COMMAND_TIMEOUT``."""

    def __init__(self, base: Any) -> None:
        """
        :param base: ``airflow.configuration.conf`` or an ExecutorConf
        """
        self._base = base
        self._found: dict[tuple[str, str], str | NotGiven | None] = {}
        self._slow = SlowFailures()

    def __reduce__(self) -> tuple[Any, ...]:
        return RunOnce, (self._base,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def get(self, section: str, key: str, *args: Any, **kwargs: Any) -> Any:
        if not _may_be_command(section, key):
            return self._base.get(section, key, *args, **kwargs)
        text = self._text(section.lower(), key.lower())
        if text is None and "fallback" not in kwargs:
            return self._base.get(section, key, *args, **kwargs)
        return kwargs["fallback"] if text is None else text

    def get_mandatory_value(self, section: str, key: str, **kwargs: Any) -> str:
        if _may_be_command(section, key) and (text := self._text(section.lower(), key.lower())) is not None:
            return text
        return str(_getter(self._base, "get_mandatory_value")(section, key, **kwargs))

    def has_option(self, section: str, option: str, **kwargs: Any) -> bool:
        if _may_be_command(section, option):
            return self._text(section.lower(), option.lower()) is not None
        return bool(_getter(self._base, "has_option")(section, option, **kwargs))

    def _text(self, section: str, key: str) -> str | None:
        if (section, key) not in self._found:
            with self._slow.timed((section, key)):
                self._keep(section, key)
        found = self._found[section, key]
        if isinstance(found, NotGiven):
            raise found.with_traceback(None)
        return found

    def _ask(self, section: str, key: str) -> str | NotGiven | None:
        of, names = f"for [{section}] {key}", (f"{key}_cmd", f"{key}_secret")
        options = {name: text for name in names if (text := self._base.get(section, name, fallback=None))}
        team: str | None = getattr(self._base, "team_name", None)
        if options and not is_given(section, key, team):
            # Airflow would go on with a default of its own where they give nothing.
            if team:
                return NotGiven(f"The command or secret {of} is not read for a team.")
            return _asked(of, key, options)
        before = {*Process().children()} if options else None
        try:
            with bounded(f"the command or secret {of}", COMMAND_TIMEOUT):
                found: str | None = self._base.get(section, key, fallback=None)
        except InterpolationError:
            raise
        except Exception as error:
            if isinstance(error, TookTooLong) and before is not None:
                _end({*Process().children()} - before)
            what = error.found if isinstance(error, TookTooLong) else _failure(error)
            return NotGiven(f"The command or secret {of} {what}.")
        if options and not (found or "").strip():
            return NotGiven(f"The command or secret {of} gives no text.")
        return found

    def forget_failures(self) -> None:
        """Run commands, and ask the secrets backend, once more for what they have not given yet."""
        for key, found in list(self._found.items()):
            if not isinstance(found, str) and not self._slow.again(key, partial(self._keep, *key)):
                del self._found[key]

    def _keep(self, section: str, key: str) -> None:
        self._found[section, key] = self._ask(section, key)


def _end(processes: Collection[Process]) -> None:
    for process in processes:
        process.kill()
    wait_procs(processes, timeout=1.0)


def _failure(error: Exception) -> str:
    """How a command or a secrets backend failed, in words without the error's own, which may quote anything."""
    of_airflow = re.search(r"Error code is: (-?\d+)", str(error))  # its text for a command that fails
    code = error.returncode if isinstance(error, CalledProcessError) else of_airflow and of_airflow[1]
    if code is not None:
        return f"ended with exit code {code}"
    return f"failed ({(isinstance(error, OSError) and error.strerror) or kind_of(error)})"


def _may_be_command(section: str, key: str) -> bool:
    return (section.lower(), key.lower()) in airflow_conf.sensitive_config_values


def _getter(base: Any, name: str) -> Any:
    """ExecutorConf of Airflow 3.1 knows only ``get`` and ``getboolean``."""
    return getattr(base, name, None) or getattr(airflow_conf, name)


class BackendConf:
    """Stands in for ``executor.conf`` of one backend.

    An option comes from, in this order: the backend's environment variables, its ``config``, Airflow's own
    configuration. In both of the first, ``<option>_cmd`` and ``<option>_secret`` stand for a command and a key of
    the secrets backend that give it. Names are case-insensitive, as in Airflow, and texts are read as Airflow's own
    getters read them. Can be pickled: executors send it to their child processes; a secret that was fetched is not
    part of the pickle. Its repr names options, never values.
    """

    def __init__(self, backend: str, config: Mapping[str, Mapping[str, Any]], base: Any) -> None:
        """
        :param config: options by section
        :param base: what to ask for everything else: ``airflow.configuration.conf`` or an ExecutorConf
        """
        self._backend = backend
        self._config = {
            section.lower(): {key.lower(): str(value) for key, value in options.items()}
            for section, options in config.items()
        }
        self._base = base
        self._fetched: dict[tuple[str, str], str | NotGiven] = {}
        self._options: dict[tuple[str, str], Mapping[str, str]] = {}
        """Those with which each was fetched."""

        self._slow = SlowFailures()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetched": {}, "_options": {}, "_slow": SlowFailures()}

    def __repr__(self) -> str:
        names = ", ".join(f"{section}.{key}" for section, keys in self._config.items() for key in keys)
        return f"BackendConf({self._backend!r}, overlaid: {names or 'nothing'})"

    @property
    def team_name(self) -> str | None:
        return getattr(self._base, "team_name", None)

    def get(self, section: str, key: str, *args: Any, **kwargs: Any) -> Any:
        own = self._own(section, key)
        return self._base.get(section, key, *args, **kwargs) if own is None else own

    def get_mandatory_value(self, section: str, key: str, **kwargs: Any) -> str:
        return str(self._typed("get_mandatory_value", section, key, kwargs))

    def getint(self, section: str, key: str, **kwargs: Any) -> int:
        return int(self._typed("getint", section, key, kwargs))

    def getfloat(self, section: str, key: str, **kwargs: Any) -> float:
        return float(self._typed("getfloat", section, key, kwargs))

    def getboolean(self, section: str, key: str, **kwargs: Any) -> bool:
        return bool(self._typed("getboolean", section, key, kwargs))

    def getjson(self, section: str, key: str, **kwargs: Any) -> Any:
        return self._typed("getjson", section, key, kwargs)

    def getlist(self, section: str, key: str, delimiter: str = ",", **kwargs: Any) -> Any:
        return self._typed("getlist", section, key, {"delimiter": delimiter, **kwargs})

    def has_option(self, section: str, option: str, **kwargs: Any) -> bool:
        if self._own(section, option) is not None:
            return True
        return bool(_getter(self._base, "has_option")(section, option, **kwargs))

    def getsection(self, section: str, **kwargs: Any) -> dict[str, Any] | None:
        base: dict[str, Any] | None = _getter(self._base, "getsection")(section, **kwargs)
        texts = {key: self._own(section, key) for key in self._own_keys(section)}
        own = {key: automatic(text) for key, text in texts.items() if text is not None}
        return {**(base or {}), **own} if own else base

    def _typed(self, getter: str, section: str, key: str, kwargs: dict[str, Any]) -> Any:
        own = self._own(section, key)
        if own is None:
            return _getter(self._base, getter)(section, key, **kwargs)
        try:
            return read_as(getter, own, **kwargs)
        except ValueError:
            message = (
                f"The option [{section}] {key} of the backend {self._backend!r} has a value that {getter} "
            )
            raise AirflowConfigException(message + "cannot read. Correct it in its 'config'.") from None

    def _own_keys(self, section: str) -> list[str]:
        """Names of the options overlaid in a section."""
        start = environment_variable(self._backend, section, "")
        variables = sorted(name for name in os.environ if name.startswith(start))
        names = [*self._config.get(section.lower(), {}), *(name[len(start) :].lower() for name in variables)]
        return list(dict.fromkeys(plain_name(name) for name in names))

    def _own(self, section: str, key: str) -> str | None:
        section, key = section.lower(), key.lower()
        variables = {key + form: environment_variable(self._backend, section, key + form) for form in FORMS}
        environment = {
            name: os.environ[variable] for name, variable in variables.items() if variable in os.environ
        }
        for options in (environment, self._config.get(section, {})):
            if key in options:
                return expand_env_var(options[key])
            if f"{key}_cmd" in options or f"{key}_secret" in options:
                return self._fetch(section, key, options)
        return None

    def _fetch(self, section: str, key: str, options: Mapping[str, str]) -> str:
        if (section, key) not in self._fetched:
            with self._slow.timed((section, key)):
                self._keep(section, key, options)
        value = self._fetched[section, key]
        if isinstance(value, NotGiven):
            raise value.with_traceback(None)
        return value

    def _keep(self, section: str, key: str, options: Mapping[str, str]) -> None:
        of = f"for [{section}] {key} of the backend {self._backend!r}"
        self._options[section, key] = options
        self._fetched[section, key] = _asked(of, key, options)

    def forget_failures(self) -> None:
        """Ask commands and the secrets backend once more for what they have not given yet."""
        for key, value in list(self._fetched.items()):
            how = partial(self._keep, *key, self._options[key])
            if not isinstance(value, str) and not self._slow.again(key, how):
                del self._fetched[key]
        if isinstance(self._base, RunOnce):
            self._base.forget_failures()


def is_given(section: str, key: str, team: str | None) -> bool:
    """Whether an option has a value by itself, which goes before commands and secrets in the file. Of teams Airflow
    reads those in the environment, too, and none in the file."""
    variable = f"AIRFLOW__{team}___{section}__{key}" if team else f"AIRFLOW__{section}__{key}"
    if any((variable + form).upper() in os.environ for form in (FORMS if team else FORMS[:1])):
        return True
    name = f"{team}={section}" if team else section
    return airflow_conf.has_section(name) and key in airflow_conf.options(name)


def _asked(of: str, key: str, options: Mapping[str, str]) -> str | NotGiven:
    """The value that a command or the secrets backend gives, or why it gives none.

    :param of: the option, in words
    """
    command = options.get(f"{key}_cmd")
    kind = "secret" if command is None else "command"
    try:
        # A command has a time-out of its own, on every thread.
        with bounded(f"the {kind} {of}", COMMAND_TIMEOUT if command is None else 0):
            value = _secret(options[f"{key}_secret"]) if command is None else _printed_by(command)
    except TookTooLong as error:
        return NotGiven(f"The {kind} {of} {error.found}.")
    except Exception as error:
        return NotGiven(f"The {kind} {of} {_failure(error)}.")
    if value is None:  # Airflow's own value would be another broker, or another cluster.
        return NotGiven(f"The secret {of} cannot be found.")
    return value if value.strip() else EmptyValue(f"The command or secret {of} gives no text.")


def _printed_by(command: str) -> str:
    """Its output; raises TimeoutExpired, CalledProcessError, OSError, or ValueError where quotes are not closed. What
    it has started goes with it."""
    with Popen(
        shlex.split(command), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise CalledProcessError(process.returncode, "")
    return output.decode(errors="ignore")


def plain_name(option: str) -> str:
    """The option that ``<option>_cmd`` or ``<option>_secret`` gives."""
    return re.sub("_(cmd|secret)$", "", option)


def _secret(path: str) -> str | None:
    from airflow.configuration import get_custom_secret_backend

    backend = get_custom_secret_backend()
    return None if backend is None else backend.get_config(path)
