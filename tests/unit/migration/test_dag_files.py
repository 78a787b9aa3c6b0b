# SPDX-License-Identifier: Apache-2.0
"""Names found in the source of a Dag, without importing it."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.migration.dag_files import scan_source


def found(source: str) -> list[tuple[str | None, str | None]]:
    uses, unread = scan_source(source.encode(), "d.py")
    assert unread == []
    return [(use.queue, use.executor) for use in uses]


def unread(source: str) -> list[str]:
    uses, missed = scan_source(source.encode(), "d.py")
    assert uses == []
    return [f"{one.where}: {one.what}" for one in missed]


@pytest.mark.parametrize(
    "source",
    [
        "BashOperator(task_id='t', queue='q', executor='e')",
        "@task(queue='q', executor='e')\ndef t(): ...",
        "@task.virtualenv(queue='q', executor='e')\ndef t(): ...",
        "t.override(queue='q', executor='e')()",
        "O.partial(task_id='t', queue='q', executor='e').expand(x=[1])",
        "DAG('d', default_args={'owner': 'me', 'queue': 'q', 'executor': 'e'})",
        "default_args = dict(queue='q', executor='e')",
        "args.update(queue='q', executor='e')",
        "Q = 'q'\nE: str = 'e'\nO(queue=Q, executor=E)",
        "async def f():\n    O(**x, queue='q', executor='e')",
    ],
)
def test_every_way_to_say_it(source: str) -> None:
    """Keyword arguments of any call, dicts, and names that stand for one text."""
    assert found(source) == [("q", "e")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("args['queue'] = 'q'", [("q", None)]),
        ("O(queue='a' if big else 'b')", [("a", None), ("b", None)]),
        ("O(queue='a' if big else None)", [("a", None)]),
        ("O(queue=None, executor=None)", []),
        ("O(queue='')", []),
        ("O(task_id='queue')", []),
        ("{'queues': 'q'}", []),
        ("O(queue='a')\nO(executor='b')", [("a", None), (None, "b")]),
    ],
)
def test_what_else_counts(source: str, expected: list[tuple[str | None, str | None]]) -> None:
    """Both sides of a choice count; None and empty text are the default and do not."""
    assert found(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "O(queue=QUEUE)",
        "O(queue=f'q-{x}')",
        "O(queue=Variable.get('q'))",
        "Q = 'a'\nQ = 'b'\nO(queue=Q)",
        "Q = 'a'\ndef f(Q):\n    O(queue=Q)",
        "Q = 'a'\nfor Q in 'bc': O(queue=Q)",
        "from a import Q\nO(queue=Q)",
        "try:\n    from a import Q\nexcept ImportError:\n    Q = 'a'\nO(queue=Q)",
        "Q = 'a'\nif x:\n    from a import b as Q\nO(queue=Q)",
        "O(queue=7)",
    ],
)
def test_what_is_computed_is_named_by_its_line(source: str) -> None:
    """A name that may mean something else is not taken for its text."""
    line = source.count("\n") + 1
    assert unread(source) == [f"d.py:{line}: queue= is computed"]


def test_what_is_known_of_a_computed_pair_is_kept() -> None:
    """An executor counts even where the queue beside it is not known."""
    uses, missed = scan_source(b"O(queue=x, executor='e')", "d.py")
    assert [(use.where, use.queue, use.executor) for use in uses] == [("d.py:1", None, "e")]
    assert [one.what for one in missed] == ["queue= is computed"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"print 'hello'", " (line 1)"),
        (b"\xff\xfe\x00", ""),
        (b"x = '\x00'", ""),
        (b"(" * 5000, ""),
        (b"-" * 20000 + b"1", ""),
    ],
)
def test_what_is_no_python_stops_nothing(source: bytes, line: str) -> None:
    """The file is named among what could not be read."""
    uses, (missed,) = scan_source(source, "d.py")
    assert uses == []
    assert missed.where == "d.py"
    assert missed.what.startswith("is no Python that can be read" + line)


def test_warnings_of_the_source_are_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    """Invalid escapes are common in Dags and would end up on the screen."""
    assert found(r"O(queue='q', x='\d')") == [("q", None)]
    assert len(recwarn) == 0


def test_nothing_is_run() -> None:
    """Source that would fail or do harm is only read."""
    assert found("raise SystemExit\nO(queue='q')") == [("q", None)]


@pytest.mark.parametrize(
    "source",
    [
        "task.queue = 'x'",
        "task.queue: str = 'x'",
        "a['y'] = a['queue'] = 'x'",
        "a['queue']: str = 'x'",
        "class Heavy(Operator):\n    queue = 'x'",
        "class Heavy(Operator):\n    queue: str = 'x'",
        "setattr(task, 'queue', 'x')",
        "args.setdefault('queue', 'x')",
    ],
)
def test_what_is_set_afterwards_counts(source: str) -> None:
    """Attributes, keys of dicts and classes of the user's own."""
    uses, unread = scan_source(source.encode(), "f")
    assert ([use.queue for use in uses], unread) == (["x"], [])


def test_a_variable_is_no_queue_of_a_task() -> None:
    """A dictionary counts where it is used, for what it is used."""
    assert scan_source(b"queue = 'x'\n", "f") == ([], [])
