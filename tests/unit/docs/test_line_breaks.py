# SPDX-License-Identifier: Apache-2.0
"""Names on the pages break where a reader expects it, and can be copied as they are."""

from __future__ import annotations

import re

import pytest

from devkit.line_breaks import on_page_content


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("overflow_after", ["overflow_", "after"]),
        ("AIRFLOW__DISPATCH__&lt;OPTION&gt;", ["AIRFLOW__", "DISPATCH__", "&lt;OPTION&gt;"]),
        ("./dev/test --all-versions", ["./", "dev/", "test", "--all-versions"]),
        ("a.b.KubernetesExecutor", ["a.", "b.", "KubernetesExecutor"]),
        ("CeleryKubernetesExecutor", ["Celery", "Kubernetes", "Executor"]),
    ],
)
def test_a_name_breaks_after_its_signs(code: str, parts: list[str]):
    html = on_page_content(f"<td><code>{code}</code></td>")
    assert re.findall(r'<span class="part">(.*?)</span>', html) == parts
    assert re.sub(r"<.*?>", "", html) == code


def test_a_blank_is_no_part_and_stays():
    """Beside an invisible break, a browser would drop one that is a line end."""
    html = on_page_content("<code>[a]\nb</code>")
    assert html == '<code><span class="part">[a]</span>\n<span class="part">b</span></code>'


def test_blocks_of_code_stay_as_they_are():
    block = "<pre><span></span><code>a_b = 1\n</code></pre>"
    assert on_page_content(block) == block
