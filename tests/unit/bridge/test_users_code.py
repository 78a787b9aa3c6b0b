# SPDX-License-Identifier: Apache-2.0
"""Code of users may hang, and may try to end the process: neither reaches the scheduler."""

from __future__ import annotations

import itertools
import logging
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_dispatch_provider.bridge import users_code
from airflow_dispatch_provider.bridge.users_code import bounded, import_users_module
from airflow_dispatch_provider.exceptions import EndsProcess, TookTooLong
from tests.support import wait_until

NUMBER = itertools.count()
SHORT = 0.05


def hang() -> None:
    threading.Event().wait()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, to be written, of a module that no other test has imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / f"slow_module_{next(NUMBER)}.py"


def test_what_hangs_is_interrupted():
    with (
        pytest.raises(TookTooLong, match=r"^the import takes longer than 0\.05 s$"),
        bounded("the import", SHORT),
    ):
        hang()


def test_an_except_clause_of_the_code_does_not_catch_the_interruption():
    def hang_and_catch() -> None:
        with suppress(Exception):
            hang()

    with pytest.raises(TookTooLong), bounded("it", SHORT):
        hang_and_catch()


def test_the_outer_bound_holds_within_an_inner_one():
    with pytest.raises(TookTooLong, match="outer"), bounded("outer", SHORT), bounded("inner", 60):
        hang()


def test_the_timer_that_was_there_goes_on():
    """pytest-timeout uses the same one, and so does Airflow."""
    fired: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: fired.append(number))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with bounded("it", 60):
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        wait_until(lambda: fired)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_no_thread_is_left():
    """The LocalExecutor forks next."""
    before = threading.active_count()
    with bounded("it", 60):
        pass
    assert threading.active_count() == before


def test_a_limit_of_0_is_none():
    before = signal.getsignal(signal.SIGALRM)
    with bounded("it", 0):
        assert signal.getsignal(signal.SIGALRM) is before


def test_another_thread_is_not_interrupted():
    """Nothing can interrupt it; it is not refused either."""
    done = []

    def run() -> None:
        with bounded("it", SHORT):
            done.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [1]


@pytest.mark.parametrize("logs", [True, False])
def test_what_is_waited_for_is_said(logs: bool, caplog, capsys, monkeypatch: pytest.MonkeyPatch):
    """In the log; in a command of Airflow's, which switches it off, on stderr."""
    monkeypatch.setattr(users_code, "NOTICE", 0.0)
    logging.disable(logging.NOTSET if logs else logging.CRITICAL)
    text = ""

    def said() -> bool:
        nonlocal text
        text += caplog.text if logs else capsys.readouterr().err
        return "Waiting for the import of x (limit: none)." in text

    try:
        with bounded("the import of x", 0):
            wait_until(said)
    finally:
        logging.disable(logging.NOTSET)


def test_a_module_that_hangs_is_imported_once(module: Path, monkeypatch: pytest.MonkeyPatch):
    """Every further try would take as long again."""
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "0.2")
    runs = module.with_suffix(".runs")
    module.write_text(
        f"with open({str(runs)!r}, 'a') as file: file.write('run ')\nimport threading\nthreading.Event().wait()"
    )
    for _ in range(3):
        with pytest.raises(TookTooLong, match=f"the import of {module.stem} takes longer than 0.2 s"):
            import_users_module(module.stem)
    assert runs.read_text() == "run "
    assert module.stem not in sys.modules


def test_an_exit_becomes_an_error_that_knows_its_place(module: Path):
    module.write_text("import sys\nsys.exit('hunter2')")
    with pytest.raises(EndsProcess, match=r"^tries to end the process \(SystemExit\)$") as error:
        import_users_module(module.stem)
    assert traceback.extract_tb(error.value.__traceback__)[-1].filename == str(module)
    assert "hunter2" not in "".join(traceback.format_exception(error.value)).replace(
        "sys.exit('hunter2')", ""
    )


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_a_signal_ends_the_process_all_the_same(exception: type[BaseException]):
    """Airflow's scheduler ends by a SystemExit that its handler of SIGTERM raises wherever it is at that moment."""

    class Job:
        def exit_gracefully(self, number: int, frame: object) -> None:
            raise exception

    before = signal.signal(signal.SIGTERM, Job().exit_gracefully)
    try:
        with pytest.raises(exception), bounded("it", 60):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
