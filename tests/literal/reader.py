# SPDX-License-Identifier: Apache-2.0
"""A reader who knows nothing but the page: an empty home, no Airflow settings, no habits."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from .page import PageError, Step, steps_of
from .printed import is_printed
from .terminal import Terminal, TerminalError
from .users import as_user, identity, own

INHERITED = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""How this machine reaches a package index; all else of the environment is left behind."""

_BESIDE = 0
"""The number of a terminal that no page knows of."""


class Reader:
    """Follows pages, each terminal in the same folder; stops and removes everything in the end.

    :param path: folders to look for commands in, before those of the system.
    :param env: what this reader has set before the page begins.
    :param uid: who the reader is; another than this process's needs root.
    :param renamed: words of the page to replace, such as a port that is taken on this machine.
    :param stopping: seconds for what still runs at the end of a page to stop.
    """

    def __init__(
        self,
        path: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        renamed: Mapping[str, str] | None = None,
        stopping: float = 120,
    ) -> None:
        self._stopping = stopping
        self._uid = os.getuid() if uid is None else uid
        self._renamed = dict(renamed or {})
        self._root = Path(tempfile.mkdtemp(prefix="literal-"))
        self._root.chmod(0o755)
        self.home = self._folder("home")
        self.folder = self._folder("a folder")
        self._env = {**self._environment(path), **(env or {})}
        self._terminals: dict[int, Terminal] = {}
        self._last = 1
        self._is_followed = True
        self._printed = ""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            if kind is None and self._is_followed:
                self._leave()
        finally:
            self._clear_up()

    def follow(self, page: Path, timeout: float = 300) -> None:
        """Do what a page says; raises PageError with its line for the first step that is not as it says.

        :param timeout: seconds for each step.
        """
        self._is_followed = False
        for step in steps_of(page):
            self._do(step, timeout)
        self._is_followed = True

    def _do(self, step: Step, timeout: float) -> None:
        text = self._as_here(step.text)
        if step.verb == "run":
            self._run(step, text, timeout, step.until)
        elif step.verb == "file":
            self._run(step, _saved(text, step.detail), timeout)
        elif step.verb == "wait":
            self._wait(step, text, timeout)
        elif step.verb == "output" and not is_printed(text, self._printed):
            raise PageError(f"{step.place}: not what was printed:\n{self._printed}")

    def _run(self, step: Step, text: str, timeout: float, until: str | None = None) -> None:
        self._last = step.terminal
        terminal = self._terminal(step.terminal)
        self._type(step, terminal, text, timeout, until)
        self._printed = terminal.printed

    def _wait(self, step: Step, command: str, timeout: float) -> None:
        """In the terminal used last, or beside it where a program keeps running there."""
        terminal = self._terminal(self._last)
        if terminal.is_busy:
            terminal = self._terminal(_BESIDE)
        self._type(step, terminal, f"until {command}; do sleep 1; done", timeout)

    def _type(
        self, step: Step, terminal: Terminal, text: str, timeout: float, until: str | None = None
    ) -> None:
        try:
            terminal.run(text, timeout, until)
        except TerminalError as error:
            raise PageError(
                f"{step.place}: {error}\n{text}\nIt printed:\n{terminal.printed[-5000:]}"
            ) from error

    def _terminal(self, number: int) -> Terminal:
        if number not in self._terminals:
            self._terminals[number] = Terminal(self.folder, self._env, as_user(self._uid))
        return self._terminals[number]

    def _as_here(self, text: str) -> str:
        for word, here in self._renamed.items():
            text = text.replace(word, here)
        return text

    def _leave(self) -> None:
        for number, terminal in self._terminals.items():
            try:
                terminal.leave(self._stopping)
            except TerminalError as error:
                raise PageError(f"terminal {number}: {error}:\n{terminal.printed[-2000:]}") from error
        deadline = time.monotonic() + self._stopping
        while (left := self._processes()) and time.monotonic() < deadline:
            psutil.wait_procs(left, timeout=1)
        if left:
            raise PageError(f"the page does not say how to stop {[process.cmdline() for process in left]}")

    def _clear_up(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()
        while left := self._processes():
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self._root, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """All that were started in the terminals, whatever became of their parents, groups and sessions."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    process.environ().get("HOME") == str(self.home)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir()
        own(folder, self._uid)
        return folder

    def _environment(self, path: Sequence[Path]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name.upper().startswith(INHERITED)}
        system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        return {
            **inherited,
            **identity(self._uid, self.home),
            "PATH": ":".join([*map(str, path), *system]),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }


def _saved(text: str, name: str) -> str:
    return f"cat > '{name}' <<'END OF THE FILE'\n{text}END OF THE FILE\n"
