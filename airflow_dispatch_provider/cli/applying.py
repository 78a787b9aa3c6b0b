# SPDX-License-Identifier: Apache-2.0
"""Puts a routing file in the place of ``config_file``, in one step."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from airflow_dispatch_provider.exceptions import DispatchConfigError, DispatchError
from airflow_dispatch_provider.settings.file import UnreadableError, read_bytes
from airflow_dispatch_provider.settings.source import SettingsSource


class NotApplied(DispatchError):
    """The file is right, and cannot be put there; or it would not be read as it was checked."""


def config_file_of(source: SettingsSource) -> str | None:
    """``config_file`` of the configuration in use, be that right or not; None: it is not set."""
    with suppress(DispatchConfigError):
        source.load()
    return source.config_file


def content_of(file: str) -> bytes:
    """The content that is checked, and then applied; empty where it cannot be read, as ``validate`` will say."""
    try:
        return read_bytes(file)[0]
    except UnreadableError:
        return b""


def check_names(file: str, config_file: str) -> None:
    """
    :raises NotApplied: they are one file, or of two formats
    """
    with suppress(OSError):
        if os.path.samefile(file, config_file):
            raise NotApplied(f"{file} is config_file itself. Write the new version beside it.")
    formats = [("JSON" if name.endswith(".json") else "YAML") for name in (file, config_file)]
    if formats[0] != formats[1]:
        name = "Name it .json." if formats[1] == "JSON" else "Give it another name."
        raise NotApplied(
            f"{file} is checked as {formats[0]}, and {config_file} is read as {formats[1]}. {name}"
        )


def replaced(file: str, content: bytes, config_file: str) -> NotApplied | None:
    """Why ``config_file`` could not be replaced; None: it has been. Whoever reads it meanwhile has the one version or
    the other. Its mode and owner stay as they are; a new one has those of ``file``.

    :param content: of ``file``, as it was checked
    """
    if content_of(file) != content:
        return NotApplied(f"{file} has changed while it was checked. Apply it again.")
    target = Path(os.path.realpath(config_file))
    try:
        like = os.stat(target if target.exists() else file)
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(0, "it may not be written")
        _write(target, content, like)
    except OSError as error:
        remedy = "A ConfigMap, or what an image holds, is changed where it comes from."
        return NotApplied(f"{config_file} cannot be replaced ({error.strerror}). {remedy}")
    return None


def _write(target: Path, content: bytes, like: os.stat_result) -> None:
    """In the same folder first: only there a file can be renamed in one step."""
    descriptor, temporary = mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
