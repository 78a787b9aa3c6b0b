# SPDX-License-Identifier: Apache-2.0
"""The report of ``airflow dispatch migrate`` as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airflow_dispatch_provider.bridge.installed import pip_install
from airflow_dispatch_provider.cli.output import columns, wrapped
from airflow_dispatch_provider.migration.destinations import Destination
from airflow_dispatch_provider.migration.findings import Finding
from airflow_dispatch_provider.migration.report import Report
from airflow_dispatch_provider.migration.uses import Unread

_PLACES = 5
"""How many places are listed of those that say the same."""

_UNREAD = 20


def render(report: Report) -> str:
    """The whole text, without a line end at its end."""
    parts = [_read(report), *_configuration(report)]
    if report.ready:
        parts.append(_ready(report))
    parts += _part("What changes", map(_item, report.changes))
    parts += _part("What the configuration does not tell", map(_item, report.unknown))
    parts += _part(f"Options to change for Airflow {report.airflow}", _options(report.options))
    if report.scanned is not None and not report.ready:
        parts += _part("Dags", _dags(report))
    parts += _part("Then", _steps(report))
    return "\n\n".join(parts)


def _part(title: str, lines: Iterator[str]) -> Iterator[str]:
    """One part, or none where there are no lines."""
    if text := "\n".join(lines):
        yield f"{title}\n{'-' * len(title)}\n{text}"


def _paragraph(text: str, first: str = "") -> str:
    return wrapped(text, first, " " * len(first))


def _item(text: str) -> str:
    return _paragraph(text, "- ")


def _read(report: Report) -> str:
    source = report.source or "the environment; there is no airflow.cfg"
    width = max(map(len, report.read))
    lines = (f"  {label:<{width}}  {' '.join(value.split())}" for label, value in report.read.items())
    return "\n".join([f"Read: {source}", *lines])


def _ready(report: Report) -> str:
    nothing = "" if _to_change(report) else ": nothing has to be put into airflow.cfg"
    return _paragraph(
        f"The router is configured already{nothing}. `airflow dispatch validate` checks it, and `airflow dispatch"
        " explain --queue QUEUE` says where a queue leads."
    )


def _to_change(report: Report) -> str:
    """The changes to be made in airflow.cfg, in words; empty where there is none."""
    parts = ["put in the lines"] * bool(report.configuration) + ["change the options"] * bool(report.options)
    return " and ".join(parts).capitalize()


def _configuration(report: Report) -> Iterator[str]:
    yield from _part("Put this into airflow.cfg", iter([report.configuration or ""]))
    if report.slots:
        yield _paragraph(
            f"A section may stand only once in the file. {report.slots} Every option can be a variable instead"
            " (AIRFLOW__DISPATCH__BACKENDS)."
        )
    if report.variables:
        names = " and ".join(report.variables)
        yield _paragraph(f"Variables take precedence over airflow.cfg: change {names}, too.")
    if report.one_class:
        yield from _part("Or the same with another class", iter([report.one_class]))
    if report.by_name:
        lines = f"[core]\nexecutor = {report.by_name}"
        yield from _part("As long as Dags say executor=, with [dispatch] as above", iter([lines]))
        if report.by_name_lacks:
            names = ", ".join(f'executor="{name}"' for name in report.by_name_lacks)
            yield _paragraph(
                f"The Dags must not say {names} any more, since no executor of that name is left."
            )


def _options(found: Sequence[Finding]) -> Iterator[str]:
    for do in ("rename", "change", "remove"):
        some = [finding for finding in found if finding.do == do]
        if some:
            yield f"{do}:"
            yield from columns((finding.option, _how(finding)) for finding in some)


def _how(finding: Finding) -> str:
    return finding.why if finding.to is None else f"-> {finding.to}"


def _dags(report: Report) -> Iterator[str]:
    yield _paragraph(f"Looked through: {report.scanned}.")
    yield from map(_destination, report.dags)
    if not report.dags:
        yield "No queue= and no executor= with a text was found."
    yield from _unread(
        "Where these go is not known, since they are computed; `airflow dispatch migrate --dags` without a folder reads"
        " them from the metadata database:",
        [unread for unread in report.unread if unread.computed],
    )
    yield from _unread("Could not be read:", [unread for unread in report.unread if not unread.computed])


def _unread(title: str, unread: Sequence[Unread]) -> Iterator[str]:
    if unread:
        yield _paragraph(title)
        yield from (f"  {each.where}: {each.what}" for each in unread[:_UNREAD])
    if (more := len(unread) - _UNREAD) > 0:
        yield f"  and {more} more; --output json lists all"


def _destination(found: Destination) -> str:
    given = (("queue", found.queue), ("executor", found.executor))
    said = ", ".join(f'{name}="{value}"' for name, value in given if value is not None)
    goes = f"goes to {found.goes_to} by route {found.route}"
    same = found.ran_on == found.goes_to
    ran = "" if same else f"; ran on {found.ran_on or 'no executor: none of that name is configured'}"
    places = ", ".join(found.places[:_PLACES])
    more = f" and {len(found.places) - _PLACES} more" if len(found.places) > _PLACES else ""
    lines = [(f"{said}: {goes}{ran}", "- "), (f"to do: {found.do}", "  "), (f"at: {places}{more}", "  ")]
    return "\n".join(_paragraph(text, first) for text, first in lines)


def _steps(report: Report) -> Iterator[str]:
    to_change = _to_change(report)
    steps = (
        _install(report) * (not report.ready),
        f"{to_change} as shown above." * bool(to_change),
        "With [dispatch]: `airflow dispatch validate`, and `airflow dispatch explain --queue QUEUE` for each queue."
        * (not report.ready),
        "`airflow config lint` names what is left: options with a new default, the executor among them. Do not run"
        " `airflow config update --fix`: it breaks values of several lines, and replaces the executor with"
        " --all-recommendations." * bool(to_change),
        "Restart the scheduler, the API server and the other components with the new configuration."
        * bool(to_change),
    )
    return (_step(f"{number}. ", step) for number, step in enumerate(filter(None, steps), start=1))


def _install(report: Report) -> str:
    if not report.requirements:
        return "Install this package on every component."
    return (
        "Install this package on every component, and what the backends and options need:\n"
        f"{pip_install(report.requirements)}"
    )


def _step(number: str, text: str) -> str:
    """Its first line as a paragraph; a command keeps its line, so that it can be copied."""
    first, *commands = text.split("\n")
    return "\n".join([_paragraph(first, number), *(f"   {command}" for command in commands)])
