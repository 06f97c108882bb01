"""A small scripted module, written as Slicer's template writes them: a threshold makes a segmentation."""

from pathlib import Path
from typing import Annotated

import ctk
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Toy(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Toy")
        self.parent.categories = ["Testing"]
        self.parent.dependencies = []
        self.parent.contributors = ["CPS4"]
        self.parent.helpText = _("Marks what is brighter than a threshold.")


@parameterNodeWrapper
class ToyParameters:
    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    threshold: Annotated[float, WithinRange(0, 500)] = 100
    name: str = "Bright"
    smooth: bool
    mode: Annotated[str, Choice(["above", "below"]), Default("above")]
    folder: Path


class ToyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameters = None
        self._gui_tag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/Toy.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = ToyLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        # An import fills the parameter node anew, unnoticed by fields and selectors.
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.resetButton.connect("clicked()", self.onReset)
        self.initializeParameterNode()

    def cleanup(self):
        self._forget_parameters()
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self._forget_parameters()

    def onSceneStartClose(self, caller, event):
        self._forget_parameters()

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered():
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self._forget_parameters()
        self._parameters = ToyParameters(self.logic.getParameterNode())
        self._gui_tag = self._parameters.connectGui(self.ui)
        self.addObserver(self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._check_can_apply)
        self._check_can_apply()

    def _forget_parameters(self):
        if self._parameters:
            self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(
                self._parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._check_can_apply
            )
            self._parameters = None

    def _check_can_apply(self, caller=None, event=None):
        self.ui.applyButton.enabled = (
            self._parameters is not None and self._parameters.inputVolume is not None
        )

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("The segmentation failed."), waitCursor=True):
            parameters = self._parameters
            if parameters.threshold == 0:
                raise ValueError("a threshold of 0 marks everything")
            parameters.segmentation = self.logic.segment(
                parameters.inputVolume, parameters.threshold, parameters.name
            )

    def onReset(self):
        if slicer.util.confirmYesNoDisplay(_("Forget the settings?")):
            self._parameters.threshold = 100


class ToyLogic(ScriptedLoadableModuleLogic):
    def segment(self, volume, threshold, name):
        mask = (slicer.util.arrayFromVolume(volume) > threshold).astype("uint8")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} {name}")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = node.GetSegmentation().AddEmptySegment("", name, [1.0, 0.5, 0.0])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
        return node


class ToyTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_segment(self):
        self.delayDisplay("Making a volume")
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ramp")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 4, 4)
        image.AllocateScalars(vtk.VTK_SHORT, 1)
        volume.SetAndObserveImageData(image)
        array = slicer.util.arrayFromVolume(volume)
        array[:] = 0
        array[2:] = 200
        node = ToyLogic().segment(volume, 100, "Bright")
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertIsInstance(ctk.ctkSliderWidget(), qt.QWidget)
