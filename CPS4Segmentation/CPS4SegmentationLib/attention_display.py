"""How an attention map looks in the slice views: over the MR, with its binary map beside it."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from CPS4Core.class_table import structure_of
from CPS4SegmentationLib.parameters import Parameters

COLOURS = "vtkMRMLColorTableNodeFileInferno.txt"
"""A perceptually uniform colour map that comes with Slicer."""
FREE_PROMPT_COLOUR = (255, 255, 255)
BINARY_OPACITY = 0.6
MAP_VIEW, BINARY_VIEW = "Red", "Yellow"


class AttentionDisplay:
    """Two nodes, used again for every prompt, and the layers of the slice views.

    Args:
        parameters: of the scene; they keep the two nodes.
    """

    def __init__(self, parameters: Parameters):
        self._parameters = parameters

    def show(
        self,
        volume: slicer.vtkMRMLScalarVolumeNode,
        attention: np.ndarray,
        binary: np.ndarray,
        label: int | None,
        title: str,
    ) -> None:
        """Show the maps of one prompt over ``volume``.

        Args:
            volume: the MR.
            attention: in (0, 1), axes k, j, i of the volume.
            binary: 0 or 1, the same axes.
            label: the class that the prompt names; it gives the binary map its colour.
            title: a short name of the prompt.
        """
        map_node, binary_node = self._nodes()
        for node, array in ((map_node, attention), (binary_node, binary.astype(np.uint8))):
            slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(array))
            node.CopyOrientation(volume)
        map_node.SetName(_("Attention {title}").format(title=title))
        binary_node.SetName(_("Binary map {title}").format(title=title))
        self._colour_binary(binary_node, label)
        self.apply_limits()
        self.show_layers(volume)

    def apply_limits(self) -> None:
        """Draw attention from the threshold up; one scale, 0 to 1, for all prompts, so that they compare."""
        node = self._parameters.attentionVolume
        if node is None:
            return
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, 1.0)
        display.SetThreshold(self._parameters.threshold, 1.0)
        display.SetApplyThreshold(True)

    def show_layers(self, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Put the maps over the MR: the attention in every view, the binary map in the right one if both show."""
        side_by_side = is_side_by_side()
        for name in slicer.app.layoutManager().sliceViewNames():
            layers = slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()
            binary_here = side_by_side and name == BINARY_VIEW
            layers.SetBackgroundVolumeID(volume.GetID())
            layers.SetForegroundVolumeID(None if binary_here else self._parameters.attentionVolume.GetID())
            layers.SetForegroundOpacity(self._parameters.opacity)
            layers.SetLabelVolumeID(self._parameters.binaryVolume.GetID() if binary_here else None)
            layers.SetLabelOpacity(BINARY_OPACITY)

    def hide(self) -> None:
        """Take the maps out of the views."""
        mine = {
            node.GetID()
            for node in (self._parameters.attentionVolume, self._parameters.binaryVolume)
            if node is not None
        }
        for name in slicer.app.layoutManager().sliceViewNames():
            layers = slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()
            if layers.GetForegroundVolumeID() in mine:
                layers.SetForegroundVolumeID(None)
            if layers.GetLabelVolumeID() in mine:
                layers.SetLabelVolumeID(None)

    def _nodes(self) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLLabelMapVolumeNode]:
        """Return the two nodes, made anew if the user removed them."""
        if self._parameters.attentionVolume is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetAndObserveColorNodeID(COLOURS)
            self._parameters.attentionVolume = node
        if self._parameters.binaryVolume is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
            node.CreateDefaultDisplayNodes()
            self._parameters.binaryVolume = node
        return self._parameters.attentionVolume, self._parameters.binaryVolume

    @staticmethod
    def _colour_binary(node: slicer.vtkMRMLLabelMapVolumeNode, label: int | None) -> None:
        """Give the binary map the colour of its class in the class table."""
        display = node.GetDisplayNode()
        colours = display.GetColorNode()
        if colours is None or colours.GetAttribute("CPS4.Binary") is None:
            colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "CPS4 binary map")
            colours.SetTypeToUser()
            colours.SetNumberOfColors(2)
            colours.SetColor(0, "outside", 0, 0, 0, 0)
            colours.SetAttribute("CPS4.Binary", "1")
            colours.SetHideFromEditors(True)
            display.SetAndObserveColorNodeID(colours.GetID())
        structure = structure_of(label)
        colour = structure.color if structure is not None else FREE_PROMPT_COLOUR
        name = structure.short if structure is not None else "prompt"
        colours.SetColor(1, name, *(channel / 255 for channel in colour), 1)


def is_side_by_side() -> bool:
    """Whether the views show the attention map and the binary map beside each other."""
    return slicer.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView


def show_side_by_side() -> None:
    """Show two sagittal views that move together."""
    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    for name in (MAP_VIEW, BINARY_VIEW):
        widget = layout.sliceWidget(name)
        widget.mrmlSliceNode().SetOrientationToSagittal()
        widget.mrmlSliceCompositeNode().SetLinkedControl(True)
        widget.sliceLogic().FitSliceToBackground()
