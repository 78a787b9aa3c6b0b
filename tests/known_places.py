# SPDX-License-Identifier: Apache-2.0
"""Texts that code of users' may raise, with a secret in a place where one is known to be."""

from __future__ import annotations

SECRET = "S3cretPw"

TEXTS = (
    f"no answer from redis://:{SECRET}@broker:6379/0",
    f"postgresql+psycopg2://airflow:{SECRET}@db/airflow refused",
    f"amqp://{SECRET}@broker// is away",
    f"GET https://api:6443/apis?sig={SECRET}&v=1 failed",
    f"connect(host='db', password='{SECRET}')",
    f"headers {{'token': '{SECRET}'}}",
    f"args: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.{SECRET}_x",
)
