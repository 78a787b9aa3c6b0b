# SPDX-License-Identifier: Apache-2.0
"""Alert rules, dashboard and mapping: they can be read by what reads them, and use metrics that are sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import promql_parser
import pytest
import yaml

from airflow_dispatch_provider.dispatch import gauges
from airflow_dispatch_provider.engines.kubernetes._tally import CREATION, DELETION, PATCHING

from .pages import DOCS
from .test_metrics import BACKENDS, WHOLE

FOLDER = DOCS / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
MAPPINGS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "statsd-mapping.yaml").read_text())["mappings"]
SERVER = "https://github.com/airflow-dispatch/airflow-dispatch-provider/blob/main/"


def in_prometheus(name: str, kind: str) -> str:
    """As OpenTelemetry's exporters for Prometheus have it."""
    return f"airflow_{name.replace('.', '_')}{'_total' if kind == 'counter' else ''}"


LABELS = {
    **{in_prometheus(name, kind): {"backend", "team_name"} for name, kind in BACKENDS.items()},
    **{in_prometheus(name, kind): {"team_name"} for name, kind in WHOLE.items()},
    **{
        in_prometheus(f"{name}_status", "counter"): {"backend", "status", "team_name"}
        for name in (CREATION, DELETION, PATCHING)
    },
}
for metric in ("airflow_dispatch_held_by_reason", "airflow_dispatch_dispatched_total"):
    LABELS[metric] |= {"reason"}


def selectors(expression: Any) -> Iterator[tuple[str, set[str]]]:
    """Metric and labels of each selector in an expression that has been parsed."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers}
    for part in ("expr", "lhs", "rhs", "vector_selector"):
        if (inner := getattr(expression, part, None)) is not None:
            yield from selectors(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from selectors(argument)


def grouped_by(text: str) -> set[str]:
    """Labels that an expression groups by, or joins on."""
    return {label for found in re.findall(r"\b(?:by|on) \(([^)]*)\)", text) for label in found.split(", ")}


def assert_right(text: str) -> None:
    """It can be parsed, and asks for metrics and labels that there are."""
    found = list(selectors(promql_parser.parse(text)))
    assert found, text
    for name, labels in found:
        assert name in LABELS, text
        assert labels | grouped_by(text) <= LABELS[name], text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_can_be_loaded(rule: dict[str, Any]) -> None:
    """With the keys that Prometheus knows."""
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"Dispatch[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "runbook_url"}
    assert_right(rule["expr"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_section_that_exists(rule: dict[str, Any]) -> None:
    """In a page that says what to do, or what happens."""
    url = rule["annotations"]["runbook_url"]
    assert url.startswith(SERVER)
    page, _, anchor = url.removeprefix(SERVER).partition("#")
    assert page in ("docs/troubleshooting.md", "docs/failures.md")
    titles = re.findall(r"^#{2,3} (.*)$", (DOCS.parent / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_no_alert_is_there_twice() -> None:
    """Nor is one without a page that has all of them."""
    names = [rule["alert"] for rule in RULES]
    assert len({*names}) == len(names) >= 9


def targets() -> list[tuple[str, str]]:
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "5m"))
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("expression", [text for _, text in targets()])
def test_a_panel_asks_for_what_is_sent(expression: str) -> None:
    """As Grafana sends it to Prometheus."""
    assert_right(expression)


def test_the_dashboard_shows_every_metric_of_the_package() -> None:
    """But for the timer, whose name differs between Airflow's versions."""
    shown = {name for _, text in targets() for name, _ in selectors(promql_parser.parse(text))}
    ours = {in_prometheus(name, kind) for name, kind in {**BACKENDS, **WHOLE}.items() if kind != "timer"}
    assert ours <= shown


def test_panels_do_not_lie_upon_each_other() -> None:
    """Within the 24 columns that Grafana has; each has an id of its own, and says what it shows."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own, panel["title"]
        cells |= own
        assert panel["description"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)


def mapped(name: str) -> tuple[str, dict[str, str]] | None:
    """Name and labels that statsd_exporter makes of a name: the first mapping that fits."""
    for mapping in MAPPINGS:
        if found := fits(mapping, name):
            labels = mapping.get("labels", {}).items()
            return filled(mapping["name"], found), {key: filled(value, found) for key, value in labels}
    return None


def fits(mapping: dict[str, Any], name: str) -> re.Match[str] | None:
    pattern = mapping["match"]
    if mapping.get("match_type") != "regex":
        pattern = re.escape(pattern).replace(r"\*", "([^.]*)")
    return re.fullmatch(pattern, name)


def filled(text: str, found: re.Match[str]) -> str:
    """``$1`` and ``${1}`` stand for the first group."""
    return re.sub(r"\$\{?(\d)\}?", lambda number: found[int(number[1])], text)


@pytest.mark.parametrize("name", gauges.names("small-1", "waits_full"))
def test_the_mapping_makes_the_tagged_name_of_a_plain_one(name: str) -> None:
    """With its labels."""
    metric, _, rest = name.partition(".small-1")
    expected = {"backend": "small-1", **({"reason": "waits_full"} if rest else {})}
    assert mapped(f"airflow.{name}") == (in_prometheus(metric, BACKENDS[metric]), expected)


@pytest.mark.parametrize("name", [CREATION, DELETION, PATCHING])
def test_the_mapping_has_airflows_counters_of_pods(name: str) -> None:
    """As counters are called in Prometheus."""
    assert mapped(f"airflow.{name}_status") == (in_prometheus(f"{name}_status", "counter"), {})


GAUGES = [
    *(
        name
        for name in gauges.names("small-1", "waits_full")
        if BACKENDS[name.partition(".small-1")[0]] == "gauge"
    ),
    *(name for name, kind in WHOLE.items() if kind == "gauge"),
]


@pytest.mark.parametrize("name", GAUGES)
def test_gauges_of_a_scheduler_that_has_gone_are_forgotten(name: str) -> None:
    """statsd_exporter keeps them for ever, unless their mapping says for how long: then no alert could tell that they
    come no more."""
    mapping = next(each for each in MAPPINGS if fits(each, f"airflow.{name}"))
    assert mapping["ttl"] == "5m"


def test_the_mapping_leaves_alone_what_is_not_ours() -> None:
    """And what has no backend in it."""
    assert not fnmatchcase("airflow.dispatch.heartbeat", MAPPINGS[0]["match"])
    for name in (
        "airflow.executor.open_slots",
        "airflow.dispatch.heartbeat",
        "airflow.pool.open_slots.default",
    ):
        assert mapped(name) is None
