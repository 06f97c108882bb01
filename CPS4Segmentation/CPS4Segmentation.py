"""The Slicer module CPS4: segment vertebrae and discs, see why, correct, train. It only wires the parts together."""

import sys

import qt
import slicer
import vtk
from CPS4SegmentationLib.attention_panel import AttentionPanel
from CPS4SegmentationLib.logic import CPS4SegmentationLogic
from CPS4SegmentationLib.review_panel import ReviewPanel
from CPS4SegmentationLib.segment_panel import SegmentPanel
from CPS4SegmentationLib.self_test import run_self_test
from CPS4SegmentationLib.settings_panel import SettingsPanel
from CPS4SegmentationLib.startup import load_terminology
from CPS4SegmentationLib.train_panel import TrainPanel
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class CPS4Segmentation(ScriptedLoadableModule):
    """How Slicer lists the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("CPS4 Spine Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The CPS4 developers"]
        self.parent.helpText = _(
            "Segments vertebral bodies and intervertebral discs in sagittal spine MR, shows what each class prompt "
            "attends to, and trains new models from few labelled patients. Not a medical device."
        )
        self.parent.acknowledgementText = _(
            "Implements CPS4: class prompt driven semi-supervised spine segmentation with class-specific "
            "consistency constraint (arXiv 2606.15802)."
        )
        slicer.app.connect("startupCompleted()", load_terminology)


class CPS4SegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The tabs Segment, Attention, Review, Train and Settings over one logic."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panels = []

    def setup(self):
        """Build the panels."""
        ScriptedLoadableModuleWidget.setup(self)
        load_terminology()  # where the module was loaded after Slicer's start
        self.logic = CPS4SegmentationLogic()
        self.tabs = qt.QTabWidget()
        self.layout.addWidget(self.tabs)
        self.segment = self._add_panel(SegmentPanel, _("Segment"))
        self.attention = self._add_panel(AttentionPanel, _("Attention"))
        self.review = self._add_panel(ReviewPanel, _("Review"))
        self.train = self._add_panel(TrainPanel, _("Train"))
        self.settings = self._add_panel(SettingsPanel, _("Settings"))
        self.train.model_trained = self.segment.use_model
        self.tabs.connect("currentChanged(int)", self._on_tab)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self):
        """Stop what runs, and let go of the scene."""
        self._forget_scene()
        for panel in self.panels:
            panel.close()
        self.removeObservers()
        if self.logic is not None:
            self.logic.close()

    def enter(self):
        """The user opens the module, maybe after editing elsewhere."""
        self.initializeParameterNode()
        self.segment.choose_likely_volume()
        self._refresh()

    def onReload(self):
        """Run what is on disk by now: Slicer itself reads only this file again, not the panels."""
        for name in list(sys.modules):
            if name.partition(".")[0] in ("CPS4SegmentationLib", "CPS4Core"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def exit(self):
        """The user leaves the module; jobs go on."""
        self._leave()

    def onSceneStartClose(self, caller, event):
        """The scene closes: jobs on its volumes stop."""
        self._forget_scene()

    def onSceneEndClose(self, caller, event):
        """There is another scene."""
        self.initializeParameterNode()

    def onSceneStartImport(self, caller, event):
        """A scene is added. Its selectors lose their nodes meanwhile, which must not reach the parameters."""
        for panel in self.panels:
            panel.disconnect()

    def onSceneEndImport(self, caller, event):
        """The parameter node has new contents, which only a new object reads: references are resolved silently."""
        self._use_scene(self.logic.getParameterNode())

    def initializeParameterNode(self):
        """Connect the panels with the parameters of the scene."""
        parameters = self.logic.getParameterNode()
        known = self.segment.parameters
        if known is None or known.parameterNode is not parameters.parameterNode:
            self._forget_scene()
            self._use_scene(parameters)

    def _use_scene(self, parameters):
        for panel in self.panels:
            panel.use_scene(parameters)
        self.segment.choose_likely_volume()
        node = parameters.parameterNode
        if not self.hasObserver(
            node, vtk.vtkCommand.ModifiedEvent, self._refresh
        ):  # an import keeps the node
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._refresh)

    def _add_panel(self, panel_class, title):
        widget = slicer.util.loadUI(self.resourcePath(f"UI/{panel_class.ui_file}"))
        widget.setMRMLScene(slicer.mrmlScene)
        self.tabs.addTab(widget, title)
        panel = panel_class(widget, self.logic)
        panel.changed = self._refresh
        self.panels.append(panel)
        return panel

    def _on_tab(self, index):
        self._leave()
        self._refresh()

    def _leave(self):
        for panel in self.panels:
            panel.leave()

    def _refresh(self, caller=None, event=None):
        for panel in self.panels:
            panel.refresh()

    def _forget_scene(self):
        known = self.segment.parameters if self.panels else None
        if known is not None:
            self.removeObserver(known.parameterNode, vtk.vtkCommand.ModifiedEvent, self._refresh)
        for panel in self.panels:
            panel.forget_scene()


class CPS4SegmentationTest(ScriptedLoadableModuleTest):
    """The self test: Reload and Test in Slicer's developer mode."""

    def setUp(self):
        """Start with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the main workflow."""
        self.setUp()
        self.test_main_workflow()

    def test_main_workflow(self):
        """Make a volume, segment it, look at a prompt, shift the levels."""
        run_self_test(self)
