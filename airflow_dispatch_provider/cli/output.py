# SPDX-License-Identifier: Apache-2.0
"""Rows on stdout in the formats of Airflow's own commands."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from textwrap import TextWrapper
from typing import Any

from airflow.cli.simple_table import AirflowConsole

from airflow_dispatch_provider.exceptions import DispatchError

STRUCTURED = ("json", "yaml")
"""Formats for programs: values keep their types there; ``table`` and ``plain`` are text for people."""


_NARROWEST, _WIDEST = 40, 110
"""Columns between which a text is easy to read."""

_ENDLESS = 100_000
"""Columns of a table in a file or a pipe, whose lines must stay whole."""


@contextmanager
def only_answers() -> Iterator[None]:
    """Around code of users: what it prints goes to stderr, so that stdout has nothing but the answer."""
    with redirect_stdout(sys.stderr):
        yield


class OutputError(DispatchError):
    """The answer cannot be written; without text where its reader has gone."""


_UNWRITABLE = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}


@contextmanager
def written() -> Iterator[None]:
    """Around a command: all that it prints is written in the end.

    :raises OutputError: it cannot be
    """
    if sys.stdout is None:
        raise OutputError("The output cannot be written (stdout is closed).")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        # What is left in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = error.errno == errno.EPIPE
        raise OutputError("" if gone else f"The output cannot be written ({error.strerror}).") from None


def show_object(data: Any, output: str) -> None:
    """Print plain data in one of the structured formats."""
    if output == "json":
        _console().print_as_json(data)
    else:
        _console().print_as_yaml(data)


def show_rows(rows: Sequence[Mapping[str, Any]], output: str, optional: Sequence[str] = ()) -> None:
    """Print rows in any format.

    :param optional: columns that a table may leave out where it would be too wide, the first one first
    """
    if output in STRUCTURED:
        show_object(list(rows), output)
        return
    separator = "\n" if output == "table" else "; "
    texts = [{key: _text(value, separator) for key, value in row.items()} for row in rows]
    most = width(sys.stdout) if output == "table" else None
    table = texts if most is None else _most_of(texts, most, optional)
    if table is None:
        print("\n\n".join(map(_record, texts)))
        return
    console = _console()
    console.width = _ENDLESS
    console.print_as(table, output=output)


def show_error(error: Exception) -> None:
    """On stderr; nothing where the error has no text."""
    first, *lines = str(error).splitlines() or [""]
    if first:
        print(wrapped(f"error: {first}", further="  ", stream=sys.stderr), file=sys.stderr)
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        print(wrapped(line.strip(), indent, f"{indent}  ", sys.stderr), file=sys.stderr)


def show_findings(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print what ``validate`` found; for people a paragraph each, since places and remedies are long."""
    if output != "table":
        show_rows(rows, output)
        return
    for row in rows:
        print(printable(f"{row['severity']:9}{row['where']}"))
        for text in filter(None, (row["found"], row["remedy"])):
            print(wrapped(text, " " * 9))
        print()
    print(_counted([row["severity"] for row in rows]))


def width(stream: Any) -> int | None:
    """Columns of a terminal, or what ``COLUMNS`` says. None: nobody knows, or it is a file or a pipe."""
    with suppress(ValueError):
        return int(os.environ.get("COLUMNS", "")) or None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def wrapped(text: str, indent: str = "", further: str | None = None, stream: Any = None) -> str:
    """As wide as the terminal, within reason; in one line where there is none. Long words, such as paths, stay whole,
    so that they can be copied.

    :param further: the indent from the second line on
    :param stream: where it will be printed; None: on stdout
    """
    columns, text = width(sys.stdout if stream is None else stream), printable(text)
    if columns is None:
        return indent + " ".join(text.split())
    return _filled(
        text, max(_NARROWEST, min(columns, _WIDEST)), indent, indent if further is None else further
    )


def _filled(text: str, columns: int, indent: str = "", further: str = "") -> str:
    wrapper = TextWrapper(columns, initial_indent=indent, subsequent_indent=further)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.fill(text)


def columns(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Two columns, indented; the second one stands below where the line would be wider than the terminal."""
    pairs, most = list(pairs), width(sys.stdout)
    first = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        line = f"  {name:<{first}}  {text}"
        if most is not None and len(line) > most:
            line = f"  {name}\n{wrapped(text, ' ' * 6)}"
        yield line


def _most_of(
    rows: Sequence[Mapping[str, str]], most: int, optional: Sequence[str]
) -> list[dict[str, str]] | None:
    """``_fitted``, without as many optional columns as that takes."""
    for number in range(len(optional) + 1):
        left_out = optional[:number]
        fewer = [{key: text for key, text in row.items() if key not in left_out} for row in rows]
        if (table := _fitted(fewer, most)) is not None:
            return table
    return None


def _fitted(rows: Sequence[Mapping[str, str]], most: int) -> list[dict[str, str]] | None:
    """With line breaks between words, so that a table of them has at most so many columns; None where that would break
    a word, which nobody could copy any more."""
    columns = {key: [key, *(row[key] for row in rows)] for row in rows[:1] for key in row}
    least = {key: max(len(word) for text in texts for word in text.split()) for key, texts in columns.items()}
    widths = {
        key: max(len(line) for text in texts for line in text.split("\n")) for key, texts in columns.items()
    }
    room = most - len(" | ") * (len(columns) - 1)
    if sum(least.values()) > room:
        return None
    while sum(widths.values()) > room:
        widest = max((key for key in widths if widths[key] > least[key]), key=widths.__getitem__)
        widths[widest] -= 1
    return [
        {key: "\n".join(_filled(line, widths[key]) for line in text.split("\n")) for key, text in row.items()}
        for row in rows
    ]


def _record(row: Mapping[str, str]) -> str:
    """One row by itself, a line for each cell, with its name before it."""
    first = max(map(len, row)) + 2
    cells = (
        (f"{key:<{first}}" if number == 0 else " " * first, line)
        for key, text in row.items()
        for number, line in enumerate(text.split("\n"))
    )
    return "\n".join(wrapped(line, start, " " * first) for start, line in cells)


def _counted(severities: Sequence[str]) -> str:
    counts = [(severities.count(severity), severity) for severity in dict.fromkeys(severities)]
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts) + "."


def _console() -> AirflowConsole:
    """Places and messages contain square brackets and colons, which must not be taken for markup."""
    return AirflowConsole(markup=False, emoji=False, highlight=False)


def _text(value: Any, separator: str) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return separator.join(map(printable, value))
    return printable(value)


def printable(value: Any) -> str:
    """Without what moves the cursor of a terminal, or begins a line: texts come from servers and from users."""
    text = str(value)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign.isprintable():
        return sign
    return " " if sign.isspace() else sign.encode("unicode_escape").decode()


def route_words(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row about a route, for people."""
    after = row["overflow_after"]
    overflow = after if isinstance(after, str) else f"after {after:g} s" if after else "at once"
    return {
        **row,
        "targets": [_target_words(target) for target in row["targets"]],
        "overflow_after": overflow if len(row["targets"]) > 1 else None,
    }


def _target_words(target: Mapping[str, Any]) -> str:
    queue = "" if target["queue"] is None else f" (queue {target['queue']})"
    weight = "" if target["weight"] is None else f", weight {target['weight']}"
    return f"{target['backend']}{queue}{weight}"
