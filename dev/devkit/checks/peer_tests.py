# SPDX-License-Identifier: Apache-2.0
"""Run the executor tests of Airflow's Celery and Kubernetes providers on the executors of this package.

The tests come with the source distributions of the providers, in the versions of the lock file. They see this package's
class under the name of Airflow's. dev/peer_tests.toml lists the tests that cannot pass, each with a reason: another
failure fails the command, and so does a listed test that passes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devkit.arguments import add_airflow_version, parser_of
from devkit.environment import (
    DEV,
    PYTHON,
    REPO,
    DevError,
    airflow_environ,
    ensure,
    home,
    kept,
    lock_file,
    new_environment,
    run_uv,
    step,
)
from devkit.tables import Cell, table

LISTED = DEV / "peer_tests.toml"
PLUGINS = ("pytest-asyncio==1.5.0", "pytest-mock==3.17.0", "time-machine==3.6.0")
"""The tests need them beside the environment; with ``peer_plugin`` they stand in for apache-airflow-devel-common, whose
release on the package index is older than these tests."""

AIRFLOW, EMPTY, OURS = "airflow", "empty", "ours"
_SECONDS = 60
"""For one test; on an idle machine the slowest takes a few."""


@dataclass(frozen=True)
class Provider:
    """A provider of Airflow's: its distribution, its tests, the class that they are about, and ours."""

    name: str
    distribution: str
    tests: str
    place: str
    ours: str


PROVIDERS = {
    "celery": Provider(
        "celery",
        "apache-airflow-providers-celery",
        "tests/unit/celery/executors",
        "airflow.providers.celery.executors.celery_executor:CeleryExecutor",
        "airflow_dispatch_provider.executors.celery_executor:CeleryExecutor",
    ),
    "kubernetes": Provider(
        "kubernetes",
        "apache-airflow-providers-cncf-kubernetes",
        "tests/unit/cncf/kubernetes/executors",
        "airflow.providers.cncf.kubernetes.executors.kubernetes_executor:KubernetesExecutor",
        "airflow_dispatch_provider.executors.kubernetes_executor:KubernetesExecutor",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Of one test; ``word`` is passed, failed or skipped."""

    word: str
    message: str


Outcomes = Mapping[str, Outcome]
"""By name, as in dev/peer_tests.toml: ``Class::test[parameters]``."""


@dataclass(frozen=True)
class Listed:
    """The tests of one provider that cannot pass: reason by name. A name without parameters is for all of them."""

    reasons: Mapping[str, str]

    def reason(self, test: str) -> str | None:
        return self.reasons.get(test) or self.reasons.get(test.partition("[")[0])


@dataclass(frozen=True)
class Verdict:
    """The meaning of the outcomes of our class.

    :ivar failures: tests that failed and are not listed
    :ivar wrongly_listed: tests that are listed and passed
    :ivar reasons: how many listed tests failed, by reason
    """

    passed: Sequence[str]
    skipped: int
    failures: Sequence[str]
    wrongly_listed: Sequence[str]
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return bool(self.passed) and not self.failures and not self.wrongly_listed


@dataclass(frozen=True)
class Result:
    provider: Provider
    version: str
    outcomes: Outcomes
    verdict: Verdict
    controls: Mapping[str, Outcomes]
    """Outcomes with Airflow's own class and with an empty one; empty where they were not asked for."""


def main() -> int:
    options = _parse()
    chosen = [PROVIDERS[name] for name in options.provider or PROVIDERS]
    reasons, listed = read_listed(LISTED.read_text(), options.airflow_version)
    python = ensure(options.airflow_version)
    plugins = _plugins()
    with tempfile.TemporaryDirectory(prefix="dispatch-peer-", ignore_cleanup_errors=True) as name:
        runner = Runner(python, plugins, Path(name))
        results = [
            _result(provider, options, runner, listed.get(provider.name, Listed({}))) for provider in chosen
        ]
    print("\n".join(lines(results, reasons)))
    return 0 if all(result.verdict.ok for result in results) else 1


def _parse() -> argparse.Namespace:
    parser = parser_of(
        "./dev/peer-tests", __doc__, epilog="example:\n  ./dev/peer-tests --provider celery --control"
    )
    add_airflow_version(parser)
    parser.add_argument(
        "--provider", action="append", choices=list(PROVIDERS), help="may be repeated; default: both"
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="also run the tests on Airflow's own class and on an executor without a method of its own, and say how "
        "many of the passed ones could tell ours from that",
    )
    return parser.parse_args()


def read_listed(text: str, airflow_version: str) -> tuple[dict[str, str], dict[str, Listed]]:
    """The meaning of each reason, and the tests by provider that are listed for this Airflow version.

    :raises DevError: a test is listed twice, or with a reason that is not explained
    """
    data = tomllib.loads(text)
    explained: dict[str, dict[str, str]] = data.pop("reasons")
    meanings = {reason: each["why"] for reason, each in explained.items()}
    holding = {
        reason
        for reason, each in explained.items()
        if _minor(airflow_version) >= _minor(each.get("since", "0.0"))
    }
    listed = {}
    for provider, groups in data.items():
        pairs = [(test, reason) for reason, tests in groups.items() for test in tests]
        twice = [test for test, count in Counter(test for test, _ in pairs).items() if count > 1]
        unknown = sorted({reason for _, reason in pairs} - meanings.keys())
        if twice or unknown:
            raise DevError(
                f"{LISTED.name}, {provider}: listed twice: {twice}; reasons not explained: {unknown}"
            )
        listed[provider] = Listed({test: reason for test, reason in pairs if reason in holding})
    return meanings, listed


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def locked_version(lock: str, distribution: str) -> str:
    """:raises DevError: the lock file does not have it"""
    found = re.search(rf"^{re.escape(distribution)}==(\S+)", lock, re.MULTILINE)
    if found is None:
        raise DevError(f"{distribution} is not in the lock file. Make it anew: ./dev/lock")
    return found[1]


def judge(outcomes: Outcomes, listed: Listed) -> Verdict:
    by_word: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for test, outcome in outcomes.items():
        by_word[outcome.word].append(test)
    reasons = [listed.reason(test) for test in by_word["failed"]]
    return Verdict(
        passed=by_word["passed"],
        skipped=len(by_word["skipped"]),
        failures=[test for test in by_word["failed"] if listed.reason(test) is None],
        wrongly_listed=[test for test in by_word["passed"] if listed.reason(test) is not None],
        reasons=Counter(reason for reason in reasons if reason is not None),
    )


def telling(passed: Sequence[str], empty: Outcomes) -> int:
    """How many of the passed tests fail with an executor that has nothing of its own: only these say something of
    ours."""
    return sum(test not in empty or empty[test].word != "passed" for test in passed)


def _result(provider: Provider, options: argparse.Namespace, runner: Runner, listed: Listed) -> Result:
    version = locked_version(lock_file(options.airflow_version).read_text(), provider.distribution)
    sources = _sources(provider.distribution, version)
    outcomes = runner.outcomes(provider, sources, OURS)
    controls = (
        {choice: runner.outcomes(provider, sources, choice) for choice in (AIRFLOW, EMPTY)}
        if options.control
        else {}
    )
    return Result(provider, version, outcomes, judge(outcomes, listed), controls)


class Runner:
    """Runs the tests of a provider, with one database for all runs."""

    def __init__(self, python: Path, plugins: Path, folder: Path) -> None:
        """
        :param python: of the environment with the chosen Airflow version
        :param plugins: folder with what the tests import beside that
        :param folder: for temporary files
        """
        self._python = python
        self._plugins = plugins
        self._folder = folder
        self._environ = airflow_environ(folder / "airflow")
        with step("Making a database"):
            done = self._run(["-m", "airflow", "db", "migrate"], folder, {})
        if done.returncode:
            raise DevError(f"`airflow db migrate` failed:\n{done.stdout[-3000:]}")

    def outcomes(self, provider: Provider, sources: Path, choice: str) -> Outcomes:
        """
        :param choice: the class that the tests see: OURS, AIRFLOW or EMPTY
        :raises DevError: pytest could not run them
        """
        written = self._folder / f"{provider.name}-{choice}.json"
        paths = (DEV, self._plugins, sources)
        environ = {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PEER_PLACE": provider.place,
            "PEER_CHOICE": provider.ours if choice == OURS else choice,
            "PEER_OUTCOMES": str(written),
        }
        # Neither the settings of this checkout nor the strictness of its own tests.
        settings = ["-c", os.devnull, "--rootdir", str(sources), "-p", "no:cacheprovider", "-W", "ignore"]
        # Quarantined ones are not run by Airflow either.
        chosen = ["-m", "not quarantined", f"--timeout={_SECONDS}", provider.tests]
        arguments = ["-m", "pytest", "-q", "-p", "devkit.checks.peer_plugin", *settings, *chosen]
        with step(f"Tests of the {provider.name} provider, {choice}"):
            done = self._run(arguments, sources, environ)
        if not written.exists():
            raise DevError(f"pytest could not run the tests:\n{done.stdout[-3000:]}")
        return read_outcomes(json.loads(written.read_text()))

    def _run(
        self, arguments: Sequence[str], cwd: Path, environ: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._python), *arguments],
            cwd=cwd,
            env={**self._environ, **environ},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


def read_outcomes(written: Mapping[str, Sequence[str]]) -> Outcomes:
    """Of what ``peer_plugin`` has written, by node id.

    :raises DevError: two files have a test of the same name
    """
    counts = Counter(node.partition("::")[2] for node in written)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DevError(f"several files have tests of these names, give their files in the list: {twice}")
    return {node.partition("::")[2]: Outcome(word, message) for node, (word, message) in written.items()}


def _plugins() -> Path:
    """A folder for PYTHONPATH. The environments stay what the lock files say."""

    def install(folder: Path) -> None:
        target = ["--target", str(folder), "--python-version", PYTHON]
        with step("Installing what the tests import"):
            run_uv(["pip", "install", "--quiet", "--no-deps", *target, *PLUGINS])

    return _kept(f"plugins-py{PYTHON}-{'-'.join(PLUGINS).replace('==', '-')}", install)


def _sources(distribution: str, version: str) -> Path:
    """A source distribution, downloaded and unpacked."""

    def download(folder: Path) -> None:
        with step(f"Downloading the sources of {distribution} {version}"):
            # uv downloads only what it installs, and then without the tests.
            folder.mkdir()
            python = new_environment(folder / "pip")
            run_uv(["pip", "install", "--quiet", "--python", str(python), "pip"])
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            wanted = ["--no-deps", "--no-binary=:all:", f"--dest={folder}", f"{distribution}=={version}"]
            if subprocess.run([*pip, *wanted], check=False).returncode:
                raise DevError(f"pip could not download {distribution} {version} (see above)")
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(folder / "unpacked", filter="data")

    (sources,) = (_kept(f"{distribution}-{version}", download) / "unpacked").iterdir()
    return sources


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    parent = home() / "peer-tests"
    parent.mkdir(exist_ok=True)
    return kept(parent / name, make)


def lines(results: Sequence[Result], meanings: Mapping[str, str]) -> list[str]:
    """A table, the reasons, and then what is wrong."""
    headers = ("provider", "version", "tests", "passed", "skipped", "listed", "unexpected")
    out = ["", *table(headers, [_cells(result) for result in results]), *_control_lines(results)]
    reasons = [
        (count, result.provider.name, reason, meanings[reason])
        for result in results
        for reason, count in result.verdict.reasons.most_common()
    ]
    out += ["", *table(("listed", "provider", "reason", ""), reasons)]
    for result in results:
        out += _wrong_lines(result)
    return out


def _cells(result: Result) -> tuple[Cell, ...]:
    verdict = result.verdict
    wrong = len(verdict.failures) + len(verdict.wrongly_listed)
    counts = (
        len(result.outcomes),
        len(verdict.passed),
        verdict.skipped,
        sum(verdict.reasons.values()),
        wrong,
    )
    return (result.provider.name, result.version, *counts)


def _control_lines(results: Sequence[Result]) -> list[str]:
    if not all(result.controls for result in results):
        return []
    headers = ("of the passed tests", "with an empty class", "only with ours", "failed with own")
    rows = []
    for result in results:
        passed = result.verdict.passed
        ours = telling(passed, result.controls[EMPTY])
        broken = sum(outcome.word == "failed" for outcome in result.controls[AIRFLOW].values())
        rows.append((result.provider.name, len(passed) - ours, ours, broken))
    return ["", *table(headers, rows)]


def _wrong_lines(result: Result) -> list[str]:
    name = result.provider.name
    out = []
    for test in result.verdict.failures:
        first = (result.outcomes[test].message.splitlines() or [""])[0]
        out.append(f"FAILED   {name}: {test}: {first}")
    for test in result.verdict.wrongly_listed:
        out.append(f"PASSED   {name}: {test}: take it off {LISTED.relative_to(REPO)}")
    return ["", *out] if out else []
