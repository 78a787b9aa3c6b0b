# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch migrate``: reads and prints, and writes nothing."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from airflow.configuration import AIRFLOW_CONFIG

from airflow_dispatch_provider.cli import output
from airflow_dispatch_provider.cli.airflow_options import installed_target, missing
from airflow_dispatch_provider.cli.migration_text import render
from airflow_dispatch_provider.exceptions import MigrationError
from airflow_dispatch_provider.migration.dag_files import scan_source
from airflow_dispatch_provider.migration.findings import class_paths
from airflow_dispatch_provider.migration.images import TEMPLATE
from airflow_dispatch_provider.migration.old import read_old
from airflow_dispatch_provider.migration.options import Key, Option, Options, read_ini, today
from airflow_dispatch_provider.migration.report import make_report
from airflow_dispatch_provider.migration.uses import Scan, Unread, Use
from airflow_dispatch_provider.settings.file import UnreadableError, read_bytes, read_file


def run(args: Namespace) -> int:
    """``airflow dispatch migrate``; raises MigrationError. 1: it was printed, but does not cover all of the Dags."""
    options, source = _options(args.config)
    environ = {} if args.ignore_environment else os.environ
    old = read_old(options, environ, source, args.executor)
    target = installed_target()
    scan = _scan(args.dags)
    report = make_report(old, scan, target, missing(class_paths(old.options)), _template(old.options))
    if args.output in output.STRUCTURED:
        output.show_object(asdict(report), args.output)
    else:
        print(_printable(render(report)))
    return int(bool(report.unread))


def _printable(text: str) -> str:
    """Names of queues and files may hold what a terminal obeys, or what has no place in UTF-8."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode()
        for sign in text
    )


def _options(config: str | None) -> tuple[dict[Key, Option], str | None]:
    """The options that the file sets; Airflow's own file may be missing, a named one may not."""
    if config is None and not Path(AIRFLOW_CONFIG).exists():
        return {}, None
    name = AIRFLOW_CONFIG if config is None else config
    return read_ini(_text(name), name), name


def _text(name: str) -> str:
    try:
        return read_file(name).text
    except UnreadableError as error:
        raise MigrationError(f"{name} {error}. Give the path of an airflow.cfg with --config.") from None


def _template(options: Options) -> str:
    """The text of the pod template; empty where there is none, or not on this machine."""
    names = [option.value.strip() for option in options.values() if today(option) == TEMPLATE]
    try:
        return read_file(names[0]).text if names else ""
    except UnreadableError:
        return ""


def _scan(dags: list[str] | None) -> Scan | None:
    """
    :param dags: None: not to be looked at; no folder: the database is
    """
    if dags is None:
        return None
    if dags:
        return _scan_folders([Path(folder) for folder in dags])
    from airflow_dispatch_provider.cli.serialized_dags import scan_database

    return scan_database()


def _scan_folders(folders: list[Path]) -> Scan:
    uses: list[Use] = []
    unread: list[Unread] = []
    paths = [path for folder in folders for path in sorted(_files(folder, unread))]
    for path in paths:
        found, missed = _scan_file(path)
        uses += found
        unread += missed
    count = sum(path.suffix != ".zip" for path in paths)
    files = f"{count} Python file{'' if count == 1 else 's'}"
    return Scan(f"{files} in {', '.join(map(str, folders))}", False, tuple(uses), tuple(unread))


def _scan_file(path: Path) -> tuple[list[Use], list[Unread]]:
    if path.suffix == ".zip":
        return [], [Unread(str(path), "is an archive")]
    try:
        source, _ = read_bytes(str(path))
    except UnreadableError as error:
        return [], [Unread(str(path), str(error))]
    return scan_source(source, str(path))


def _files(folder: Path, unread: list[Unread]) -> Iterator[Path]:
    """Python files and archives, links followed, hidden folders and caches left out; a file by itself.

    :param unread: takes the folders that cannot be opened
    """
    if not folder.exists():
        raise MigrationError(f"{folder} does not exist. Give a folder of Dags, or a file, with --dags.")
    if not folder.is_dir():
        yield folder
        return
    seen = set()

    def note(error: OSError) -> None:
        unread.append(Unread(str(error.filename), f"cannot be read ({error.strerror})"))

    for root, folders, files in os.walk(folder, onerror=note, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield from (Path(root, name) for name in files if name.endswith((".py", ".zip")))
