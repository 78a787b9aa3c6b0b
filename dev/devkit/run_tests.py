# SPDX-License-Identifier: Apache-2.0
"""Run the tests in an environment of their own, made on first use. Everything else goes to pytest."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from devkit.environment import (
    AIRFLOW_VERSIONS,
    DEFAULT_AIRFLOW_VERSION,
    ENVIRONMENTS,
    REPO,
    WITH_FOREIGN_EXECUTORS,
    Terminated,
    airflow_environ,
    ensure,
    interrupt_on_signals,
    say,
    selection,
)
from devkit.tables import table

_one_report_at_a_time = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()

_ENGINES = [
    f"tests/integration/{room}" for room in ("celery", "conformance", "docs", "helm", "hybrids", "kubernetes")
]
"""About half of what the integration tests of the default version take: so that two lanes share them."""

_FOREIGN = ["tests/integration/foreign", "tests/integration/operate/test_fab.py"]
"""Need the environment with other providers' executors, and their auth manager."""

AGAIN = 3
"""Up to so many failed tests of a run with all versions are run again by themselves, at its end. What passes then is no
failure, and is named in the summary: whole deployments share two cores with other tests."""

_EXAMPLES = """examples:
  ./dev/test                              unit, integration and acceptance tests on Airflow %(default)s
  ./dev/test tests/unit -k circuit        some of them
  ./dev/test --airflow-version 3.1.8 -x   on another version, stopping at the first failure
  ./dev/test --all-versions               everything on every supported version, three runs at a time,
                                          with a summary; what does not depend on Airflow runs once, with
                                          %(default)s
  ./dev/test -- --help                    pytest's own options
"""


@dataclass(frozen=True)
class Suite:
    """A selection of tests: its name in the summary, and pytest's arguments."""

    what: str
    arguments: list[str]


Work = tuple[str, Suite]
"""An Airflow version, and what to test with it."""


@dataclass(frozen=True)
class Result:
    """Outcome of one pytest run; all counts are 0 when it ended before it could report.

    :ivar failed: how many failed, the second time too if there was one
    :ivar failures: names of those
    :ivar unsteady: names of tests that failed, and passed when they were run again
    :ivar skips: how many tests were skipped, by reason
    """

    airflow_version: str
    exit_code: int
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()
    skips: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    what: str = "tests"

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and self.failed == 0 and self.passed > 0


def main() -> int:
    options, pytest_arguments = _parse()
    interrupt_on_signals()
    if not options.all_versions:
        return _pytest(options.airflow_version, pytest_arguments)
    results = (
        _everything()
        if not pytest_arguments
        else [_run(version, Suite("tests", pytest_arguments)) for version in AIRFLOW_VERSIONS]
    )
    _print_summary(results)
    return 0 if all(result.ok for result in results) else 1


def _everything() -> list[Result]:
    """Whole deployments keep a core busy, and are sensitive to how busy the machine is: one lane runs them one after
    the other. Other tests wait for much of their time: two more lanes, and the first one once it is through, run those,
    the longest first."""
    pages = ["tests/acceptance/test_how_to.py", "tests/acceptance/test_readme.py"]
    deployments = Suite("acceptance", ["tests/acceptance", *(f"--ignore={page}" for page in pages)])
    unit = Suite("unit", ["tests/unit"])
    integration = Suite("integration", ["tests/integration", *(f"--ignore={path}" for path in _FOREIGN)])
    others = [*integration.arguments, *(f"--ignore={path}" for path in _ENGINES)]
    longest, *shorter = sorted(AIRFLOW_VERSIONS, key=lambda version: version != DEFAULT_AIRFLOW_VERSION)
    one_by_one = deque((version, deployments) for version in AIRFLOW_VERSIONS)
    beside_these = deque(
        [
            (longest, Suite("integration, engines", _ENGINES)),
            (longest, Suite("integration, others", others)),
            (longest, unit),
            (longest, Suite("README, quickstart, how-tos", pages)),
            *((version, integration) for version in reversed(shorter)),
            (WITH_FOREIGN_EXECUTORS, Suite("other providers' executors", _FOREIGN)),
            *((version, unit) for version in shorter),
        ]
    )
    with ThreadPoolExecutor(3) as pool:
        lanes = [pool.submit(_lane, one_by_one, beside_these)]
        lanes += [pool.submit(_lane, beside_these) for _ in range(2)]
        try:
            results = [result for lane in lanes for result in lane.result()]
        except KeyboardInterrupt as interrupt:
            one_by_one.clear()
            beside_these.clear()
            for process in list(_running):
                _pass_on(interrupt, process)
            raise
    return sorted(results, key=lambda result: (result.airflow_version, result.what))


def _lane(*queues: deque[Work]) -> list[Result]:
    """Run what is in the queues, one after the other; other lanes may take from them meanwhile."""
    results: list[Result] = []
    for queue in queues:
        while True:
            try:
                work = queue.popleft()
            except IndexError:
                break
            results.append(_run(*work))
    return results


def _run(airflow_version: str, suite: Suite) -> Result:
    return _measured(airflow_version, suite.what, [*suite.arguments, *selection(airflow_version)])


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="./dev/test",
        usage="./dev/test [--airflow-version X | --all-versions] [pytest arguments]",
        description=__doc__,
        epilog=_EXAMPLES % {"default": DEFAULT_AIRFLOW_VERSION},
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--airflow-version",
        choices=ENVIRONMENTS,
        default=DEFAULT_AIRFLOW_VERSION,
        help="the Airflow, or the environment, to test with (default: %(default)s)",
    )
    which.add_argument("--all-versions", action="store_true", help="test with each of them in turn")
    arguments = sys.argv[1:]
    rest: list[str] = []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, rest = arguments[:split], arguments[split + 1 :]
    options, unknown = parser.parse_known_args(arguments)
    return options, unknown + rest


def _measured(airflow_version: str, what: str, arguments: list[str]) -> Result:
    say(f"-- Airflow {airflow_version}, {what}: running ...")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dispatch-test-") as folder:
        cache = ["-o", f"cache_dir={folder}/cache"]
        result = _reported(
            Result(airflow_version, 0, what=what), Path(folder), ["--durations=40", *cache, *arguments]
        )
        if 0 < result.failed <= AGAIN:
            only_failed = ["--last-failed", "--last-failed-no-failures=none", *cache]
            second = _reported(
                replace(result, what=f"{what}, what failed, again"), Path(folder), [*only_failed, *arguments]
            )
            result = judged(result, second)
    return replace(result, seconds=time.monotonic() - began)


def judged(first: Result, second: Result) -> Result:
    """A run, after what failed in it was run again."""
    if not second.ok or second.passed != len(set(first.failures)):
        return first
    unsteady = tuple(dict.fromkeys(first.failures))
    passed = first.passed + len(unsteady)
    return replace(first, exit_code=0, passed=passed, failed=0, failures=(), unsteady=unsteady)


def _reported(run: Result, folder: Path, arguments: list[str]) -> Result:
    """Run pytest and print what it says, in one piece."""
    report, output = folder / "report.xml", folder / "output.txt"
    report.unlink(missing_ok=True)
    with output.open("wb") as file:
        exit_code = _pytest(run.airflow_version, [*arguments, f"--junit-xml={report}"], file)
    with _one_report_at_a_time:
        print(f"\n===== Airflow {run.airflow_version}, {run.what} =====")
        print(output.read_text(errors="replace"), flush=True)
    result = replace(run, exit_code=exit_code)
    return counted(result, ElementTree.parse(report).getroot()) if report.exists() else result


def _pytest(airflow_version: str, arguments: list[str], output: BinaryIO | None = None) -> int:
    python = ensure(airflow_version)
    with tempfile.TemporaryDirectory(prefix="dispatch-test-", ignore_cleanup_errors=True) as airflow_home:
        command = [str(python), "-m", "pytest", *arguments]
        process = subprocess.Popen(
            command,
            cwd=REPO,
            env=airflow_environ(airflow_home),
            stdout=output,
            stderr=output,
            start_new_session=not _at_terminal(),
        )
        _running.add(process)
        try:
            return process.wait()
        except KeyboardInterrupt as interrupt:
            _pass_on(interrupt, process)
            process.wait()  # it has its own things to stop
            raise
        finally:
            _running.discard(process)


def _at_terminal() -> bool:
    """There pytest gets the same Ctrl-C, and can ask something. Elsewhere a signal may be for the whole group, as that
    of ``timeout`` is: SIGTERM would end pytest before it has stopped what it started, and so it is in no such group."""
    return sys.stdin.isatty()


def _pass_on(interrupt: KeyboardInterrupt, process: subprocess.Popen[bytes]) -> None:
    if isinstance(interrupt, Terminated) or not _at_terminal():
        process.send_signal(signal.SIGINT)


def counted(result: Result, report: ElementTree.Element) -> Result:
    """With the counts of a JUnit report."""
    suites = list(report.iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    passed = max(0, total - failed - skipped)
    failures_of = (case for kind in ("failure", "error") for case in report.iterfind(f".//testcase[{kind}]"))
    names = tuple(f"{case.get('classname')}.{case.get('name')}" for case in failures_of)
    skips = Counter(each.get("message", "") for each in report.iter("skipped"))
    return replace(result, passed=passed, failed=failed, failures=names, skipped=skipped, skips=skips)


def skip_lines(results: Sequence[Result]) -> list[str]:
    """One for each reason: how many tests of which Airflow versions were skipped for it."""
    reasons = sum((result.skips for result in results), Counter[str]())
    return [
        f"{count:>5}  {reason} ({', '.join(_versions(results, reason))})"
        for reason, count in reasons.most_common()
    ]


def unsteady_lines(results: Sequence[Result]) -> list[str]:
    """One for each test that did not pass at once; its output stands further up."""
    return [f"  {name} ({result.airflow_version})" for result in results for name in result.unsteady]


def _versions(results: Sequence[Result], reason: str) -> list[str]:
    return sorted({result.airflow_version for result in results if reason in result.skips})


def _print_summary(results: list[Result]) -> None:
    headers = ("Airflow", "tests", "passed", "failed", "skipped", "seconds", "result")
    rows = [
        (
            each.airflow_version,
            each.what,
            each.passed,
            each.failed,
            each.skipped,
            each.seconds,
            _verdict(each),
        )
        for each in results
    ]
    print("", *table(headers, rows, {"seconds": ".1f"}), sep="\n")
    if lines := unsteady_lines(results):
        print("\nTests that failed, and passed when they were run again by themselves:", *lines, sep="\n")
    if lines := skip_lines(results):
        print("\nTests skipped, by reason (and Airflow version):", *lines, sep="\n")


def _verdict(result: Result) -> str:
    if result.ok:
        return "ok"
    if result.passed + result.failed == 0:
        return f"FAILED: no test was executed (pytest exit code {result.exit_code})"
    return f"FAILED (pytest exit code {result.exit_code})"
