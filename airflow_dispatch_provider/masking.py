# SPDX-License-Identifier: Apache-2.0
"""Secrets in texts that are shown: in log lines, in what ``airflow dispatch`` prints, in a task's event log.

Brokers, databases and API servers are named by URLs, and the exceptions of their clients quote them, often in
part. Of a URL only scheme, hosts, ports and path are left.
"""

from __future__ import annotations

import re
import traceback
from itertools import accumulate, pairwise

from airflow_dispatch_provider.exceptions import EndsProcess

MASK = "***"

MAX_LENGTH = 500
"""Characters of a text that somebody else has written."""

_READ = 4000
"""Characters of a text, or of a line, that are looked at: the search for secrets takes longer than in proportion."""

_SEARCHED, _TRACEBACK = 100_000, 20_000
"""Characters of a traceback that are looked through, and shown."""

UNREADABLE = "(its text cannot be read)"

_SCHEME = re.compile(r"(?<![\w:@/])(?:[A-Za-z][\w+.-]*:){0,3}[A-Za-z][A-Za-z0-9+.-]*://")
"""With words and colons before it: ``jdbc:postgresql://``, ``broker_url:redis://``."""

_LISTED = re.compile(
    r"(amqps?|azure\w+|confluentkafka|db\+[\w+]+|etcd|filesystem|gcpubsub|https?|kafka|memory|mongodb(\+srv)?|mysql[\w+]*"
    r"|postgresql[\w+]*|py[a-z]+|rediss?|sentinel|sqla\+[\w+]+|sqs)://"
)
"""Schemes of URLs that follow another one without a blank, as in a list of brokers."""

_HOST = r"(?:[\w.-]*|\[[0-9A-Fa-f:.%]*\])(?::\d*)?"
_PLACE = re.compile(rf"{_HOST}(?:,{_HOST})*(?:/[^?#@]*)?")
"""Hosts, ports and path, as they stand behind an ``@``."""

_QUERY = re.compile(r"[?#]")
_PARAMETERS = re.compile(r"\?(?:[A-Za-z][\w.-]*=|[\w.-]+=[^@]*$)")
_CLOSING = re.compile(r"""["'`)>\].,:;]*$""")
"""Characters that follow a URL in a sentence, or separate it from the next one."""

_TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]+")
"""A JSON Web Token: a pod's arguments hold that of its task."""

_ASSIGNED = re.compile(
    r"""((?:pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|account)_?key|credentials?|access_?signature|\bsig)"""
    r"""["']?\s*(?:=|["']:)\s*)"""
    r"""("[^"]*"|'[^']*'|[^\s,;&)}\]]+)""",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"""(authorization["']?\s*[:=,]\s*(?:b?["'])?(?:basic|bearer|negotiate|token)\s+)[^\s"']+""",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)\S{6,}")
_CONVERTED = re.compile(r"(cast to integer value as|invalid literal for int\(\) with base 10:) .*", re.DOTALL)
"""Python quotes what it takes for a port: the first part of a password in which a ``/`` is not written ``%2F``."""


def masked(text: str) -> str:
    """The text without passwords, user names and parameters of URLs, tokens, credentials of an ``Authorization``
    header, and values of ``password=``, ``AccountKey=`` and the like.

    Errs on the safe side: what may be part of a password is left out. Only a password with blanks *and* an ``@``
    cannot be told from the sentence around it, nor one with ``?name=`` from a host and its parameters.
    """
    bounds = [*_starts(text), len(text)]
    urls = (_url(text[start:end]) for start, end in pairwise(bounds))
    found = _TOKEN.sub(MASK, text[: bounds[0]] + "".join(urls))
    found = _AUTHORIZATION.sub(rf"\1{MASK}", found)
    return _CONVERTED.sub(rf"\1 {MASK}", _ASSIGNED.sub(rf"\1{MASK}", found))


def _starts(text: str) -> list[int]:
    """Where URLs begin, but not those that are a part of another one, which take part in that one's fate: parameters,
    and what may be a password, as in ``redis://;pw://@broker``."""
    starts: list[int] = []
    for match in _SCHEME.finditer(text):
        start = match.start()
        joined = bool(starts) and not re.search(r"\s", text[starts[-1] : start])
        is_parameter = start > 0 and text[start - 1] in "=&?#%"
        if not joined or (_LISTED.fullmatch(match[0]) and not is_parameter):
            starts.append(start)
    return starts


def may_be_secret(text: str) -> bool:
    """Whether a text that stands where it does not belong looks like a password: small and capital letters and digits
    in one word. It is not a test for what belongs where it stands."""
    return _PASSWORD.fullmatch(text) is not None


def one_line(text: str) -> str:
    """The text, masked, in one line of at most ``MAX_LENGTH`` characters."""
    text = " ".join(masked(_shortened(text)).split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def describe(error: BaseException) -> str:
    """An exception in one line: its type, and its text where it has one. Raises nothing."""
    name, text = type(error).__name__, text_of(error)
    return one_line(f"{name}: {text}" if text else name)


def text_of(thing: object) -> str:
    """``str`` of what somebody else has written: it may raise, which must not hide what there was to say."""
    try:
        return str(thing)
    except Exception:
        return UNREADABLE


def _shortened(text: str) -> str:
    """Not in the middle of a URL or a token, which are known by how they end."""
    if len(text) <= _READ:
        return text
    before, blank, word = text[:_READ].rpartition(" ")
    if "://" in word or "eyJ" in word:
        word = ""
    return f"{before}{blank}{word}..."


def kind_of(error: BaseException) -> str:
    """An exception of code that is not ours, without its text, which may quote anything: its type, and the module that
    could not be imported."""
    module = error.name if isinstance(error, ImportError) else None
    name = error.kind if isinstance(error, EndsProcess) else type(error).__name__
    return f"{name}: {module}" if module else name


def traceback_of(error: BaseException) -> str:
    """For a log, in place of ``exc_info``, which would show an exception's own text. Its end, where it is long."""
    lines = "".join(traceback.format_exception(error)).rstrip().split("\n")
    # A secret of several lines is known by its beginning: more is looked through than shown.
    shown = masked("\n".join(_last(list(map(_shortened, lines)), _SEARCHED)))
    return "\n".join(_last(shown.split("\n"), _TRACEBACK))


def _last(lines: list[str], most: int) -> list[str]:
    """As many whole lines as have so many characters."""
    ends = accumulate(len(line) for line in reversed(lines))
    return lines[-max(1, sum(end <= most for end in ends)) :]


class LateTraceback:
    """The same below the line before, where it may not be written at all."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        return f"\n{traceback_of(self._error)}"


def _url(text: str) -> str:
    """
    :param text: begins with a URL, and holds no other one
    """
    scheme, _, rest = text.partition("://")
    end = _end(rest)
    url, after = rest[:end], rest[end:]
    closing = _closing(url)
    return f"{scheme}://{_place(url[: len(url) - len(closing)])}{closing}{after}"


def _end(rest: str) -> int:
    """Where the URL ends: at the first blank, unless it would then be the beginning of a password with blanks."""
    blank = re.search(r"\s", rest)
    if blank is None:
        return len(rest)
    head = rest[: blank.start()]
    if "@" in head or _PLACE.fullmatch(_QUERY.split(head.rstrip("\"'`)>].,;"))[0]):
        return blank.start()
    last = rest.rfind("@")
    return blank.start() if last < 0 else last + len(re.match(r"\S*", rest[last:])[0])  # type: ignore[index]


def _closing(url: str) -> str:
    found = _CLOSING.search(url)
    return found[0] if found else ""


def _place(url: str) -> str:
    """Host, port and path of a URL whose scheme is cut off."""
    before, parameters = url, ""
    for query in _PARAMETERS.finditer(url):
        if _PLACE.fullmatch(url[: query.start()].rpartition("@")[2]):
            before, parameters = url[: query.start()], f"?{MASK}"
            break
    _, at, place = before.rpartition("@")
    if not parameters:
        place, mark, _ = _cut(place)
        parameters = f"{mark}{MASK}" if mark else ""
    if not _PLACE.fullmatch(place):
        place = MASK
    return (f"{MASK}@" if at else "") + place + parameters


def _cut(place: str) -> tuple[str, str, str]:
    mark = _QUERY.search(place)
    return (place[: mark.start()], mark[0], place[mark.end() :]) if mark else (place, "", "")
