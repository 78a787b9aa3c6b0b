# SPDX-License-Identifier: Apache-2.0
"""Requirements of an extra's executors, by the metadata of this package, and which are not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "airflow-dispatch-provider"

EXTRAS: Mapping[str, str] = {
    "airflow_dispatch_provider.executors.celery_executor": "celery",
    "airflow_dispatch_provider.executors.kubernetes_executor": "cncf-kubernetes",
    "airflow.providers.celery": "celery",
    "airflow.providers.cncf.kubernetes": "cncf-kubernetes",
}
"""Which extra of this package brings what the executors of a module need."""


@dataclass(frozen=True)
class Unmet:
    """A requirement, and what is installed in its place."""

    requirement: Requirement
    installed: str | None
    """A version; None where there is none at all."""

    def __str__(self) -> str:
        there = f"{self.installed} is installed" if self.installed else "which is not installed"
        return f"{self.requirement.name}{self.requirement.specifier} ({there})"


def extra_of(module: str) -> str | None:
    """The extra that a module needs; None where it needs none, or is nothing of ours."""
    return next((extra for prefix, extra in EXTRAS.items() if f"{module}.".startswith(f"{prefix}.")), None)


def unmet(extra: str) -> list[Unmet]:
    """Requirements of the extra that the environment does not meet; empty where it meets all, or where this
    package runs from a folder that nothing has installed."""
    return list(unmet_of(_needed(extra), _installed_version))


def _needed(extra: str) -> list[Requirement]:
    try:
        texts = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    return [each for each in map(Requirement, texts) if _belongs_to(each, extra)]


def unmet_of(needed: Iterable[Requirement], version_of: Callable[[str], str | None]) -> Iterator[Unmet]:
    """Those of ``needed`` that the installed versions do not satisfy.

    :param version_of: the installed version of a distribution, None where there is none
    """
    for requirement in needed:
        installed = version_of(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            yield Unmet(requirement, installed)


def remedy_for(extra: str, missing: Sequence[Unmet]) -> str:
    """The command to run. The provider is always named, so that pip keeps to what it allows; this package is not, since
    it may have come from a file."""
    providers = [each for each in _needed(extra) if each.name.startswith("apache-airflow-providers-")]
    return f"Run: {pip_install(map(_bounded, (*providers, *(unmet.requirement for unmet in missing))))}"


def requirements_of(extra: str) -> list[str]:
    """All that the extra brings, with its bounds: without them, pip may take a version that does not work."""
    return list(map(_bounded, _needed(extra)))


def pip_install(requirements: Iterable[str]) -> str:
    """The command that installs them, to be copied into a shell."""
    return " ".join(["pip install", *dict.fromkeys(f'"{each}"' for each in requirements)])


def _bounded(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
