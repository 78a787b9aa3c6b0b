# SPDX-License-Identifier: Apache-2.0
"""The reader that follows the README and the how-to pages, in real shells."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import psutil
import pytest
from literal.page import PageError
from literal.reader import Reader
from literal.users import ORDINARY_USER

pytestmark = pytest.mark.once


@pytest.fixture
def follow(tmp_path):
    """Follows a page given as text; returns the reader's environment as it was."""

    def follow(text: str, timeout: float = 30, **options: object) -> Reader:
        page = tmp_path / "page.md"
        page.write_text(textwrap.dedent(text))
        with Reader(**options) as reader:
            reader.follow(page, timeout)
        return reader

    return follow


def test_blocks_share_a_shell_and_its_output_is_compared(follow):
    follow("""
        <!-- run -->
        ```
        mkdir sub && cd sub
        name=world
        ```
        Then:
        <!-- file: a b.txt -->
        ```
        $not expanded
        ```
        <!-- run -->
        ```
        echo "hello   $name"; basename "$PWD"; cat 'a b.txt'; date +%s
        ```
        <!-- output -->
        ```
        hello world
        ...
        $not expanded
        <seconds>
        ```
    """)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("false\necho never", "page.md:2: it ended with exit code 1"),
        ("echo told; exit 3", "(?s)exit code 3.*told"),
        ("sleep 100", "has not ended after 1 s"),
        ("kill -9 $$", "exit code -9"),
    ],
)
def test_a_command_that_fails_names_its_line_and_shows_what_was_printed(follow, block, message):
    with pytest.raises(PageError, match=message):
        follow(f"<!-- run -->\n```\n{block}\n```", timeout=1)


def test_output_that_differs_is_an_error(follow):
    with pytest.raises(PageError, match=r"(?s)page.md:6: not what was printed.*two"):
        follow("<!-- run -->\n```\necho two\n```\n<!-- output -->\n```\none\n```")


def test_a_program_goes_on_in_its_terminal_until_ctrl_c(follow):
    """Once it has printed what is waited for, the next block runs in another terminal, which knows nothing of the
    first; in the end Ctrl-C stops it."""
    follow("""
        <!-- run: until ready -->
        ```
        export KNOWN=1
        trap 'touch "$HOME/stopped"; exit' INT
        echo ready; sleep 1000
        ```
        <!-- run: terminal 2 -->
        ```
        echo "known: ${KNOWN-no}"
        ```
        <!-- output -->
        ```
        known: no
        ```
    """)


def test_ctrl_c_is_pressed_again_for_a_program_that_goes_on(follow):
    follow(
        """
        <!-- run: until ready -->
        ```
        cat > program.py <<'EOF'
        import signal, sys, time
        times = []
        signal.signal(signal.SIGINT, lambda *_: times.append(1) or len(times) == 2 and sys.exit())
        print("ready")
        while True:
            time.sleep(1)
        EOF
        python3 program.py
        ```
        """,
        stopping=6,
    )


def test_waiting_repeats_a_command_until_it_succeeds(follow):
    follow("""
        <!-- run -->
        ```
        (sleep 2; touch there) & disown
        ```
        <!-- wait: test -e there -->
        <!-- run -->
        ```
        ls
        ```
        <!-- output -->
        ```
        there
        ```
    """)


BUSY = """
    <!-- run: until ready -->
    ```
    cd / && echo ready && sleep 1000
    ```
"""


def test_waiting_beside_a_busy_terminal_uses_another(follow):
    follow(f"{BUSY}\n    <!-- wait: test ! -e tmp -->\n")


def test_a_terminal_that_is_busy_takes_no_other_block(follow):
    block = "    <!-- run -->\n    ```\n    ls\n    ```\n"
    with pytest.raises(PageError, match=r"page.md:7: what was started before still runs in this terminal"):
        follow(f"{BUSY}{block}")


def test_a_program_that_ends_before_it_is_ready_is_an_error(follow):
    with pytest.raises(PageError, match=r"(?s)it ended before it printed 'ready'.*broken"):
        follow("<!-- run: until ready -->\n```\necho broken\n```")


def test_what_a_page_leaves_running_is_an_error_and_is_killed(follow):
    with pytest.raises(PageError, match=r"does not say how to stop .*sleep.*4242"):
        follow(
            """
            <!-- run -->
            ```
            setsid nohup sleep 4242 >/dev/null 2>&1 &
            until pgrep -xf "sleep 4242"; do :; done
            ```
            """,
            stopping=2,
        )
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if "4242" in (process.info["cmdline"] or [])
    ]


def test_nothing_is_inherited_but_the_way_to_a_package_index(follow, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index")
    follow("""
        <!-- run -->
        ```
        echo "${AIRFLOW_HOME-none} $PIP_INDEX_URL $(ls -A ~ | wc -l) ${PWD##*/}"
        ```
        <!-- output -->
        ```
        none https://index 0 a folder
        ```
    """)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_owns_the_folder_and_has_no_rights(follow):
    follow(
        f"""
        <!-- run -->
        ```
        id -u; touch mine ~/mine; ! touch /etc/mine 2>/dev/null
        ```
        <!-- output -->
        ```
        {ORDINARY_USER}
        ```
        """,
        uid=ORDINARY_USER,
    )


def test_words_are_replaced_where_the_machine_needs_others(follow):
    follow(
        "<!-- run -->\n```\necho port 8080\n```\n<!-- output -->\n```\nport 8080\n```",
        renamed={"8080": "1234"},
    )


def test_nothing_is_left_in_the_end(follow):
    reader = follow("<!-- run -->\n```\ntouch file\n```")
    assert not Path(reader.folder).exists()
