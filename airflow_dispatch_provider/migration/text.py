# SPDX-License-Identifier: Apache-2.0
"""A report as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from airflow_dispatch_provider.migration.destinations import Destination
from airflow_dispatch_provider.migration.facts import Fact
from airflow_dispatch_provider.migration.renames import Rename
from airflow_dispatch_provider.migration.report import Report
from airflow_dispatch_provider.migration.uses import Unread

_WIDTH = 100
_PLACES = 5
"""How many places are listed of those that say the same."""

_UNREAD = 20


def render(report: Report) -> str:
    """The whole text, without a line end at its end."""
    parts = [_read(report)]
    if report.ready:
        parts.append(_ready(report))
    else:
        parts += _configuration(report)
        parts.append(_part("What changes", _facts(report.changes)))
        parts.append(_part("What cannot be known from the configuration", _facts(report.unknown)))
    if report.rename:
        parts.append(_part("To rename or remove in Airflow 3", _renames(report.rename)))
    if report.scanned is not None:
        parts.append(_part("Dags", _dags(report)))
    if not report.ready:
        parts.append(_part("Then", _steps(report)))
    return "\n\n".join(parts)


def _part(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{text}"


def _paragraph(text: str, first: str = "", then: str | None = None) -> str:
    indent = " " * len(first) if then is None else then
    return fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _read(report: Report) -> str:
    source = report.source or "the environment; there is no airflow.cfg"
    width = max(map(len, report.read))
    lines = (f"  {label:<{width}}  {' '.join(value.split())}" for label, value in report.read.items())
    return "\n".join([f"Read: {source}", *lines])


def _ready(report: Report) -> str:
    beside = ""
    if report.beside:
        names = ", ".join(report.beside)
        beside = (
            f" Beside it stand {names}, which only executor= in a Dag leads to; they can become backends."
        )
    return _paragraph(f"The router is configured already: nothing is to be done.{beside}")


def _configuration(report: Report) -> Iterator[str]:
    yield _part("Put this into airflow.cfg", report.configuration or "")
    yield _paragraph(
        f"{report.slots} Every option can be an environment variable instead (AIRFLOW__DISPATCH__BACKENDS)."
    )
    if report.variables:
        names = " and ".join(report.variables)
        yield _paragraph(f"The environment stands over airflow.cfg: change {names} there, too.")
    if report.one_line:
        yield _part("Or one line, without [dispatch]", report.one_line)
        yield _paragraph(
            "The class alone does the same; [dispatch] is what routes, slots and backends can be added to."
        )
    if report.by_name:
        yield _part("As long as Dags say executor=", f"[core]\nexecutor = {report.by_name}")
        yield _paragraph(
            "Airflow refuses a Dag whose executor= has no executor of that name. These names hand over to the router,"
            " which sends such a task to a target of its queue's route that has the executor, or else to any backend"
            " that has it."
        )


def _facts(facts: Sequence[Fact]) -> str:
    return "\n".join(f"{_paragraph(fact.what, '- ')}\n{_paragraph(fact.detail, '  ')}" for fact in facts)


def _renames(found: Sequence[Rename]) -> str:
    lines = [f"- {rename.old}{_new_name(rename)}{'' if rename.linted else ' *'}" for rename in found]
    if any(not rename.linted for rename in found):
        lines.append("* Airflow 3 ignores it, and `airflow config lint` does not report it.")
    return "\n".join(lines)


def _new_name(rename: Rename) -> str:
    if rename.new is None:
        return ": remove it, nothing took its place"
    return f": remove it, {rename.new} is set" if rename.taken else f" -> {rename.new}"


def _dags(report: Report) -> str:
    lines = [_paragraph(f"Looked through: {report.scanned}.")]
    lines += map(_destination, report.dags)
    if not report.dags:
        lines.append("No queue= and no executor= with a text was found.")
    if report.unread:
        lines.append("Could not be read:")
        lines += map(_unread, report.unread[:_UNREAD])
        if (more := len(report.unread) - _UNREAD) > 0:
            lines.append(f"  and {more} more; --output json lists all")
    return "\n".join(lines)


def _destination(found: Destination) -> str:
    given = (("queue", found.queue), ("executor", found.executor))
    said = ", ".join(f'{name}="{value}"' for name, value in given if value is not None)
    goes = (
        f"goes to {found.goes_to} by route {found.route}" if found.goes_to else "goes where its queue leads"
    )
    ran = (
        ""
        if found.ran_on == found.goes_to
        else f"; ran on {found.ran_on or 'an executor that is not configured'}"
    )
    places = ", ".join(found.places[:_PLACES])
    more = f" and {len(found.places) - _PLACES} more" if len(found.places) > _PLACES else ""
    return "\n".join(
        [
            _paragraph(f"{said}: {goes}{ran}", "- "),
            _paragraph(f"to do: {found.do}", "  "),
            _paragraph(f"at: {places}{more}", "  "),
        ]
    )


def _unread(found: Unread) -> str:
    return f"  {found.where}: {found.what}"


def _steps(report: Report) -> str:
    steps = (
        f'pip install "{report.extras}" on every component.',
        "`airflow config lint` and `airflow config update` for everything that is not about executors.",
        "`airflow dispatch validate`, and `airflow dispatch explain --queue QUEUE` for each queue.",
        "Restart the scheduler, the API server and the other components with the new configuration.",
    )
    return "\n".join(_paragraph(step, f"{number}. ") for number, step in enumerate(steps, start=1))
