# SPDX-License-Identifier: Apache-2.0
"""A copy of the last version of ``config_file`` that was accepted, for ``[dispatch] on_refused_file = last_good``.

One for each path, in a folder of AIRFLOW_HOME. It may hold secrets, as the file may, so only its owner may read it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from airflow_dispatch_provider.settings.file import UnreadableError, read_file


def copy_of(folder: Path, config_file: str) -> Path:
    """Where the copy of this file is."""
    return (
        folder
        / f"{sha256(os.path.abspath(config_file).encode(errors='surrogatepass')).hexdigest()[:16]}.copy"
    )


def keep(folder: Path, config_file: str, text: str) -> str | None:
    """Replace the copy at once, so that no other scheduler reads half of it.

    :returns: why that cannot be done; None: it is there
    """
    copy = copy_of(folder, config_file)
    try:
        if recall(folder, config_file) == text:
            return None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=folder)  # readable by its owner only
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(new, copy)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or type(error).__name__
    return None


def recall(folder: Path, config_file: str) -> str | None:
    """The copy; None where there is none that can be read."""
    try:
        return read_file(str(copy_of(folder, config_file))).text
    except UnreadableError:
        return None
