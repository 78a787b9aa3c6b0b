# SPDX-License-Identifier: Apache-2.0
"""Follows a Markdown page to the letter: what it says to run is run, what it says is printed is compared.

Above each fenced block stands a comment that says what a reader does with it; readers do not see it::

    <!-- run -->                         runs it in the first terminal; every command has to succeed
    <!-- run: terminal 2 -->             in another terminal, which knows nothing of what was set in the first
    <!-- run: until Airflow is ready --> leaves it running once it has printed this text
    <!-- output -->                      is what the block before has printed (see ``printed``)
    <!-- file: dispatch.yaml -->         is saved under this name in the first terminal's folder
    <!-- not run: it is a fragment -->   is only read, for this reason
    <!-- example: ini -->                is only read here; ``tests/unit/docs`` checks it

and on its own, without a block, for what the text tells the reader to wait for::

    <!-- wait: grep -q done result.txt -->   repeats the command until it succeeds, in the terminal used
                                            last, or in one beside it where a program keeps that busy

A block without such a comment is an error, so that none is left out by mistake. A page also has to say how what
it starts is stopped: by Ctrl-C in its terminal, or with a command.
"""
