# SPDX-License-Identifier: Apache-2.0
"""Files whose paths a user gives, ``config_file`` first. Read on the scheduler's thread: whatever the path leads to,
this neither blocks nor takes more memory than a routing file may have."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

MAX_BYTES = 1_000_000
"""A route takes about 60 bytes."""

_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)

Stamp = tuple[int, ...]


class UnreadableError(Exception):
    """The file cannot be used; the text says why, as the rest of "the file ..."."""


@dataclass(frozen=True)
class FileText:
    """One version of the file."""

    text: str = field(repr=False)
    stamp: Stamp


def stamp_of(config_file: str) -> Stamp | None:
    """Tells one version of the file from another, a renamed-in one (Kubernetes ConfigMap) included; None where there
    is none."""
    try:
        return _stamp(os.stat(config_file))
    except (OSError, ValueError):
        return None


def read_file(config_file: str) -> FileText:
    """
    :raises UnreadableError: as ``read_bytes``, or it is not UTF-8
    """
    content, stamp = read_bytes(config_file)
    return FileText(_decoded(content), stamp)


def read_bytes(config_file: str) -> tuple[bytes, Stamp]:
    """
    :raises UnreadableError: it is no regular file, too large, or is being written
    """
    try:
        _refuse_other_kinds(os.stat(config_file))
        # It may have become another kind since; opening a named pipe would wait for a writer.
        with open(
            os.open(config_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb"
        ) as file:
            before = os.fstat(file.fileno())
            _refuse_other_kinds(before)
            content = file.read(MAX_BYTES + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise UnreadableError(
            f"cannot be read ({getattr(error, 'strerror', None) or 'no such path'})"
        ) from None
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"is larger than {MAX_BYTES} bytes")
    if _stamp(before) != _stamp(after):
        raise UnreadableError("was written while it was read")
    return content, _stamp(before)


def _refuse_other_kinds(status: os.stat_result) -> None:
    for is_kind, words in _KINDS:
        if is_kind(status.st_mode):
            raise UnreadableError(words)
    if status.st_size > MAX_BYTES:
        raise UnreadableError(f"is larger than {MAX_BYTES} bytes")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("cannot be read (not text in UTF-8)") from None


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
