# SPDX-License-Identifier: Apache-2.0
"""Mistakes in the URLs of brokers and result backends, as the libraries that read them would stumble over them. Pure.

Each is what was found and a remedy. Texts that may hold a password are never quoted, not even in part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy.engine import make_url  # SQLAlchemy 1.4 has it nowhere else

_ESCAPES = (
    "Write a / in a user name or password as %2F, a # as %23, a ? as %3F and an @ as %40; in airflow.cfg, with %%"
    " in place of %."
)
_ENDS_EARLY = "has a character in its user name or password that ends them there."
_BLANK = ("has a blank or a line break in it.", "Remove it; a command has to print the URL alone.")
_READ_OTHERWISE = ("azureservicebus", "azurestoragequeues", "sqla", "sqlalchemy")
"""Transports that take a password as it is."""

_OF_THE_URL = {"hostname", "password", "port", "transport", "userid", "virtual_host"}
"""Parts that kombu takes from a URL, and would take from its parameters once more."""

_MODES = {"none", "optional", "required"}
"""Of ``ssl_cert_reqs``."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_PLACEHOLDER = re.compile(r"\$\{\w+\}|<[\w -]+>")
_UNFILLED = (
    "has a placeholder in it: a variable that is not set, or text to be replaced.",
    "Write what belongs there.",
)
NO_URL = ("is not a URL.", "Write scheme, host and port, e.g. redis://broker:6379/0.")
_AMQP = ("amqp", "amqps", "pyamqp", "librabbitmq")
_REDIS = ("redis", "rediss", "sentinel")
RESULT_EXAMPLE = "Name a database, e.g. db+postgresql+psycopg2://user:password@host/airflow."


def _wrong_url(url: str) -> tuple[str, str] | None:
    """The mistake in a URL that is read by RFC 3986, and a remedy."""
    # What stands before a :// that belongs to no scheme may be a password.
    if not _SCHEME.match(url):
        return NO_URL
    scheme, _, rest = url.partition("://")
    if re.search(r"\s", url):
        return _BLANK
    if _PLACEHOLDER.search(url):
        return _UNFILLED
    if scheme.partition("+")[0] in _READ_OTHERWISE:
        return None
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in authority:
        return _ENDS_EARLY, _ESCAPES
    return None if _has_port(url) else _no_port(scheme)


def wrong_results(configured: str) -> tuple[str, str] | None:
    """The same for a result backend, which may be a name alone, or an import path."""
    if configured.startswith("db+"):
        return _wrong_database(configured.removeprefix("db+"))
    configured, _, _ = configured.partition(";")
    if wrong := _wrong_url(configured) if "://" in configured else None:
        return (wrong[0], RESULT_EXAMPLE) if wrong is NO_URL else wrong
    is_name = "://" in configured or re.fullmatch(r"\w+(\+\w+)?|\w+(\.\w+)*[.:]\w+|", configured)
    return None if is_name else ("is not a URL.", RESULT_EXAMPLE)


def _wrong_database(url: str) -> tuple[str, str] | None:
    """The same for SQLAlchemy, which takes all up to the first ``@`` for a password."""
    if re.search(r"\s", url):
        return _BLANK
    if _PLACEHOLDER.search(url):
        return _UNFILLED
    try:
        host = make_url(url).host
    except ValueError:
        return _no_port(f"db+{url.partition('://')[0]}")
    except Exception:
        return "is not a URL of SQLAlchemy's.", RESULT_EXAMPLE
    return (_ENDS_EARLY, _ESCAPES) if "@" in (host or "") else None


def _no_port(scheme: str) -> tuple[str, str]:
    remedy = f"Write the port as a number, e.g. {scheme}://host:6379."
    return "has a port that is not a number from 0 to 65535.", remedy


def _has_port(url: str) -> bool:
    """Whether its port, if any, is one. A list of hosts is read otherwise by those that take one."""
    try:
        parts = urlsplit(url)
        return "," in parts.netloc or parts.port is None or parts.port >= 0
    except ValueError:
        return False


def wrong_broker(url: str) -> tuple[str, str] | None:
    """The same for kombu."""
    if wrong := _wrong_url(url):
        return wrong
    scheme, _, _ = url.partition("://")
    parts = urlsplit(url)
    if scheme in _AMQP and "," in parts.netloc.rpartition("@")[2]:
        each = f"{scheme}://user:password@"
        remedy = f"Write a whole URL for each, with ; between them, e.g. {each}a:5672//;{each}b:5672//."
        return "has several hosts in one URL, which AMQP does not.", remedy
    doubled = [] if "+" in scheme else sorted(_OF_THE_URL & dict(parse_qsl(parts.query)).keys())
    if doubled:
        remedy = f"Write user and password before the host, e.g. {scheme}://user:password@host."
        return f"has {doubled[0]} as a parameter, which kombu takes from the URL itself.", remedy
    modes = [value for key, value in parse_qsl(parts.query) if key == "ssl_cert_reqs"]
    if not {mode.removeprefix("CERT_").lower() for mode in modes} <= _MODES:
        return "has an ssl_cert_reqs that does not exist.", "Write ssl_cert_reqs=CERT_REQUIRED."
    if scheme in _REDIS and not parts.path.strip("/").isdigit() and parts.path.strip("/"):
        return (
            "has a database that is not a number.",
            f"Write a number behind the host, e.g. {scheme}://host:6379/0.",
        )
    return _wrong_variant(scheme, parts.netloc)


def _wrong_variant(scheme: str, host: str) -> tuple[str, str] | None:
    """Of Redis: kombu knows one with a +, for a socket file."""
    transport, plus, variant = scheme.partition("+")
    if not plus or transport not in _REDIS:
        return None
    if scheme == "redis+socket":
        found = "has a host, where redis+socket takes the path of a socket file."
        return (found, "Write redis+socket:///path, or redis://host:6379/0.") if host else None
    meant = "redis+socket" if "so" in variant else "rediss" if transport != "sentinel" else "sentinel"
    return f"has the scheme {scheme!r}, which is no transport.", f'Did you mean "{meant}"?'


DATABASES = ("db+mssql", "db+mysql", "db+oracle", "db+postgresql", "db+sqlite")
"""Result backends of SQLAlchemy's own dialects."""

_ALSO_CALLED = {
    "mysql": "db+mysql",
    "postgres": "db+postgresql",
    "postgresql": "db+postgresql",
    "rabbitmq": "amqp",
    "rabbitmqs": "amqps",
    "valkey": "redis",
    "valkeys": "rediss",
}


def meant_by(scheme: str, known: Iterable[str]) -> str | None:
    """The scheme that somebody meant who wrote one that does not exist.

    :param known: schemes that there are; others may be made with a +
    """
    meant = _ALSO_CALLED.get(scheme, "")
    names = list(known)
    return (
        meant if meant.partition("+")[0] in names else next(iter(get_close_matches(scheme, names, n=1)), None)
    )
