# SPDX-License-Identifier: Apache-2.0
"""Images of pods, which need the Airflow of their scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_dispatch_provider.migration.findings import Finding, label
from airflow_dispatch_provider.migration.options import Options, today

_SECTION = "kubernetes_executor"
TEMPLATE = (_SECTION, "pod_template_file")

_IN_TEMPLATE = re.compile(r"""^[\s-]*image:\s*["']?([^\s"']+)""", re.MULTILINE)
_OLD_TAG = re.compile(r"(?<![\d.])(?:1\.10|2\.\d+)(?!\d)")


def image_findings(options: Options, template: str, version: str) -> Iterator[Finding]:
    """Options that name an image of Airflow 1.10 or 2, as far as its name and tag tell.

    :param template: the text of the pod template; empty where there is none, or it cannot be read
    :param version: that of the target
    """
    said = {today(option): option for option in options.values()}
    repository, tag = (said.get((_SECTION, f"worker_container_{part}")) for part in ("repository", "tag"))
    images = [(tag, f"{repository.value}:{tag.value}")] if repository and tag else []
    if file := said.get(TEMPLATE):
        images += [(file, image) for image in dict.fromkeys(_IN_TEMPLATE.findall(template))]
    for option, image in images:
        if _is_old(image):
            why = f"{image} has an old Airflow, by its tag; the pods need {version}"
            yield Finding(label(today(option), option), "change", None, why)


def _is_old(image: str) -> bool:
    name, _, tag = image.rpartition(":")
    return "airflow" in name.rpartition("/")[2] and _OLD_TAG.search(tag) is not None
