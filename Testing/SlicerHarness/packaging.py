"""`slicer.packaging` (Slicer 5.12): says what is installed, and installs nothing.

A test sees the requests in `requested` and the last constraints in `constrained`, and decides with `on_install` what
an installation does. As in Slicer, events go through while pip runs, and pip that fails raises
`subprocess.CalledProcessError`.
"""

import importlib.metadata
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement

requested: list[str] = []
constrained = ""
on_install: Callable[[list[str]], None] | None = None


def load_requirements(path: str | Path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def load_pyproject_dependencies(path: str | Path) -> list[Requirement]:
    project = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    return [Requirement(line) for line in project["project"]["dependencies"]]


def pip_check(req: Any, _seen: Any = None) -> bool:
    return all(_is_satisfied(requirement) for requirement in _requirements(req))


def pip_ensure(
    requirements: Any,
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    missing = [str(r) for r in _requirements(requirements) if not _is_satisfied(r)]
    if not missing:
        return None
    question = f"{len(missing)} Python packages need to be installed. Continue?"
    if prompt_install and not slicer.util.confirmOkCancelDisplay(question, detailedText="\n".join(missing)):
        raise RuntimeError("User declined package installation")
    return pip_install(missing, constraints, skip_packages=skip_packages)


def pip_install(
    requirements: Any,
    constraints: str | Path | None = None,
    no_deps_requirements: Any = None,
    skip_packages: list[str] | None = None,
    blocking: bool = True,
    show_progress: bool = True,
    requester: str | None = None,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> list[str] | None:
    global constrained
    names = [str(r) for r in _requirements(requirements)]
    requested.extend(names)
    constrained = Path(constraints).read_text(encoding="utf-8") if constraints is not None else ""
    slicer.app.processEvents()
    if on_install is None:
        raise subprocess.CalledProcessError(
            1, f"pip install {' '.join(names)} (the harness installs nothing)"
        )
    on_install(names)
    if completedCallback is not None:
        completedCallback(0)
    return [] if skip_packages else None


def run_pip(requirements: str | list[str]) -> None:
    """`slicer.util.pip_install` of Slicer 5.10: hands words to pip as they are, options among them."""
    if not isinstance(requirements, str | list):
        raise ValueError("pip_install requirement input must be string or list")
    words = iter(shlex.split(requirements) if isinstance(requirements, str) else requirements)
    names, constraints = [], None
    for word in words:
        if word in ("--constraint", "-c"):
            constraints = next(words)
        elif not word.startswith("-"):
            names.append(word)
    pip_install(names, constraints)


def pip_uninstall(requirements: Any, **options: Any) -> None:
    raise RuntimeError("the harness uninstalls nothing")


def isPipInstallInProgress() -> bool:
    return False


def _requirements(given: Any) -> list[Requirement]:
    if isinstance(given, Requirement):
        return [given]
    return [Requirement(str(r)) for r in (given.split() if isinstance(given, str) else given)]


def _is_satisfied(requirement: Requirement) -> bool:
    if requirement.marker and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
