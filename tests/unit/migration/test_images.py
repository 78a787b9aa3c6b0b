# SPDX-License-Identifier: Apache-2.0
"""Images of pods that have another Airflow than their scheduler."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.migration.images import image_findings
from airflow_dispatch_provider.migration.options import Options, read_ini

TEMPLATE = """
containers:
  - name: base
    image: "{}"
  - image: registry.k8s.io/git-sync/git-sync:v4.2.3
"""


def of(section: str, repository: str, tag: str) -> Options:
    text = f"[{section}]\nworker_container_repository = {repository}\nworker_container_tag = {tag}\n"
    return read_ini(text, "airflow.cfg")


@pytest.mark.parametrize(
    ("image", "is_old"),
    [
        ("apache/airflow:2.10.4", True),
        ("apache/airflow:slim-2.11.0-python3.12", True),
        ("registry.internal:5000/data/airflow:v2.7", True),
        ("apache/airflow:1.10.15", True),
        ("apache/airflow:3.1.8-python3.11", False),
        ("apache/airflow:3.2.10", False),
        ("apache/airflow:latest", False),
        ("my-company/dags:2.10.4", False),
        ("registry.internal:5000/airflow", False),
    ],
)
def test_an_image_is_old_by_its_tag(image: str, is_old: bool) -> None:
    """Only one that is called Airflow is judged, by the whole of its version, in the template as in the options."""
    file = read_ini("[kubernetes_executor]\npod_template_file = /pod.yaml\n", "airflow.cfg")
    assert len([*image_findings(file, TEMPLATE.format(image), "3.3.2")]) == int(is_old)
    repository, _, tag = image.rpartition(":")
    assert len([*image_findings(of("kubernetes_executor", repository, tag), "", "3.3.2")]) == int(is_old)


@pytest.mark.parametrize("section", ["kubernetes", "kubernetes_executor"])
def test_it_is_told_under_the_name_of_today(section: str) -> None:
    """An option that is renamed as well is named as the renaming leaves it."""
    (found,) = image_findings(of(section, "apache/airflow", "2.10.4"), "", "3.3.2")
    assert (found.option, found.do) == ("[kubernetes_executor] worker_container_tag", "change")
    assert found.why == "apache/airflow:2.10.4 has an old Airflow, by its tag; the pods need 3.3.2"


def test_a_template_that_is_not_read_tells_nothing() -> None:
    """Its option alone says nothing of an image."""
    assert [*image_findings(read_ini("[kubernetes]\npod_template_file = /x\n", "a"), "", "3.3.2")] == []
