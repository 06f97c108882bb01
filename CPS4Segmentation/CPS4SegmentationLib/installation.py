"""The Python packages of the engine: which are missing in Slicer, and how they are installed with consent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import slicer
from packaging.requirements import Requirement
from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
SIZES_MB = {
    "torch": 2500,
    "torchvision": 10,
    "transformers": 12,
    "timm": 3,
    "matplotlib": 10,
    "scikit-image": 15,
    "scipy": 40,
    "numpy": 20,
    "SimpleITK": 55,
}
"""What a package roughly takes to download; torch with CUDA is the largest, without it it takes 200."""
SMALL_MB = 2
SLICERS_OWN = ("numpy", "SimpleITK", "vtk")
"""Packages that come with Slicer and must stay as they are."""


def missing_packages() -> list[Requirement]:
    """Return the requirements that Slicer's Python does not meet."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").split("\n")
    return [needed for line in lines if line and not _is_met(needed := Requirement(line))]


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
        for needed in missing:
            if needed.name == "torch":
                _install_torch(needed)
        _pip_install([needed for needed in missing if needed.name != "torch"])
    except (RuntimeError, OSError) as error:
        raise CPS4Error(
            _("The packages could not be installed: {reason}").format(reason=str(error).strip()[:300]),
            _("Check the network and its proxy. Or choose a Python of your own under Settings."),
        ) from error
    if still := missing_packages():
        raise CPS4Error(
            _("Still missing: {names}.").format(names=", ".join(map(str, still))),
            _("See the Python console for details."),
        )
    return True


def _question(missing: list[Requirement]) -> str:
    sizes = {needed.name: SIZES_MB.get(needed.name, SMALL_MB) for needed in missing}
    return _(
        "CPS4 needs Python packages that are not here: {names}. At most {total:.1f} GB are downloaded. "
        "Slicer's own packages stay as they are. This can take several minutes. Install them?"
    ).format(
        names=", ".join(f"{name} ({size} MB)" for name, size in sizes.items()),
        total=sum(sizes.values()) / 1000,
    )


def _install_torch(requirement: Requirement) -> None:
    if importlib.util.find_spec("PyTorchUtils") is not None:
        from PyTorchUtils import PyTorchUtilsLogic

        if PyTorchUtilsLogic().installTorch(askConfirmation=False) is None:
            raise RuntimeError(_("the extension PyTorch could not install torch"))
    else:
        _pip_install([requirement])


def _pip_install(requirements: list[Requirement]) -> None:
    """Install with Slicer's own installer; its numpy, SimpleITK and VTK are pinned to what they are."""
    if not requirements:
        return
    names = [str(needed) for needed in requirements]
    constraints = Path(slicer.app.temporaryPath) / "cps4-constraints.txt"
    constraints.write_text("\n".join(_pins()) + "\n", encoding="utf-8")
    if importlib.util.find_spec("slicer.packaging") is not None:  # Slicer 5.12
        from slicer import packaging

        packaging.pip_install(names, constraints=str(constraints), requester="CPS4")
    else:
        with slicer.util.WaitCursor():
            slicer.util.pip_install([*names, "--constraint", str(constraints)])


def _pins() -> list[str]:
    pins = []
    for name in SLICERS_OWN:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def _is_met(requirement: Requirement) -> bool:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(installed, prereleases=True)
