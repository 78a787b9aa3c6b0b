# SPDX-License-Identifier: Apache-2.0
"""A terminal with a shell, in which blocks are run one after the other as if typed there."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import secrets
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .printed import without_escapes

CTRL_C = b"\x03"

# Reads the path of a block from a descriptor and runs it in this very shell; then, or when a command has failed and
# ended the shell, prints a mark that nothing else prints, with the exit code. Job control gives each command a
# process group of its own, as in a terminal that somebody sits at, so that Ctrl-C reaches it and not the shell.
_SHELL = """
mark=$1
stty -echo -onlcr rows 40 columns 100
trap 'printf "\\n%s %s\\n" "$mark" "$?"' EXIT
set -em
while read -r block <&{0}; do
    . "$block" {0}<&-
    printf "\\n%s 0\\n" "$mark"
done
trap - EXIT
"""


class TerminalError(Exception):
    """A command failed, or took too long."""


class Terminal:
    """Bash in a pseudo-terminal, in a session of its own.

    :param as_user: what starts a command as the reader, such as ``setpriv`` with its options; empty for this user.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], as_user: Sequence[str] = ()) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="literal-")
        Path(self._files.name).chmod(0o755)
        self._blocks = 0
        self._mark = secrets.token_hex(8)
        self._printed = ""
        self._is_closed = False
        self._news = threading.Condition()
        self._screen, self._next, self.process = self._start(folder, env, as_user)
        self._closing, self._close = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def printed(self) -> str:
        """By the last block, up to now."""
        return without_escapes(self._printed.partition(self._mark)[0])

    @property
    def is_busy(self) -> bool:
        """Whether what the last block started still runs in the foreground."""
        return self._blocks > 0 and self._exit_code() is None and not self._is_closed

    def run(self, block: str, timeout: float, until: str | None = None) -> None:
        """Run a block to its end, or until it has printed a text; raises TerminalError for a command that fails."""
        if self.is_busy:
            raise TerminalError("what was started before still runs in this terminal")
        self._type(block)
        self._wait(lambda: not self.is_busy or (until is not None and until in self.printed), timeout)
        if until is not None and until not in self.printed:
            raise TerminalError(f"it ended before it printed {until!r}")
        if not self.is_busy and self._exit_code() != 0:
            raise TerminalError(f"it ended with exit code {self._exit_code()}")

    def leave(self, timeout: float) -> None:
        """Ctrl-C for what still runs here, a second time halfway, then the end of the shell; TerminalError where it
        goes on."""
        os.close(self._next)
        self._next = -1
        if not (self._ends_after_ctrl_c(timeout / 2) or self._ends_after_ctrl_c(timeout / 2)):
            raise TerminalError(f"Ctrl-C has not ended it within {timeout:.0f} s")

    def close(self) -> None:
        """Kill the shell, and forget what it printed."""
        self.process.kill()
        self.process.wait()
        if self._next >= 0:
            os.close(self._next)
        # A number that is closed while it is read from may by then be another file.
        os.close(self._close)
        self._reader.join()
        os.close(self._closing)
        os.close(self._screen)
        self._files.cleanup()

    def _ends_after_ctrl_c(self, timeout: float) -> bool:
        with contextlib.suppress(OSError):
            os.write(self._screen, CTRL_C)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        return self.process.poll() is not None

    def _start(
        self, folder: Path, env: Mapping[str, str], as_user: Sequence[str]
    ) -> tuple[int, int, subprocess.Popen[bytes]]:
        screen, theirs = pty.openpty()
        blocks, ours = os.pipe()
        shell = ["bash", "--norc", "--noprofile", "-c", _SHELL.format(blocks), "bash", self._mark]
        process = subprocess.Popen(
            # A shell starts what it runs in the background with Ctrl-C ignored, and that is inherited.
            ["env", "--default-signal=INT,QUIT", "setsid", "--ctty", *as_user, *shell],
            cwd=folder,
            env=dict(env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            pass_fds=[blocks],
        )
        os.close(theirs)
        os.close(blocks)
        return screen, ours, process

    def _type(self, block: str) -> None:
        self._blocks += 1
        file = Path(self._files.name, f"block-{self._blocks}")
        file.write_text(block)
        file.chmod(0o644)
        self._printed = ""
        os.write(self._next, f"{file}\n".encode())

    def _exit_code(self) -> int | None:
        """Of the last block; of the shell, where that ended without a word."""
        found = re.search(rf"{self._mark} (\d+)\r?\n", self._printed)
        if found:
            return int(found[1])
        return self.process.wait() if self._is_closed else None

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        with self._news:
            if not self._news.wait_for(condition, timeout):
                raise TerminalError(f"it has not ended after {timeout:.0f} s")

    def _read(self) -> None:
        while piece := self._piece():
            with self._news:
                self._printed += piece.decode(errors="replace")
                self._news.notify_all()
        with self._news:
            self._is_closed = True
            self._news.notify_all()

    def _piece(self) -> bytes:
        ready, _, _ = select.select([self._screen, self._closing], [], [])
        if self._screen not in ready:
            return b""
        try:
            return os.read(self._screen, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the other end open any more
                return b""
            raise
