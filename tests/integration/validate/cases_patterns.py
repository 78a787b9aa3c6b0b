# SPDX-License-Identifier: Apache-2.0
"""Patterns that cannot mean what is written, and routes that are never used."""

from __future__ import annotations

from typing import Any

from .harness import Case, airflow_cfg, case

QUEUE = "[dispatch] routes[0].queue"


def queue(name: str, wrong: str, found: str, mended: str = "$1", **more: Any) -> Case:
    """A pattern for queues."""
    cfg = airflow_cfg(routes='[{"queue": "<>", "to": ["b"]}]')
    return case(name, wrong, QUEUE, found, mended, cfg=cfg, **more)


def queues(name: str, wrong: str, found: str) -> Case:
    """A pattern that is to become a route for each."""
    return queue(name, wrong, found, '$1", "to": ["b"]}, {"queue": "$2')


def dag_id(name: str, wrong: str, found: str, mended: str = "$1") -> Case:
    cfg = airflow_cfg(routes='[{"queue": "q", "dag_id": "<>", "to": ["b"]}]')
    return case(name, wrong, "[dispatch] routes[0].dag_id", found, mended, cfg=cfg)


CASES = [
    queue("bracket open", "gpu-[ab", "whose bracket is not closed"),
    queue("bracket open, meant literally", "gpu-[ab", "whose bracket is not closed", "$2"),
    queue("bracket empty", "gpu-[]", "whose bracket is not closed"),
    queue("bracket of nothing but not", "gpu-[!]", "whose bracket is not closed"),
    queue("range reversed", "gpu-[9-0]", "whose range 9-0 is empty"),
    queue("braces of letters", "gpu-{a,b}", "whose alternatives are taken literally"),
    queue("braces, meant literally", "gpu-{a,b}", "whose alternatives are taken literally", "$2"),
    queues("braces of words", "gpu-{small,large}", "whose alternatives are taken literally"),
    queues("alternatives of a regular expression", "^(gpu|cpu)$", "whose alternatives are taken literally"),
    queue("regular expression", "^gpu-.*$", "which is a regular expression"),
    queue("regular expression, meant literally", "^gpu-.*$", "which is a regular expression", "$2"),
    queue("regular expression, begin only", "^gpu", "which is a regular expression"),
    queue("regular expression, end only", "gpu$", "which is a regular expression"),
    queue("regular expression of digits", "gpu_\\\\d+", "which is a regular expression"),
    queue("regular expression of a repeated bracket", "gpu_[0-9]+", "which is a regular expression"),
    queue("regular expression of a counted bracket", "gpu_[0-9]{2}", "which is a regular expression"),
    queue("backslash before a star", "gpu\\\\*", "which is a regular expression", "$1"),
    queue("template", "{{ queue }}", "in which nothing is filled in"),
    queue("variable of a shell", "${QUEUE}", "in which nothing is filled in"),
    queue("blank before", " gpu", "begins or ends with a blank"),
    queue("blank after", "gpu* ", "begins or ends with a blank"),
    queues("list", "gpu,cpu", "which is a list"),
    queues("list with blanks", "gpu, cpu", "which is a list"),
    queue("too long", "q" * 300, "longer than a name can be", "gpu", remedy="Write a shorter one."),
    queue("dot before a star", "gpu-.*", "whose dot is a dot", severity="warning"),
    queue("dot before a star, meant literally", "gpu-.*", "whose dot is a dot", "$2", severity="warning"),
    queue("pattern of SQL", "gpu%%", "whose % is a percent sign", severity="warning"),
    queue(
        "pattern of SQL, meant literally",
        "gpu%%",
        "whose % is a percent sign",
        "gpu[%%]",
        remedy='"gpu[%]" for the sign',
        severity="warning",
    ),
    case(
        "percent sign in airflow.cfg",
        "gpu%",
        "[dispatch] routes",
        "cannot be read (Interpolation",
        "gpu[%%]",
        "write %% for every %",
        cfg=airflow_cfg(routes='[{"queue": "<>", "to": ["b"]}]'),
    ),
    queue("two stars", "gpu/**", "whose ** is no more than *", severity="warning"),
    dag_id("dag_id with a blank", "my dag*", 'no dag_id has a " "', "$1"),
    dag_id("dag_id with a slash", "team/*", 'no dag_id has a "/"', "$1"),
    dag_id("dag_id as a regular expression", "^billing_.*", "which is a regular expression"),
    case(
        "route that never wins",
        '{"queue": "gpu-*", "to": ["b"]}, {"queue": "gpu-a*", "to": ["a"]}',
        "[dispatch] routes[1]",
        "is never used: routes[0] comes first and matches everything",
        '{"queue": "gpu-a*", "to": ["a"]}, {"queue": "gpu-*", "to": ["b"]}',
        "Put it before routes[0].",
        cfg=airflow_cfg(routes="[<>]"),
    ),
    case(
        "route that never wins, among those of a Dag",
        '{"queue": "*", "dag_id": "d*", "to": ["b"]}, {"queue": "g?", "dag_id": "dd", "to": ["a"]}',
        "[dispatch] routes[1]",
        "is never used: routes[0] comes first and matches everything",
        '{"queue": "g?", "dag_id": "dd", "to": ["a"]}, {"queue": "*", "dag_id": "d*", "to": ["b"]}',
        "Put it before routes[0].",
        cfg=airflow_cfg(routes="[<>]"),
    ),
    case(
        "two patterns that say the same",
        '{"queue": "g*", "to": ["b"]}, {"queue": "g**", "to": ["a"]}',
        "[dispatch] routes[1]",
        "is never used",
        '{"queue": "g*", "to": ["b", "a"]}',
        "Merge the two",
        cfg=airflow_cfg(routes="[<>]"),
    ),
    case(
        "route twice",
        '{"queue": "g", "to": ["b"]}, {"queue": "g", "to": ["a"]}',
        "[dispatch] routes[1]",
        "has the same queue and dag_id",
        '{"queue": "g", "to": ["b"]}',
        "remove one",
        cfg=airflow_cfg(routes="[<>]"),
    ),
]
