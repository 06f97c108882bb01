"""Handing a volume of the scene to the engine: is it usable, and its file in the module's private folder."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from CPS4Core.errors import CPS4Error


def check_volume(volume: slicer.vtkMRMLVolumeNode | None) -> None:
    """Refuse what cannot be segmented; what only the engine can tell, it tells.

    Raises:
        CPS4Error: if there is no volume, or it is empty, colour, a label map or under a transform.
    """
    if volume is None:
        raise CPS4Error(_("There is no MR volume."), _("Choose one under Segment, or load one first."))
    name = volume.GetName()
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise CPS4Error(_("{name} is a label map.").format(name=name), _("Choose the MR image itself."))
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise CPS4Error(_("{name} holds no image.").format(name=name), _("Load it again."))
    if image.GetNumberOfScalarComponents() != 1:
        raise CPS4Error(
            _("{name} is a colour image.").format(name=name), _("Choose the MR image, one value a voxel.")
        )
    if volume.GetParentTransformNode() is not None:
        raise CPS4Error(
            _("{name} is under a transform, which would shift the result.").format(name=name),
            _("Harden the transform in the module Data, or take the volume out of it."),
        )


def mr_volumes(besides: slicer.vtkMRMLScalarVolumeNode | None) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """Return the volumes of the scene that may be MR, in its order; ``besides`` is our own map.

    Label maps, among others, are scalar volumes too, so the class must be that very one.
    """
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node is not besides
        and node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetHideFromEditors()
    ]


def likely_volume(volumes: list[slicer.vtkMRMLScalarVolumeNode]) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the volume that is to be segmented most likely: a sagittal one, and of several the one that is shown."""
    shown = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
    ranked = [(_is_sagittal(volume), volume.GetID() == shown, volume) for volume in volumes]
    return max(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def _is_sagittal(volume: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether a volume's slices go from left to right, or its voxels are about as long as they are wide."""
    directions = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(directions)
    spacing = volume.GetSpacing()
    left_right = max(range(3), key=lambda axis: abs(directions.GetElement(0, axis)))
    return 2 * spacing[left_right] >= max(spacing)


class VolumeFiles:
    """Volumes written for the engine, each once as long as it does not change.

    File names are numbers: a node's name may be a patient's.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._written: dict[str, tuple[tuple, Path]] = {}
        self._count = 0

    def path_of(self, volume: slicer.vtkMRMLScalarVolumeNode) -> Path:
        """Return the file of a volume; it is written if it is new or has changed.

        Raises:
            CPS4Error: if the volume cannot be used, or the disk is full.
        """
        check_volume(volume)
        state = self.state_of(volume)
        known = self._written.get(volume.GetID())
        if known is not None and known[0] == state and known[1].exists():
            return known[1]
        self._count += 1
        path = self._folder / f"volume_{self._count:03d}.nrrd"
        if not slicer.util.exportNode(volume, str(path), {"useCompression": 0}) or not path.is_file():
            raise CPS4Error(
                _("The volume could not be handed to the engine."),
                _("Free some disk space, or choose another temporary folder in Slicer's settings."),
                self._folder,
            )
        if known is not None:
            known[1].unlink(missing_ok=True)
        self._written[volume.GetID()] = (state, path)
        return path

    @staticmethod
    def state_of(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple:
        """Return what changes whenever the voxels or the geometry of a volume do."""
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(volume))
        return (volume.GetImageData().GetMTime(), *ijk_to_ras.ravel().tolist())


def _ijk_to_ras(volume: slicer.vtkMRMLScalarVolumeNode) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix
