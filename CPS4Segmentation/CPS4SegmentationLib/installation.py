"""The Python packages of the engine: which are missing in Slicer, and how they are installed with consent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
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

_installing = threading.Lock()


def missing_packages() -> list[Requirement]:
    """Return the requirements that Slicer's Python does not meet."""
    return [needed for needed in _requirements() if not _is_met(needed)]


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in REQUIREMENTS.read_text(encoding="utf-8").split("\n") if line]


def lacks_torch_for_good(missing: list[Requirement]) -> bool:
    """Whether torch is missing where there is none to install.

    Slicer's macOS builds are for Intel processors and run translated on Apple's; torch ends there with 2.2.
    """
    on_intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    return on_intel_mac and any(needed.name == "torch" for needed in missing)


def install_missing(on_log: Callable[[str], None]) -> bool:
    """Ask, then install what is missing; False if the user does not want it.

    torch goes first, with the extension PyTorch where it is installed: it chooses the build for the graphics card.

    Args:
        on_log: receives lines for the log.

    Raises:
        CPS4Error: if the installation fails or runs already, or there is nothing to install.
    """
    if not _installing.acquire(blocking=False):  # Slicer lets events through while pip runs
        raise CPS4Error(
            _("The packages are being installed."), _("Wait until that is done, then press the button again.")
        )
    try:
        return _install_missing(on_log)
    finally:
        _installing.release()


def _install_missing(on_log: Callable[[str], None]) -> bool:
    missing = missing_packages()
    if not missing:
        return True
    if lacks_torch_for_good(missing):
        raise CPS4Error(
            _("This Slicer runs as on an Intel processor, for which torch 2.2 is the last on macOS."),
            _(
                "Install a Python made for your Mac, and there `pip install` the CPS4 folder. "
                "Then choose it under Settings as Own Python."
            ),
        )
    if not slicer.util.confirmOkCancelDisplay(_question(missing), windowTitle=_("CPS4")):
        return False
    loaded = [needed.name for needed in missing if needed.name in sys.modules]
    with_torch = [needed for needed in missing if needed.name in ("torch", "torchvision")]
    others = [needed for needed in missing if needed not in with_torch]
    for group, install in ((with_torch, _install_torch), (others, _pip_install)):
        try:
            if group:
                install(group)
        except (subprocess.CalledProcessError, ImportError, RuntimeError, OSError) as error:
            on_log(f"{type(error).__name__}: {error}")
            raise CPS4Error(
                _("{names} could not be installed.").format(names=_names(group)),
                _(
                    "The Python console says why. Check the network and its proxy, restart Slicer and try again. "
                    "Or choose a Python of your own under Settings."
                ),
            ) from error
    if still := missing_packages():
        raise CPS4Error(
            _("Still missing: {names}.").format(names=", ".join(map(str, still))),
            _("Restart Slicer and try again. The Python console says more."),
        )
    if loaded:
        slicer.util.infoDisplay(
            _("Restart Slicer: it uses the earlier {names} until then.").format(names=", ".join(loaded)),
            windowTitle=_("CPS4"),
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


def _names(requirements: list[Requirement]) -> str:
    return ", ".join(needed.name for needed in requirements)


def _install_torch(requirements: list[Requirement]) -> None:
    """Install torch and torchvision, whose builds must fit each other."""
    if importlib.util.find_spec("PyTorchUtils") is None:
        _pip_install(requirements)
        return
    from PyTorchUtils import PyTorchUtilsLogic

    # Without the versions it is content with any torch that is there.
    versions = {needed.name: str(needed.specifier) for needed in _requirements()}
    done = PyTorchUtilsLogic().installTorch(
        askConfirmation=False,
        torchVersionRequirement=versions["torch"],
        torchvisionVersionRequirement=versions["torchvision"],
    )
    if done is None:
        raise RuntimeError("the extension PyTorch did not install torch")


def _pip_install(requirements: list[Requirement]) -> None:
    """Install with Slicer's own installer; its numpy, SimpleITK and VTK are pinned to what they are."""
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
