# SPDX-License-Identifier: Apache-2.0
"""A server that speaks as MySQL does, and how Airflow reaches it without a driver that has to be compiled."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from pymysql import converters
from sqlalchemy import create_engine, text

from devkit.servers import mariadb

# No import of Airflow here, which would configure itself.
MYSQL_URL = "DISPATCH_TEST_MYSQL"


@contextmanager
def running_server() -> Iterator[str]:
    """Its URL; of the server in $DISPATCH_TEST_MYSQL if set, else of a new MariaDB."""
    if given := os.environ.get(MYSQL_URL):
        yield given
        return
    from support import require

    require(
        mariadb.is_installed(),
        "MariaDB is not installed: on Debian or Ubuntu, apt-get install mariadb-server-core mariadb-client-core;"
        f" elsewhere, set {MYSQL_URL} to the mysql+pymysql:// URL of a server of MySQL 8 that may make databases",
    )
    with mariadb.MariaDbServer() as server:
        yield server.url


def create_database(server: str) -> str:
    """Make an empty one; returns its URL."""
    name = f"dispatch_{uuid.uuid4().hex}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    engine.dispose()
    return engine.url.set(database=name).render_as_string(hide_password=False)


def use_pymysql() -> None:
    """In place of MySQLdb, which Airflow imports for every MySQL URL, and for which there is no wheel for Linux.
    Statements go through PyMySQL anyway, as the URL says. Called before Airflow is imported, or configures itself."""
    pymysql.install_as_MySQLdb()
    vars(converters)["DateTime2literal"] = converters.escape_datetime
    sys.modules["MySQLdb.converters"] = converters
