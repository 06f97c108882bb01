"""The way to the first result: the likely volume is chosen, a model is there, and one button is pressed."""

import numpy as np
import pytest
import SimpleITK as sitk
from module_under_test import MODULE, Module, names_of, write_series
from PySide6 import QtCore, QtTest, QtWidgets

from CPS4Core.class_table import find_label


@pytest.fixture
def without_base(monkeypatch, tmp_path):
    """No model comes with CPS4."""
    from CPS4Core import shipped_model

    monkeypatch.setattr(shipped_model, "BESIDE", tmp_path / "nowhere")
    monkeypatch.setattr(shipped_model, "_TARGET", tmp_path / "nowhere")
    monkeypatch.setattr(shipped_model, "files", lambda package: [])


class Clicks(QtCore.QObject):
    """Counts the presses of the mouse in the application."""

    def __init__(self):
        super().__init__()
        self._count = 0
        QtWidgets.QApplication.instance().installEventFilter(self)

    def eventFilter(self, watched, event):
        if event.type() == QtCore.QEvent.MouseButtonPress and watched.isWidgetType():
            self._count += 1
        return False

    def stop(self):
        QtWidgets.QApplication.instance().removeEventFilter(self)
        return self._count


def click(widget):
    QtTest.QTest.mouseClick(widget, QtCore.Qt.LeftButton)


def test_three_clicks_from_an_opened_study_to_named_segments(
    slicer_harness, engine_python, trained, tmp_path
):
    import qt

    qt.QSettings().setValue("CPS4/EnginePython", engine_python)
    scan = sitk.ReadImage(str(next((trained / "data" / "imagesTs").iterdir())))
    write_series(scan, tmp_path / "study", "T2 sag", 1)
    thick = sitk.PermuteAxes(sitk.Image([24, 30, 6], sitk.sitkInt16), (0, 1, 2))
    thick.SetSpacing((1.0, 1.0, 8.0))
    write_series(thick, tmp_path / "study", "T2 ax", 2)
    slicer_harness.load_module(MODULE)
    slicer_harness.main_window.show()
    slicer_harness.load_dicom(tmp_path / "study")

    counted = Clicks()
    try:
        choosing_the_module = 2  # the list of modules, and its entry
        slicer_harness.slicer.util.selectModule("CPS4Segmentation")
        slicer_harness.process_events()
        panel = slicer_harness.slicer.modules.CPS4SegmentationWidget.segment
        click(panel.ui.segmentButton)
        slicer_harness.wait_until(lambda: not panel.ui.cancelButton.enabled, 120)
    finally:
        presses = counted.stop()
    assert presses + choosing_the_module <= 3
    assert panel.ui.inputSelector.currentNode().GetName() == "T2 sag"
    names = names_of(panel.ui.segmentationSelector.currentNode())
    assert len(names) >= 3
    assert all(find_label(name) for name in names)
    assert not slicer_harness.dialogs.messages


def volume_of(module, name, spacing=(4.0, 1.0, 1.0)):
    """A volume whose first axis is the patient's left-right one."""
    volume = module.slicer.util.addVolumeFromArray(np.ones((20, 20, 8), np.int16), name=name)
    volume.SetSpacing(*spacing)
    return volume


def chosen_on_return(module):
    """What is chosen in Segment once the user has been elsewhere."""
    module.slicer.util.selectModule("Volumes")
    module.slicer.util.selectModule("CPS4Segmentation")
    return module.widget.segment.ui.inputSelector.currentNode()


def test_a_volume_that_was_loaded_later_is_chosen(module):
    label_map = module.slicer.util.loadLabelVolume(str(module.truth))
    assert label_map is module.slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert chosen_on_return(module) is None
    hidden = volume_of(module, "hidden")
    hidden.SetHideFromEditors(True)
    axial = volume_of(module, "axial", (1.0, 1.0, 5.0))
    assert chosen_on_return(module) is axial  # there is no better one; it is told when it is segmented
    module.widget.segment.ui.inputSelector.setCurrentNode(None)
    sagittal, shown = volume_of(module, "T1"), volume_of(module, "T2")
    module.slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(shown.GetID())
    assert chosen_on_return(module) is shown
    module.widget.segment.ui.inputSelector.setCurrentNode(sagittal)
    assert chosen_on_return(module) is sagittal  # what the user chose stays


def test_our_own_attention_map_is_never_chosen(module):
    parameters = module.widget.segment.parameters
    parameters.attentionVolume = volume_of(module, "Attention L4")
    assert chosen_on_return(module) is None


def test_the_model_that_comes_with_cps4_is_there_and_told_in_words(module):
    from CPS4Core.shipped_model import base_model

    panel = module.panel("segment")
    assert not panel.ui.modelEdit.currentPath
    assert module.widget.logic.model == base_model()
    text = panel.ui.cardLabel.text
    assert "comes with CPS4" in text
    assert "comes with CPS4" in panel.ui.modelEdit.findChildren("QComboBox")[0].lineEdit().placeholderText
    assert "synthetic spines" in text
    assert "never saw" in text
    assert "Not tested on" in text
    assert "No medical device" in text
    module.choose_model()
    assert "comes with CPS4" not in panel.ui.cardLabel.text
    panel.ui.modelEdit.currentPath = ""
    assert panel.ui.cardLabel.text == text
    assert module.widget.logic.model == base_model()


def test_without_any_model_nothing_can_be_pressed(without_base, slicer_harness, trained):
    module = Module(slicer_harness, trained)
    module.load()
    panel = module.widget.segment
    assert not panel.ui.segmentButton.enabled
    assert "Choose a model" in panel.ui.cardLabel.text
    module.choose_model()
    assert panel.ui.segmentButton.enabled
    panel.ui.modelEdit.currentPath = ""
    assert not panel.ui.segmentButton.enabled
