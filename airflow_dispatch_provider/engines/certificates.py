# SPDX-License-Identifier: Apache-2.0
"""Certificates whose files a user names, tried as Python's ``ssl`` would read them. Nothing here waits."""

from __future__ import annotations

import ssl

from airflow_dispatch_provider.settings.file import UnreadableError, read_bytes

Wrong = tuple[str, str]
"""The mistake in a file, and a remedy."""


def unreadable(path: str) -> Wrong | None:
    try:
        read_bytes(path)
    except UnreadableError as error:
        return f"names a file that {error}.", "Correct the path."
    return None


def wrong_authority(path: str) -> Wrong | None:
    if wrong := unreadable(path):
        return wrong
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):
        return "names a file without certificates.", "Give a PEM file."
    return None


def belong_together(certificate: str, key: str) -> bool:
    """
    :param certificate, key: paths of readable files
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        return False
    return True
