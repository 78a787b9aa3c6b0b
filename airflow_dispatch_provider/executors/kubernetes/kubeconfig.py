# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig as far as it can be read without logging in: its plugins for credentials are not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from kubernetes.config import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger

from airflow_dispatch_provider.masking import describe

_FILES = {"cluster": ("certificate-authority",), "user": ("client-certificate", "client-key")}
"""Keys whose values are paths, relative to the kubeconfig's folder."""


class Kubeconfig:
    """What one context of a kubeconfig names.

    :raises ConfigException: for a file that is missing or no kubeconfig, and for a context that it does not have
    """

    def __init__(self, config_file: str | None, context: str | None) -> None:
        """
        :param config_file: None: the one that kubectl would take
        :param context: None: the file's current one
        """
        self._config: Any = KubeConfigMerger(config_file or KUBE_CONFIG_DEFAULT_LOCATION).config
        if self._config is None:
            raise ConfigException("No such file.")
        self._context = self._named("contexts", context or self._config["current-context"])["context"]
        self._cluster = self._named("clusters", self._context["cluster"])["cluster"]

    def server(self) -> str:
        return str(self._cluster["server"])

    def missing_files(self) -> Iterator[tuple[str, str]]:
        """The key and the path of each file that it names and that cannot be read."""
        user = self._context.safe_get("user")
        parts = {"cluster": self._cluster, "user": self._named("users", user)["user"] if user else None}
        for part, keys in _FILES.items():
            for key in keys if parts[part] is not None else ():
                path = parts[part].safe_get(key)
                folder = os.path.dirname(parts[part].path or "")
                if path and not os.access(os.path.join(folder, path), os.R_OK):
                    yield key, path

    def _named(self, kind: str, name: str) -> Any:
        return self._config[kind].get_with_name(name)

    @classmethod
    def wrong(cls, config_file: str | None, context: str | None) -> Iterator[tuple[str, str, str]]:
        """The option that is wrong, what was found, and a remedy; nothing where all is well."""
        path = config_file or KUBE_CONFIG_DEFAULT_LOCATION
        try:
            names = _contexts(path)
        except Exception as error:
            reason = "does not exist" if not _exists(path) else f"is no kubeconfig ({type(error).__name__})"
            yield "config_file", f"names a file that {reason}.", "Give the path of a kubeconfig."
            return
        if not names:
            yield "config_file", "names a file without contexts.", "Give the path of a kubeconfig."
            return
        if context is not None and context not in names:
            close = get_close_matches(context, names, n=1)
            remedy = f'Did you mean "{close[0]}"?' if close else f"Use one of these: {', '.join(names)}."
            yield "cluster_context", f"names {context!r}, which is no context of the kubeconfig.", remedy
            return
        try:
            missing = list(cls(config_file, context).missing_files())
        except Exception as error:
            yield "config_file", f"gives no way to the cluster: {describe(error)}", "Correct it there."
            return
        for key, file in missing:
            yield "config_file", f"has a {key}, {file}, that cannot be read.", "Correct the path there."


def _exists(paths: str) -> bool:
    return any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path)


def _contexts(path: str) -> list[str]:
    config: Any = KubeConfigMerger(path).config
    return [str(each["name"]) for each in config["contexts"].value]
