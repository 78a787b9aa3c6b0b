# SPDX-License-Identifier: Apache-2.0
"""One mistake, what ``airflow dispatch validate`` has to say about it, and its remedy as data that is applied.

A case is a configuration with a hole, ``<>``: the mistake stands there first, then what the remedy says to write. The
first has to give exactly one finding, the second none. So no remedy can send in a circle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

HOLE = "<>"
ROUTER = "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor"
LOCAL = '{"executor": "LocalExecutor", "slots": 4}'

Text = str | bytes


def airflow_cfg(
    backends: str = f'{{"a": {LOCAL}, "b": {LOCAL}}}',
    routes: str | None = '[{"queue": "q", "to": ["b"]}]',
    default: str | None = "a",
    executor: str = ROUTER,
    more: str = "",
) -> str:
    """An airflow.cfg without a mistake: two LocalExecutors, a route and a default.

    :param routes, default: None leaves the option out
    :param more: lines that follow in ``[dispatch]``, and further sections
    """
    options = {"backends": backends, "routes": routes, "default": default}
    lines = [f"{name} = {value}" for name, value in options.items() if value is not None]
    head = f"[core]\nexecutor = {executor}\nparallelism = 64\n[api_auth]\njwt_secret = of-a-test\n"
    return f"{head}[dispatch]\n" + "\n".join([*lines, more, ""])


@dataclass(frozen=True)
class Configuration:
    """All that a user writes. ``{home}`` stands for the folder of the files in every text."""

    cfg: str
    """airflow.cfg as a whole; nothing else is set."""

    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Text] = field(default_factory=dict)
    """By name, in AIRFLOW_HOME."""

    def replaced(self, old: str, new: str) -> Configuration:
        """With every ``old`` in the airflow.cfg, the environment (names, too) and the files replaced; there is one."""

        def change(text: Any) -> Any:
            return text.replace(old, new) if isinstance(text, str) else text

        changed = Configuration(
            change(self.cfg),
            {change(name): change(value) for name, value in self.env.items()},
            {change(name): change(value) for name, value in self.files.items()},
        )
        assert changed != self or old == new, f"{old!r} stands nowhere"
        return changed


@dataclass(frozen=True)
class Case:
    """A mistake. ``wrong`` and then ``mended`` are put into the hole.

    In ``mended``, ``$1`` is what the remedy quotes first, ``$2`` second, and ``$e`` what it gives after "e.g.". A
    ``mended`` without these needs ``remedy``: the words that were followed.
    """

    name: str
    configuration: Configuration
    wrong: str
    where: str
    found: str
    """A part of what was found."""

    mended: str
    remedy: str = ""
    """A part of the remedy."""

    severity: str = "mistake"
    also_mended: tuple[tuple[str, str], ...] = ()
    """Further replacements, for a remedy that says to change another place, too."""

    when: bool = True
    """False: there is no such mistake with this Airflow version."""


@dataclass(frozen=True)
class Answer:
    """Findings of ``airflow dispatch validate --output json``."""

    code: int
    findings: list[dict[str, str]]


Validate = Callable[[Configuration], Answer]


def case(
    name: str,
    wrong: str,
    where: str,
    found: str,
    mended: str,
    remedy: str = "",
    *,
    cfg: str = "",
    env: Mapping[str, str] | None = None,
    files: Mapping[str, Text] | None = None,
    **more: Any,
) -> Case:
    """:param cfg: by default one without a mistake, for a hole in ``env`` or ``files``"""
    configuration = Configuration(cfg or airflow_cfg(), env or {}, files or {})
    return Case(name, configuration, wrong, where, found, mended, remedy, **more)


def parameters(cases: list[Case]) -> dict[str, Any]:
    """For ``pytest.mark.parametrize``."""
    chosen = [case for case in cases if case.when]
    return {"argvalues": chosen, "ids": [case.name for case in chosen]}


def check(case: Case, validate: Validate, home: str) -> None:
    """One finding, as the case says; none once its remedy was followed."""
    answer = validate(case.configuration.replaced(HOLE, case.wrong))
    assert [(row["severity"], row["where"]) for row in answer.findings] == [
        (case.severity, case.where.replace("{home}", home))
    ], answer.findings
    (finding,) = answer.findings
    assert "hunter2" not in str(finding), "a secret is quoted"
    assert answer.code == (1 if case.severity == "mistake" else 0)
    assert case.found in finding["found"], finding
    assert case.remedy in finding["remedy"], finding
    mended = validate(_mended(case, finding["remedy"]))
    assert (mended.code, mended.findings) == (0, []), mended.findings


def _mended(case: Case, remedy: str) -> Configuration:
    words = _words(remedy)
    assert case.remedy or "$" in case.mended, "nothing says that the remedy was followed"
    result = case.configuration.replaced(HOLE, _filled(case.mended, words))
    for old, new in case.also_mended:
        result = result.replaced(old, _filled(new, words))
    return result


def _words(remedy: str) -> dict[str, str]:
    """The text that a remedy offers to be written, by the names that ``mended`` has for it."""
    quoted = [a or b for a, b in re.findall(r"""'([^']+)'|"([^"]+)\"""", remedy)]
    words = {f"${number}": word for number, word in enumerate(quoted, start=1)}
    if example := re.search(r"e\.g\. (.+?)(?:, or .*)?\.?$", remedy):
        words["$e"] = example[1]
    return words


def _filled(text: str, words: Mapping[str, str]) -> str:
    def word(match: re.Match[str]) -> str:
        assert match[0] in words, f"the remedy offers no {match[0]}: {words}"
        return words[match[0]]

    return re.sub(r"\$[1-9e]", word, text)


def at_home(configuration: Configuration, home: str) -> Configuration:
    """With the folder of the files in place of ``{home}``."""
    if "{home}" not in repr(configuration):
        return configuration
    return replace(configuration.replaced("{home}", home))


def answer(code: int, out: str) -> Answer:
    return Answer(code, json.loads(out))
