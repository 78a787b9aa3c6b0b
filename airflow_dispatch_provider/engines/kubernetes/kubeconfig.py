# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig as far as it can be read without logging in: its plugins for credentials are not run.

The client's own errors quote whole entries of the file, with their keys and passwords. Here only keys and the names of
entries are told.
"""

from __future__ import annotations

import os
import re
import shutil
from base64 import standard_b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import yaml
from kubernetes.config import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from kubernetes_asyncio.config import ConfigException as AsyncConfigException

from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.settings.file import UnreadableError, read_bytes, read_file

_CERTIFICATES = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key")}
"""Keys whose values are paths, relative to the kubeconfig's folder. With ``-data``: the same in base64, which goes
first."""


class KubeconfigError(DispatchError):
    """A kubeconfig, or a part of it, cannot be used; what is wrong, as the end of a sentence about it."""


class Kubeconfig:
    """The entries that one context of a kubeconfig names. Methods raise KubeconfigError where that is not there."""

    def __init__(self, config_file: str | None, context: str | None) -> None:
        """
        :param config_file: None: the one that kubectl would take
        :param context: None: the file's current one
        :raises KubeconfigError: there is no such file, or it is no kubeconfig
        """
        paths = [os.path.expanduser(path) for path in _paths(config_file)]
        files = {path: _document(path) for path in paths if not _is_absent(path)}
        if not files:
            raise KubeconfigError("does not exist")
        current = [each["current-context"] for each in files.values() if "current-context" in each]
        self._context = context or (current or [None])[-1]
        self._entries = {kind: _merged(files, kind) for kind in ("context", "cluster", "user")}

    def server(self) -> str:
        server = self._cluster()[0].get("server")
        if not isinstance(server, str):
            raise KubeconfigError(f"its cluster {self._named('cluster')!r} has no server")
        if not re.match(r"https?://[^/]", server, re.IGNORECASE):
            raise KubeconfigError(f"the server of its cluster {self._named('cluster')!r} is no https:// URL")
        return server

    def contexts(self) -> list[str]:
        return [str(name) for name in self._entries["context"]]

    def wrong_files(self) -> Iterator[str]:
        """Mistakes in each certificate, key and token, as the end of a sentence."""
        parts = {"cluster": self._cluster()}
        if self._named("user"):
            parts["user"] = self._part("user", self._named("user"))
        https = self.server().lower().startswith("https")
        for part, (fields, folder) in parts.items():
            for key in _CERTIFICATES[part] if https else ():
                yield from _wrong_certificate(fields, key, folder)
        fields, folder = parts.get("user", ({}, ""))
        if "auth-provider" not in fields and "token" not in fields:
            yield from _wrong_file(fields, "tokenFile", folder)
        yield from _wrong_plugin(fields.get("exec"), folder)

    def _cluster(self) -> tuple[Mapping[str, Any], str]:
        return self._part("cluster", self._named("cluster"))

    def _named(self, kind: str) -> Any:
        """The name that the context has for its cluster or its user."""
        if self._context is None:
            raise KubeconfigError("it has no current-context")
        return self._part("context", self._context)[0].get(kind)

    def _part(self, kind: str, name: Any) -> tuple[Mapping[str, Any], str]:
        """An entry's content, and the folder of its file."""
        if not isinstance(name, str | int):
            raise KubeconfigError(f"its context {self._context!r} names no {kind}")
        if name not in self._entries[kind]:
            raise KubeconfigError(f"it has no {kind} {name!r}")
        entry, folder = self._entries[kind][name]
        if not isinstance(entry.get(kind), dict):
            raise KubeconfigError(f"the {kind} {name!r} has no key {kind!r}")
        return entry[kind], folder

    @classmethod
    def wrong(cls, config_file: str | None, context: str | None) -> Iterator[tuple[str, str, str]]:
        """The option that is wrong, what was found, and a remedy; nothing where all is well."""
        try:
            found = cls(config_file, context)
        except KubeconfigError as error:
            yield "config_file", f"names a file that {error}.", "Give the path of a kubeconfig."
            return
        names = found.contexts()
        if not names:
            yield "config_file", "names a file without contexts.", "Give the path of a kubeconfig."
        elif context is not None and context not in names:
            close = get_close_matches(context, names, n=1)
            remedy = f'Did you mean "{close[0]}"?' if close else f"Use one of these: {', '.join(names)}."
            yield "cluster_context", f"names {context!r}, which is no context of the kubeconfig.", remedy
        else:
            yield from found._wrong_parts()

    def _wrong_parts(self) -> Iterator[tuple[str, str, str]]:
        try:
            wrong = list(self.wrong_files())
        except KubeconfigError as error:
            yield "config_file", f"gives no way to the cluster: {error}.", "Correct it there."
            return
        for each in wrong:
            yield "config_file", f"has a {each}.", "Correct it there."


@contextmanager
def without_data() -> Iterator[None]:
    """For the client's own reading of a kubeconfig.

    :raises KubeconfigError: in place of an error that quotes entries of the file
    """
    try:
        yield
    except Exception as error:
        told = isinstance(error, ConfigException | AsyncConfigException | OSError)
        if told and not str(error).startswith("Invalid kube-config"):
            raise
        raise KubeconfigError(f"The client cannot use the kubeconfig ({type(error).__name__})") from None


def _paths(config_file: str | None) -> Sequence[str]:
    return [path for path in (config_file or KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep) if path]


def _is_absent(path: str) -> bool:
    """Of several files some may be; one that cannot be looked at is none of these."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _document(path: str) -> Mapping[str, Any]:
    try:
        found = yaml.load(read_file(path).text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except UnreadableError as error:
        raise KubeconfigError(str(error)) from None
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        place = f", see line {mark.line + 1}" if mark else ""
        raise KubeconfigError(f"is no kubeconfig (no YAML{place})") from None
    if not isinstance(found, dict):
        raise KubeconfigError("is no kubeconfig (no YAML mapping)")
    return found


def _merged(files: Mapping[str, Mapping[str, Any]], kind: str) -> dict[Any, tuple[Mapping[str, Any], str]]:
    """The entries of a kind by their names, each with its file's folder. Of several the first, as the client has it."""
    entries: dict[Any, tuple[Mapping[str, Any], str]] = {}
    for path, document in files.items():
        given = document.get(f"{kind}s") or []
        if not isinstance(given, list):
            raise KubeconfigError(f"is no kubeconfig ({kind}s is no list)")
        for entry in given:
            if not (isinstance(entry, dict) and isinstance(entry.get("name"), str | int)):
                raise KubeconfigError(f"is no kubeconfig (one of its {kind}s has no name)")
            entries.setdefault(entry["name"], (entry, os.path.dirname(path)))
    return entries


def _wrong_certificate(fields: Mapping[str, Any], key: str, folder: str) -> Iterator[str]:
    data = fields.get(f"{key}-data")
    if f"{key}-data" not in fields:
        yield from _wrong_file(fields, key, folder)
    elif data and not _is_pem(data):
        yield f"{key}-data that is no PEM file in base64"


def _is_pem(data: Any) -> bool:
    try:
        return b"-----BEGIN " in standard_b64decode(data)
    except (TypeError, ValueError):
        return False


def _wrong_plugin(plugin: Any, folder: str) -> Iterator[str]:
    """A command that gives credentials: a name is looked for in PATH, a path from the kubeconfig's folder on."""
    command = plugin.get("command") if isinstance(plugin, dict) else None
    path = os.path.join(folder, command) if isinstance(command, str) and os.sep in command else command
    if isinstance(path, str) and shutil.which(path) is None:
        yield "user whose exec command cannot be found"


def _wrong_file(fields: Mapping[str, Any], key: str, folder: str) -> Iterator[str]:
    path = fields.get(key)
    if not path:
        return
    try:
        if not isinstance(path, str):
            raise UnreadableError("is no path")
        read_bytes(os.path.join(folder, path))
    except UnreadableError as error:
        yield f"{key} whose file {error}"
