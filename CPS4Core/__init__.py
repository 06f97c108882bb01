"""CPS4Core: class prompt driven semi-supervised spine segmentation, without 3D Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from CPS4Core.inference.model import Model

__version__ = "0.1.0"


def load_model(folder: str | Path, device: str = "auto") -> Model:
    """Load a trained model, to segment volumes and to see what prompts attend to.

    >>> from CPS4Core import load_model
    >>> model = load_model("runs/stage2/model", device="cpu")
    >>> found = model.segment("scan.nii.gz")
    >>> found.labels.GetSize()  # a SimpleITK image, on the grid of the scan
    (5, 60, 90)
    >>> all(0 <= certainty <= 1 for certainty in found.confidence.values())
    True
    >>> for attended in model.attend("scan.nii.gz", ["L4", "a herniated disc"]):
    ...     print(attended.prompt, attended.label, attended.attention.GetSize())
    A magnetic resonance image of a Lumbar Vertebra 4. 3 (5, 60, 90)
    a herniated disc None (5, 60, 90)

    Args:
        folder: the folder ``model`` of a training run, or ``base``, the model that comes with CPS4.
        device: where to compute: ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.

    Raises:
        CPS4Error: if the folder holds no usable model, or this machine has no such device.
    """
    from CPS4Core.devices import choose_device
    from CPS4Core.inference.model import Model
    from CPS4Core.model_folder import ModelFolder
    from CPS4Core.shipped_model import model_path

    return Model(ModelFolder.open(model_path(str(folder))), choose_device(device))
