"""The Python packages of the engine: which are missing in Slicer, and how they are installed with consent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
SIZES_MB = {
    "torch": 2500,
    "torchvision": 10,
    "transformers": 12,
    "timm": 3,
    "monai": 3,
    "matplotlib": 10,
    "pandas": 13,
    "scikit-image": 15,
    "scipy": 40,
    "numpy": 20,
    "SimpleITK": 55,
}
"""What a package roughly takes to download; torch with CUDA is the largest, without it it takes 200."""
SMALL_MB = 2
SLICERS_OWN = ("numpy", "SimpleITK", "vtk")
"""Packages that come with Slicer and must stay as they are."""


def missing_packages() -> list[str]:
    """Return the requirements that Slicer's Python does not meet."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not _is_met(line)]


def install_missing() -> bool:
    """Ask, then install what is missing; False if the user does not want it.

    torch goes first, with the extension PyTorch where it is installed: it chooses the build for the graphics card.

    Raises:
        CPS4Error: if the installation fails.
    """
    missing = missing_packages()
    if not missing:
        return True
    if not slicer.util.confirmOkCancelDisplay(_question(missing), windowTitle=_("CPS4")):
        return False
    try:
        if any(_name(each) == "torch" for each in missing):
            _install_torch(next(each for each in missing if _name(each) == "torch"))
        _pip_install([each for each in missing if _name(each) != "torch"])
    except (RuntimeError, OSError) as error:
        raise CPS4Error(
            _("The packages could not be installed: {reason}").format(reason=str(error).strip()[:300]),
            _("Check the network and its proxy. Or choose a Python of your own under Settings."),
        ) from error
    if still := missing_packages():
        raise CPS4Error(
            _("Still missing: {names}.").format(names=", ".join(still)),
            _("See the Python console for details."),
        )
    return True


def _question(missing: list[str]) -> str:
    listed = [f"{_name(each)} ({SIZES_MB.get(_name(each), SMALL_MB)} MB)" for each in missing]
    total = sum(SIZES_MB.get(_name(each), SMALL_MB) for each in missing)
    return _(
        "CPS4 needs Python packages that are not here: {names}. At most {total:.1f} GB are downloaded. "
        "Slicer's own packages stay as they are. This can take several minutes. Install them?"
    ).format(names=", ".join(listed), total=total / 1000)


def _install_torch(requirement: str) -> None:
    if importlib.util.find_spec("PyTorchUtils") is not None:
        from PyTorchUtils import PyTorchUtilsLogic

        if PyTorchUtilsLogic().installTorch(askConfirmation=False) is None:
            raise RuntimeError(_("the extension PyTorch could not install torch"))
    else:
        _pip_install([requirement])


def _pip_install(requirements: list[str]) -> None:
    """Install with Slicer's own installer; its numpy, SimpleITK and VTK are pinned to what they are."""
    if not requirements:
        return
    constraints = Path(slicer.app.temporaryPath) / "cps4-constraints.txt"
    constraints.write_text("\n".join(_pins()) + "\n", encoding="utf-8")
    if importlib.util.find_spec("slicer.packaging") is not None:  # Slicer 5.12
        from slicer import packaging

        packaging.pip_install(requirements, constraints=str(constraints), requester="CPS4")
    else:
        with slicer.util.WaitCursor():
            slicer.util.pip_install([*requirements, "--constraint", str(constraints)])


def _pins() -> list[str]:
    pins = []
    for name in SLICERS_OWN:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~ ]", requirement, maxsplit=1)[0]


def _is_met(requirement: str) -> bool:
    try:
        installed = importlib.metadata.version(_name(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    _name_part, _separator, least = requirement.partition(">=")
    return not least or _numbers(installed) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:3])
