"""The extension PyTorch, as modules see it; put this folder on the path to have it installed.

Its requests and what they do are those of `slicer.packaging` here.
"""

import types

import slicer
from packaging.requirements import Requirement
from slicer import packaging


class PyTorchUtilsLogic:
    def installTorch(
        self,
        askConfirmation: bool = False,
        forceComputationBackend: str | None = None,
        torchVersionRequirement: str | None = None,
        torchvisionVersionRequirement: str | None = None,
    ) -> types.ModuleType | None:
        """Installs torch and torchvision, and returns torch; None if the user declined. What is installed already
        stays, however old, unless a version is required."""
        asked = (f"torch{torchVersionRequirement or ''}", f"torchvision{torchvisionVersionRequirement or ''}")
        if askConfirmation and not slicer.util.confirmOkCancelDisplay(f"Install {', '.join(asked)}?"):
            return None
        missing = [name for name in asked if not packaging.pip_check(Requirement(name))]
        if missing:
            packaging.pip_install(missing)
        return types.ModuleType("torch")
