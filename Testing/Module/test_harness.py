"""The harness is faithful: a module written for Slicer runs, and what Slicer would refuse is refused."""

import ast
import gc
import importlib
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
from module_under_test import in_both_versions
from PySide6 import QtCore, QtGui
from SlicerHarness import SlicerHarness
from SlicerHarness.check_names import check_names, qt_application

TOY = Path(__file__).parents[1] / "SlicerHarness" / "toy" / "Toy" / "Toy.py"


@pytest.fixture
def toy(slicer_harness):
    return slicer_harness.open_module(TOY)


def add_volume(harness: SlicerHarness, name: str = "mr"):
    """A bright ball of radius 20 voxels in a box of 64, brighter to its top, in slices 4 mm thick."""
    slicer = harness.slicer
    z, y, x = np.mgrid[-32:32, -32:32, -8:8]
    ball = np.where(x**2 * 4 + y**2 + z**2 < 400, 200 + 5 * z, 20).astype(np.int16)
    volume = slicer.util.addVolumeFromArray(ball, name=name)
    volume.SetSpacing(4.0, 1.0, 1.0)
    volume.CreateDefaultDisplayNodes()
    harness.process_events()
    return volume


def pixels(path: Path) -> np.ndarray:
    image = QtGui.QImage(str(path)).convertToFormat(QtGui.QImage.Format_RGB888)
    width, height = image.size().width(), image.size().height()
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(height, image.bytesPerLine())
    return rows[:, : 3 * width].reshape(height, width, 3).astype(int)


# A module at work


def test_a_click_makes_a_segmentation(slicer_harness, toy):
    assert not toy.ui.applyButton.enabled
    volume = add_volume(slicer_harness)
    toy.ui.inputSelector.setCurrentNode(volume)
    assert toy.ui.applyButton.enabled
    toy.ui.nameEdit.text = "Ball"
    toy.ui.thresholdSlider.value = 150
    toy.ui.applyButton.click()
    node = slicer_harness.slicer.util.getNode("mr Ball")
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    mask = slicer_harness.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
    expected = slicer_harness.slicer.util.arrayFromVolume(volume) > 150
    assert np.array_equal(mask.astype(bool), expected)
    assert node.GetSegmentation().GetSegment(segment_id).GetName() == "Ball"


def test_parameters_and_widgets_follow_each_other(toy):
    toy.ui.smoothBox.checked = True
    toy.ui.modeBox.currentIndex = 1
    assert toy._parameters.smooth is True
    assert toy._parameters.mode == "below"
    toy._parameters.threshold = 42.0
    assert toy.ui.thresholdSlider.value == 42.0
    assert toy._parameters.parameterNode.GetParameter("threshold") == "42.0"
    with pytest.raises(ValueError, match="within"):
        toy._parameters.threshold = 501


@pytest.mark.parametrize("file_name", ["scène 1.mrb", "scène 1.mrml"])
def test_scene_saved_and_reopened_keeps_parameters(slicer_harness, toy, tmp_path, file_name):
    volume = add_volume(slicer_harness)
    toy.ui.inputSelector.setCurrentNode(volume)
    toy.ui.thresholdSlider.value = 77
    if file_name.endswith(".mrml"):
        assert slicer_harness.slicer.util.saveNode(volume, str(tmp_path / "mr.nrrd"))
    slicer_harness.reopen_scene(tmp_path / file_name)
    assert toy._parameters.threshold == 77
    assert toy.ui.thresholdSlider.value == 77
    assert toy._parameters.inputVolume is slicer_harness.slicer.util.getNode("mr")
    assert toy._parameters.inputVolume.GetSpacing() == (4.0, 1.0, 1.0)


def test_closing_the_scene_gives_defaults(slicer_harness, toy):
    toy.ui.inputSelector.setCurrentNode(add_volume(slicer_harness))
    toy.ui.thresholdSlider.value = 77
    slicer_harness.close_scene()
    assert toy._parameters.threshold == 100
    assert toy._parameters.inputVolume is None
    assert toy.ui.inputSelector.currentNode() is None


def test_errors_and_questions_are_recorded(slicer_harness, toy, capture_slot_errors):
    toy.ui.inputSelector.setCurrentNode(add_volume(slicer_harness))
    toy.ui.thresholdSlider.value = 0
    with capture_slot_errors() as errors:
        toy.ui.applyButton.click()
    assert [type(error) for error in errors] == [ValueError]
    (message,) = slicer_harness.dialogs.errors
    assert message.text == "The segmentation failed.\n\na threshold of 0 marks everything"
    assert "Traceback" in message.details
    slicer_harness.dialogs.answer("No", "Yes")
    toy.ui.resetButton.click()
    assert toy._parameters.threshold == 0
    toy.ui.resetButton.click()
    assert toy._parameters.threshold == 100


def test_an_unanswered_question_is_an_error(slicer_harness):
    with pytest.raises(AssertionError, match="nobody answers"):
        slicer_harness.slicer.util.confirmYesNoDisplay("Really?")


def test_self_test_runs_as_in_reload_and_test(slicer_harness, toy):
    slicer_harness.slicer.selfTests["Toy"]()


def test_reload_makes_a_new_widget(slicer_harness, toy):
    before = slicer_harness.slicer.modules.ToyWidget
    slicer_harness.slicer.util.reloadScriptedModule("Toy")
    after = slicer_harness.slicer.modules.ToyWidget
    assert after is not before
    assert after.ui.applyButton is not before.ui.applyButton


def test_volumes_and_segmentations_are_written_and_read(slicer_harness, toy, tmp_path):
    slicer = slicer_harness.slicer
    volume = add_volume(slicer_harness)
    node = toy.logic.segment(volume, 100, "Ball")
    assert slicer.util.saveNode(volume, str(tmp_path / "Bild ä.nii.gz"))
    assert slicer.util.exportNode(node, str(tmp_path / "ball.seg.nrrd"))
    read = slicer.util.loadVolume(str(tmp_path / "Bild ä.nii.gz"))
    assert np.array_equal(slicer.util.arrayFromVolume(read), slicer.util.arrayFromVolume(volume))
    assert (
        slicer.util.loadSegmentation(str(tmp_path / "ball.seg.nrrd"))
        .GetSegmentation()
        .GetNthSegment(0)
        .GetName()
        == "Ball"
    )
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


# What only real Slicer does


def test_a_field_is_read_again_only_when_its_node_is_modified(slicer_harness, toy):
    volume, parameters = add_volume(slicer_harness), toy._parameters
    node = parameters.parameterNode
    node.DisableModifiedEventOn()
    node.SetNodeReferenceID("inputVolume", volume.GetID())
    node.DisableModifiedEventOff()
    assert parameters.inputVolume is None
    node.Modified()
    assert parameters.inputVolume is volume


def test_an_import_takes_the_node_from_a_selector_and_from_its_field(slicer_harness, toy, tmp_path):
    slicer, scene = slicer_harness.slicer, slicer_harness.slicer.mrmlScene
    toy.ui.inputSelector.setCurrentNode(add_volume(slicer_harness))
    assert slicer.util.saveScene(str(tmp_path / "one.mrb"))
    toy.removeObserver(scene, scene.StartImportEvent, toy.onSceneStartClose)
    toy.removeObserver(scene, scene.EndImportEvent, toy.onSceneEndClose)
    slicer.util.loadScene(str(tmp_path / "one.mrb"), {"clear": False})
    assert toy.ui.inputSelector.currentNode() is None
    assert toy._parameters.inputVolume is None
    assert toy._parameters.parameterNode.GetNodeReference("inputVolume") is None  # and what was saved is lost


@in_both_versions
def test_a_selector_speaks_when_its_node_is_renamed_in_5_12(slicer_harness, toy):
    volume, told = add_volume(slicer_harness), []
    toy.ui.inputSelector.setCurrentNode(volume)
    toy.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", told.append)
    volume.SetName("T2")
    volume.SetAttribute("another", "change")
    assert told == ([volume] if slicer_harness.slicer.app.minorVersion == 12 else [])


def test_a_connection_keeps_its_callable_alive_until_it_is_disconnected(slicer_harness):
    import qt

    class Listener:
        def __init__(self):
            self.timer = qt.QTimer()
            self.timer.timeout.connect(self.tick)
            self.count = 0

        def tick(self):
            self.count += 1

    listener = Listener()
    listener.timer.start(0)
    slicer_harness.wait_until(lambda: listener.count > 1)
    listener.timer.stop()
    gone = weakref.ref(listener)
    listener = None
    gc.collect()
    assert gone() is not None
    gone().timer.timeout.disconnect(gone().tick)
    gc.collect()
    assert gone() is None


@in_both_versions
def test_disconnecting_leaves_an_observer_in_5_10(slicer_harness, toy):
    parameters, shown = toy._parameters, []
    parameters._update_gui = lambda: shown.append(True)
    toy.onSceneStartClose(None, None)
    parameters.parameterNode.Modified()
    assert bool(shown) == (slicer_harness.slicer.app.minorVersion == 10)


def test_slicer_5_10_has_pip_alone(tmp_path):
    with SlicerHarness(tmp_path / "slicer", "5.10") as harness:
        with pytest.raises(ImportError):
            importlib.import_module("slicer.packaging")
        with pytest.raises(AttributeError):
            _ = harness.slicer.packaging
        with pytest.raises(subprocess.CalledProcessError, match="installs nothing"):
            harness.slicer.util.pip_install(["not-there==1.0", "--no-deps"])
    with SlicerHarness(tmp_path / "next") as harness:
        assert harness.slicer.packaging.pip_check("numpy")


def test_a_path_field_is_silent_when_it_is_emptied(slicer_harness):
    import ctk

    edit, paths, valid = ctk.ctkPathLineEdit(), [], []
    edit.connect("currentPathChanged(QString)", paths.append)
    edit.connect("validInputChanged(bool)", valid.append)
    for text in ("/no/such/file", "", "/"):
        edit.currentPath = text
    assert paths == ["/no/such/file", "/"]
    assert valid == [True, False, True]
    edit.nameFilters = ("*.nii",)
    edit.currentPath = "scan.nrrd"
    edit.currentPath = "scan.nii"
    assert paths[2:] == ["scan.nii"]


def test_events_go_on_while_a_dialog_is_open(slicer_harness):
    import qt

    seen = []
    qt.QTimer.singleShot(0, lambda: seen.append("timer"))
    slicer_harness.slicer.util.infoDisplay("A message")
    assert seen == ["timer"]


@pytest.mark.skipif(sys.platform == "win32", reason="the launcher is a script")
def test_killing_the_launcher_leaves_the_python_beneath(slicer_harness):
    import qt

    packages = slicer_harness.install_launcher()
    process, seen = qt.QProcess(), []
    process.readyReadStandardOutput.connect(lambda: seen.append(process.readAllStandardOutput().data()))
    script = "import os, sys, time; print(os.getpid(), sys.path, flush=True); time.sleep(60)"
    process.start("PythonSlicer", ["-c", script])
    slicer_harness.wait_until(lambda: seen)
    number, _, path = seen[0].decode("utf-8").partition(" ")
    assert ast.literal_eval(path)[1] == str(packages)
    process.kill()
    assert process.waitForFinished()
    beneath = psutil.Process(int(number))
    assert beneath.is_running()
    beneath.kill()
    beneath.wait()


def test_what_is_loaded_is_in_the_list_of_recent_files(slicer_harness, tmp_path):
    slicer = slicer_harness.slicer
    assert slicer.util.saveNode(add_volume(slicer_harness), str(tmp_path / "mr.nrrd"))
    slicer.util.loadVolume(str(tmp_path / "mr.nrrd"))
    assert slicer_harness.recent_files == [str(tmp_path / "mr.nrrd")]


def test_a_widget_is_grabbed(slicer_harness, toy):
    import ctk

    assert not ctk.ctkWidgetsUtils.grabWidget(toy.parent).isNull()


# What would be refused


def test_a_property_called_as_a_method_is_refused(toy):
    assert toy.ui.nameEdit.text == "Bright"
    with pytest.raises(TypeError, match="not callable"):
        toy.ui.nameEdit.text()


def test_unknown_attributes_are_refused(toy):
    import qt

    for widget in (
        toy.ui.applyButton,
        toy.ui.thresholdSlider,
        toy.ui.inputSelector,
        qt.QTimer(),
        qt.QVBoxLayout(),
    ):
        with pytest.raises(AttributeError, match="has no property 'enbled'"):
            widget.enbled = True
        with pytest.raises(AttributeError, match="enbled"):
            _ = widget.enbled
    with pytest.raises(AttributeError):
        _ = toy.ui.aplyButton
    with pytest.raises(AttributeError, match="can't be set"):
        toy.ui.applyButton.clicked = print
    with pytest.raises(AttributeError, match="can't be written"):
        toy.ui.applyButton.width = 3
    with pytest.raises(AttributeError, match="is a int"):
        qt.QSpinBox().value = "three"


@pytest.mark.parametrize("signature", ["clickd()", "clicked(QString)", "clicked"])
def test_wrong_signals_are_refused(toy, signature):
    with pytest.raises(ValueError, match="signal"):
        toy.ui.applyButton.connect(signature, print)
    with pytest.raises(AttributeError):
        toy.ui.applyButton.clickd.connect(print)


def test_names_that_slicer_lacks_are_refused(slicer_harness):
    import ctk
    import qt
    import slicer

    for module, name in (
        (slicer, "loadVolume"),
        (qt, "Signal"),
        (qt, "Slot"),
        (qt, "QtCore"),
        (ctk, "ctkNothing"),
    ):
        with pytest.raises(AttributeError):
            getattr(module, name)
    with pytest.raises(AttributeError, match="no module"):
        _ = slicer.modules.nothing
    with pytest.raises(AttributeError, match=r"slicer\.app has no"):
        _ = slicer.app.nothing
    with pytest.raises(ImportError):
        from slicer.util import nothing  # noqa: F401
    with pytest.raises(TypeError):
        qt.QSettings().value("a", type=bool)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('<property name="text"><string>Apply', '<property name="txt"><string>Apply'), "no property 'txt'"),
        (('class="ctkSliderWidget"', 'class="ctkSliderWdget"'), "ctkSliderWdget"),
        (('name="smoothBox"', 'name="nameEdit"'), "twice: nameEdit"),
        (("<receiver>inputSelector", "<receiver>inputSelctor"), "inputSelctor"),
        (("setMRMLScene(vtk", "setMrmlScene(vtk"), "setMrmlScene"),
    ],
)
def test_mistakes_in_the_ui_file_are_refused(slicer_harness, tmp_path, change, message):
    source = (TOY.parent / "Resources/UI/Toy.ui").read_text()
    assert change[0] in source
    (tmp_path / "wrong.ui").write_text(source.replace(*change))
    with pytest.raises((RuntimeError, AttributeError), match=message):
        slicer_harness.slicer.util.loadUI(str(tmp_path / "wrong.ui"))


def test_a_field_that_no_widget_of_that_kind_can_show_is_refused(toy):
    with pytest.raises(RuntimeError, match="can't show"):
        toy._parameters.connectParametersToGui({"threshold": toy.ui.nameEdit})
    with pytest.raises(ValueError, match="no parameter"):
        toy._parameters.connectParametersToGui({"treshold": toy.ui.thresholdSlider})


# Leaks


def test_a_forgotten_observer_is_reported(tmp_path):
    source = TOY.read_text().replace("        self.removeObservers()\n", "")
    folder = tmp_path / "Toy"
    (folder / "Resources/UI").mkdir(parents=True)
    (folder / "Toy.py").write_text(source)
    (folder / "Resources/UI/Toy.ui").write_text((TOY.parent / "Resources/UI/Toy.ui").read_text())
    with SlicerHarness(tmp_path / "slicer") as harness:
        harness.open_module(folder / "Toy.py")
    assert any("still observes vtkMRMLScene with onSceneStartClose" in leak for leak in harness.leaks)


def test_nothing_of_one_test_is_in_the_next(tmp_path):
    for folder in ("first", "second"):
        with SlicerHarness(tmp_path / folder) as harness:
            toy = harness.open_module(TOY)
            assert toy._parameters.threshold == 100
            assert harness.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
            assert harness.slicer.util.settingsValue("Toy/last", "none") == "none"
            toy._parameters.threshold = 5
            add_volume(harness)
            harness.slicer.app.settings().setValue("Toy/last", "here")
            del toy
        assert harness.leaks == []


# Pictures


def test_slice_view_shows_image_segmentation_and_overlay(slicer_harness, toy, tmp_path):
    slicer = slicer_harness.slicer
    volume = add_volume(slicer_harness)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    slicer.app.layoutManager().sliceWidget("Yellow").mrmlSliceNode().SetOrientation("Sagittal")
    plain = pixels(slicer_harness.render_slice_view(tmp_path / "plain.png", "Yellow", (200, 200)))
    assert np.ptp(plain, axis=2).max() == 0, "a grey image is grey"
    assert plain[100, 100, 0] > plain[100, 2, 0], "the ball is in the middle"

    node = toy.logic.segment(volume, 100, "Ball")
    segmented = pixels(slicer_harness.render_slice_view(tmp_path / "segmented.png", "Yellow", (200, 200)))
    red, green, blue = segmented[100, 100]
    assert red > green > blue, "an orange segment, half transparent"
    node.GetDisplayNode().SetVisibility(False)

    overlay = add_volume(slicer_harness, "map")
    overlay.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileInferno.txt")
    slicer.util.setSliceViewerLayers(foreground=overlay, foregroundOpacity=0.5)
    mapped = pixels(slicer_harness.render_slice_view(tmp_path / "mapped.png", "Yellow", (200, 200)))
    assert np.ptp(mapped[100, 100]) > 20, "the colour map is over the image"


def test_the_mouse_places_points_in_the_views(slicer_harness):
    slicer, place = slicer_harness.slicer, (2.0, 12.0, 30.0)
    volume = slicer.util.addVolumeFromArray(np.zeros((60, 40, 20)))
    slicer_harness.main_window.show()
    view = slicer.app.layoutManager().sliceWidget("Red")
    view.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    view.mrmlSliceNode().SetOrientationToSagittal()
    slicer_harness.render_slice_view(slicer_harness.folder / "view.png")
    view.mrmlSliceNode().JumpSlice(*place)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.CreateDefaultDisplayNodes()
    selection = slicer.app.applicationLogic().GetSelectionNode()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
    selection.SetReferenceActivePlaceNodeID(points.GetID())
    told = []
    points.AddObserver(points.PointPositionDefinedEvent, lambda *_: told.append("defined"))
    interaction.AddObserver(interaction.EndPlacementEvent, lambda *_: told.append("ended"))

    slicer_harness.click_in_slice_view("Red", place)
    assert points.GetNumberOfControlPoints() == 0  # no tool is in hand
    interaction.SwitchToSinglePlaceMode()
    slicer_harness.click_in_slice_view("Red", place)
    assert told == ["defined", "ended"]
    found = [0.0] * 3
    points.GetNthControlPointPositionWorld(0, found)
    assert found == pytest.approx(place, abs=0.5)

    interaction.SwitchToSinglePlaceMode()
    slicer_harness.click_in_slice_view("Red", place, QtCore.Qt.RightButton)
    assert told == ["defined", "ended", "ended"]
    assert points.GetNumberOfDefinedControlPoints() == 1


def test_panel_and_window_are_photographed(slicer_harness, toy, tmp_path):
    volume = add_volume(slicer_harness)
    toy.ui.inputSelector.setCurrentNode(volume)
    panel = pixels(slicer_harness.photograph(toy.parent, tmp_path / "panel.png", width=380))
    assert panel.shape[1] == 380
    assert np.ptp(panel) > 150, "dark text on a light panel"


def test_3d_view_shows_the_surface(slicer_harness, toy, tmp_path):
    node = toy.logic.segment(add_volume(slicer_harness), 100, "Ball")
    node.CreateClosedSurfaceRepresentation()
    picture = pixels(slicer_harness.render_3d_view(tmp_path / "3d.png", size=(200, 200)))
    red, green, blue = picture[100, 100]
    assert red > green > blue


# Names


def test_the_toy_uses_only_names_of_slicer():
    assert check_names(TOY.parent) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("slicer.util.getNod('x')", "no slicer.util.getNod"),
        ("slicer.loadVolume('x')", "no slicer.loadVolume"),
        ("slicer.app.mainWindow()", "no slicer.app.mainWindow"),
        ("slicer.modules.segmenteditr", "segmenteditr"),
        ("slicer.vtkMRMLSegmentationNde()", "vtkMRMLSegmentationNde"),
        ("slicer.packaging.pip_ensure([])", "needs Slicer 5.12"),
        ("qt.QTimer.singleShoot(0, f)", "qt.QTimer.singleShoot"),
        ("qt.QMessageBox.StandardButton.Yes", "qt.QMessageBox.Yes"),
        ("qt.Signal(int)", "no qt.Signal"),
        ("qt.QPushButton('a', parent=None)", "keywords"),
        ("ctk.ctkColapsibleButton()", "no ctk.ctkColapsibleButton"),
        ("button.connect('clicked', f)", "parentheses"),
        ("button.clicked.connect(f, 1)", "one callable"),
        ("from slicer.util import getNod", "no slicer.util.getNod"),
    ],
)
def test_names_that_do_not_exist_are_found(tmp_path, line, problem):
    (tmp_path / "module.py").write_text(f"import ctk, qt, slicer\n{line}\n")
    (finding,) = check_names(tmp_path)
    assert problem in finding.problem
    assert finding.line == 2


def test_a_newer_name_is_allowed_when_the_module_asks_first(tmp_path):
    (tmp_path / "module.py").write_text("import slicer\nslicer.packaging.pip_ensure([])\n")
    assert check_names(tmp_path, frozenset({"packaging"})) == []


def test_stand_ins_offer_nothing_that_slicer_lacks():
    from SlicerHarness import ctk_widgets, qmrml_widgets, views
    from SlicerHarness.application import CLASSES
    from SlicerHarness.names_lists import members

    def offered(name: str) -> set[str]:
        return members(name) | internal | (qt_application() if name == "qSlicerApplication" else set())

    stand_ins = ctk_widgets.WIDGETS | qmrml_widgets.WIDGETS | views.WIDGETS | CLASSES
    internal = {"hitButton", "childEvent", "paintEvent", "staticMetaObject", "STEPS", "COLUMNS"}
    surplus = {
        f"{name}.{member}"
        for name, cls in stand_ins.items()
        for member in vars(cls)
        if not member.startswith("_") and member not in offered(name)
    }
    assert surplus == set()


# Processes, tables, plots, packages


def test_a_process_is_run_and_its_output_read(slicer_harness):
    import qt

    process, seen = qt.QProcess(), []
    process.readyReadStandardOutput.connect(lambda: seen.append(process.readAllStandardOutput().data()))
    process.finished.connect(lambda code, status: seen.append((code, status == qt.QProcess.NormalExit)))
    process.start(sys.executable, ["-c", "print('Wirbelsäule')"])
    slicer_harness.wait_until(lambda: len(seen) == 2)
    assert seen[0].decode("utf-8").strip() == "Wirbelsäule"
    assert seen[1] == (0, True)
    assert process.state() == qt.QProcess.NotRunning


def test_a_process_left_running_is_reported(tmp_path):
    with SlicerHarness(tmp_path / "slicer") as harness:
        import qt

        process = qt.QProcess()
        process.start(sys.executable, ["-c", "import time; time.sleep(60)"])
        harness.wait_until(lambda: process.state() == qt.QProcess.Running)
    process.kill()
    process.waitForFinished()
    assert any("still runs" in leak for leak in harness.leaks)


def test_a_pack_of_parameters_is_a_field_and_its_members_have_widgets(slicer_harness):
    from dataclasses import dataclass
    from typing import Annotated

    import qt
    from slicer.parameterNodeWrapper import (
        WithinRange,
        nestedParameterNames,
        parameterNodeWrapper,
        parameterPack,
    )

    @parameterPack
    @dataclass
    class Run:
        name: str = "first"
        folds: Annotated[int, WithinRange(1, 9)] = 5

    @parameterNodeWrapper
    class Stored:
        run: Run

    node = slicer_harness.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    stored, edit = Stored(node), qt.QLineEdit()
    assert nestedParameterNames(Run) == ["name", "folds"]
    assert stored.run == Run("first", 5)
    stored.connectParametersToGui({"run.name": edit})
    edit.text = "second"
    assert node.GetParameter("run.name") == "second"
    stored.run.folds = 3
    assert Stored(node).run == Run("second", 3)
    with pytest.raises(ValueError, match="within"):
        stored.run.folds = 10
    stored.run = Run("third")
    assert edit.text == "third"
    node.RemoveAllObservers()


def test_the_button_show_3d_shows_surfaces(slicer_harness, toy):
    button = slicer_harness.slicer.qMRMLSegmentationShow3DButton()
    assert not button.enabled
    node = toy.logic.segment(add_volume(slicer_harness), 100, "L1")
    button.setSegmentationNode(node)
    button.click()
    assert node.GetDisplayNode().GetVisibility3D()
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    button.click()
    assert not node.GetDisplayNode().GetVisibility3D()
    button.setSegmentationNode(None)
    assert not button.enabled


def test_the_segments_table_follows_the_segmentation(slicer_harness, toy):
    import qt

    table = slicer_harness.slicer.qMRMLSegmentsTableView()
    table.setMRMLScene(slicer_harness.slicer.mrmlScene)
    node = toy.logic.segment(add_volume(slicer_harness), 100, "L1")
    table.setSegmentationNode(node)
    other = node.GetSegmentation().AddEmptySegment("", "L2")
    assert [table.tableWidget().item(row, 3).text() for row in range(table.segmentCount())] == ["L1", "L2"]
    table.setSelectedSegmentIDs([other])
    assert table.selectedSegmentIDs() == [other]
    table.tableWidget().item(1, 0).setCheckState(qt.Qt.Unchecked)
    assert not node.GetDisplayNode().GetSegmentVisibility(other)
    node.GetSegmentation().RemoveSegment(other)
    assert table.segmentCount() == 1


def test_plots_are_drawn(slicer_harness, tmp_path):
    slicer = slicer_harness.slicer
    scene, manager = slicer.mrmlScene, slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpPlotView)
    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), ["x", "y"])
    series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "Dice")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetColor(1.0, 0.0, 0.0)
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    widget = manager.plotWidget(0)
    widget.mrmlPlotViewNode().SetPlotChartNodeID(chart.GetID())
    slicer_harness.main_window.show()
    red, green, blue = pixels(slicer_harness.photograph(widget, tmp_path / "plot.png")).reshape(-1, 3).T
    assert ((red > 200) & (green < 100) & (blue < 100)).sum() > 100


def test_packages_are_asked_for_and_not_installed(slicer_harness):
    slicer = slicer_harness.slicer
    assert slicer.packaging.pip_check("numpy>=1.0")
    with pytest.raises(subprocess.CalledProcessError, match="installs nothing"):
        slicer.util.pip_install("not-there==1.0")
    slicer_harness.dialogs.answer("Cancel")
    with pytest.raises(RuntimeError, match="declined"):
        slicer.packaging.pip_ensure(["not-there>=2"])
    assert slicer.packaging.requested == ["not-there==1.0"]
