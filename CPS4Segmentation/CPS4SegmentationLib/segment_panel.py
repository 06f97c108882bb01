"""The panel Segment: an MR volume in, named and coloured structures out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CPS4Core.card import NETWORK, Card
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Event, Failed, Finished, Progress, Warned
from CPS4SegmentationLib.batch_table import BatchTable
from CPS4SegmentationLib.folder_batch import FileResult, FolderBatch, FolderOrder
from CPS4SegmentationLib.loading import load_pair
from CPS4SegmentationLib.logic import CPS4SegmentationLogic, in_words, show_error
from CPS4SegmentationLib.model_card import describe, model_name
from CPS4SegmentationLib.panel import Panel, on_path
from CPS4SegmentationLib.progress import ProgressDisplay
from CPS4SegmentationLib.remembered import remember, setting
from CPS4SegmentationLib.segmentations import (
    DIGEST,
    MADE_BY,
    doubts_of,
    is_edited,
    load_result,
    replace_content,
    result_of,
    set_agreement,
    show_surfaces,
    source_volume,
)
from CPS4SegmentationLib.volumes import check_volume, likely_volume, mr_volumes

DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class _Order:
    """One segmentation, and what it was made from and with."""

    volume: str
    """ID of the node."""
    model: Path
    device: str
    source: Path
    """The volume as the engine reads it."""
    result: Path
    model_name: str


class SegmentPanel(Panel):
    """Chooses volume and model, and runs segmentations one after the other."""

    ui_file = "SegmentPanel.ui"

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        super().__init__(widget, logic)
        self._progress = ProgressDisplay(self.ui.progressBar)
        self._waiting: deque[str] = deque()
        self._running: _Order | None = None
        self._folder: FolderBatch | None = None
        self._step = ""
        self._listed: dict[str, str] = {}
        """The names of the volumes of the scene that the table lists, by their IDs."""
        self._table = BatchTable(self.ui.batchTable, self.ui.openResultButton)
        names = (_("Automatic"), _("Graphics card (CUDA)"), _("Graphics (Apple)"), _("Processor"))
        for device, name in zip(DEVICES, names, strict=True):
            self.ui.deviceBox.addItem(name, device)
        self.ui.deviceBox.currentIndex = max(0, self.ui.deviceBox.findData(logic.device))
        self.ui.modelEdit.currentPath = setting("ModelFolder")
        if logic.base_model is not None:  # an empty field means that model
            for box in self.ui.modelEdit.findChildren("QComboBox"):
                box.lineEdit().placeholderText = _("the model that comes with CPS4")
        self.ui.deviceBox.connect("currentIndexChanged(int)", self._on_device)
        on_path(self.ui.modelEdit, self._on_model)
        self.ui.segmentButton.connect("clicked()", self.segment_chosen)
        self.ui.segmentAllButton.connect("clicked()", self.segment_all)
        self.ui.cancelButton.connect("clicked()", self.cancel)
        self.ui.scansEdit.currentPath = setting("Scans")
        self.ui.resultsEdit.currentPath = setting("BatchResults")
        on_path(self.ui.scansEdit, lambda path: self._on_folder("Scans", path))
        on_path(self.ui.resultsEdit, lambda path: self._on_folder("BatchResults", path))
        self.ui.segmentFolderButton.connect("clicked()", self.segment_folder)
        self.ui.show3DButton.connect("toggled(bool)", self._on_show_3d)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_segmentation)
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_input)
        self._show_card()

    def use_model(self, folder: Path) -> None:
        """Choose a model, as the panel Train does when it is done."""
        self.ui.modelEdit.currentPath = str(folder)

    def segment_chosen(self) -> None:
        """Segment the chosen volume, or put it in line."""
        if self._enqueue([self.ui.inputSelector.currentNode()]):
            if self._running is None:
                self._forget_table()
            self._go_on()

    def segment_all(self) -> None:
        """Segment every MR volume of the scene that is no map of ours; a table says what became of each."""
        volumes = self._all_volumes()
        if self._enqueue(volumes):
            self._table.clear()
            self._listed = {volume.GetID(): volume.GetName() for volume in volumes}
            self._go_on()

    def segment_folder(self) -> None:
        """Segment every scan of a folder into files of another one; what is there already is not made again."""
        try:
            model = self._checked_model()
            order = FolderOrder(
                Path(self.ui.scansEdit.currentPath),
                Path(self.ui.resultsEdit.currentPath),
                model,
                model_name(model),
                self.logic.device,
                self.scene.countLevels,
                self.ui.measuresBox.checked,
            )
            order.check()
            self.logic.ensure_engine()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        self._forget_table()
        self._progress.start(_("Starting"))
        self.say(_("Segmenting the folder {name}.").format(name=order.scans.name))
        self._folder = FolderBatch(
            order, self._table, self._open_file, self._on_folder_progress, self.logic.log, self._on_folder_end
        )
        self.refresh()

    def cancel(self) -> None:
        """Stop what runs and forget what waits; what is done stays."""
        self._waiting.clear()
        if self._folder is not None:
            self._folder.stop()
        else:
            self.logic.worker.cancel()
        self.say(_("Stopping..."))

    def forget_scene(self) -> None:
        """The scene closes: nothing that runs may write into the next one. A folder goes on, into its files."""
        super().forget_scene()
        if self._running is not None:
            self.logic.worker.cancel()
        self.logic.worker.forget_checks()
        self._waiting.clear()
        self._running = None
        if self._folder is None:
            self._progress.reset()
            self.say("")
        if self._listed:
            self._forget_table()

    def close(self) -> None:
        """The module is unloaded: a folder stops; what is done stays."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def refresh(self) -> None:
        """Enable what can be done now."""
        ready = self.parameters is not None and self.logic.model is not None and self._folder is None
        folders = bool(self.ui.scansEdit.currentPath and self.ui.resultsEdit.currentPath)
        self.ui.segmentFolderButton.enabled = ready and folders and self._running is None
        self.ui.segmentButton.enabled = ready and self.ui.inputSelector.currentNode() is not None
        self.ui.segmentAllButton.enabled = ready and len(self._all_volumes()) > 1
        self.ui.cancelButton.enabled = self._running is not None or self._folder is not None
        self.ui.show3DButton.enabled = self.ui.segmentationSelector.currentNode() is not None
        # A text that wraps is squeezed to one line where tables want its place.
        card = self.ui.cardLabel
        card.setMinimumHeight(card.heightForWidth(card.width))

    def choose_likely_volume(self) -> None:
        """Choose the volume that is meant most likely, where none is chosen yet."""
        if self.parameters is not None and self.parameters.inputVolume is None:
            self.parameters.inputVolume = likely_volume(self._all_volumes())

    def _all_volumes(self) -> list[slicer.vtkMRMLScalarVolumeNode]:
        return mr_volumes(besides=self.parameters and self.parameters.attentionVolume)

    def _checked_model(self) -> Path:
        return self.logic.checked_model(NETWORK, _("The model cannot segment: its stage 2 is not trained."))

    def _enqueue(self, volumes: list[slicer.vtkMRMLScalarVolumeNode]) -> bool:
        """Put volumes in line that are not yet in it; False if nothing can be segmented."""
        try:
            self._checked_model()
            if len(volumes) == 1:
                check_volume(volumes[0])
            self.logic.ensure_engine()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return False
        busy = {self._running and self._running.volume, *self._waiting}
        self._waiting.extend(volume.GetID() for volume in volumes if volume.GetID() not in busy)
        return True

    def _forget_table(self) -> None:
        self._table.clear()
        self._listed = {}

    def _go_on(self) -> None:
        """Start the first in line if nothing runs, and say so."""
        if self._running is None:
            self._next()
        self._say_running()

    def _next(self) -> None:
        """Start the next segmentation in line; a volume that cannot be handed over is told and left out."""
        self._running = None
        self._progress.reset()
        while self._waiting and self._running is None:
            volume_id = self._waiting.popleft()
            volume = slicer.mrmlScene.GetNodeByID(volume_id)
            try:
                if volume is not None:
                    self._start(volume)
                elif volume_id in self._listed:
                    raise _removed()
            except CPS4Error as error:
                self._tell_failure(volume_id, error)
        self.refresh()

    def _tell_failure(self, volume_id: str, error: Failed | CPS4Error) -> None:
        """Show what failed: that of many volumes in the table, that of one in a message."""
        if volume_id in self._listed:
            self.logic.log(f"{self._listed[volume_id]}: {in_words(error)}")
            self._table.add_failed(self._listed[volume_id], error.problem, error.remedy)
        else:
            show_error(error, self.logic.log)

    def _start(self, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
        model = self._checked_model()
        source = self.logic.volumes.path_of(volume)
        target = self.logic.new_folder("segmentation") / "result.seg.nrrd"
        order = _Order(volume.GetID(), model, self.logic.device, source, target, model_name(model))
        self._running = order
        self._progress.start(_("Starting"))
        self.logic.worker.segment(
            order.model,
            order.device,
            order.source,
            order.result,
            self.scene.countLevels,
            lambda event: self._on_event(order, event),
        )

    def _on_event(self, order: _Order, event: Event) -> None:
        if order is not self._running:
            return  # of a scene that was closed meanwhile; the next one uses the same node IDs again
        if isinstance(event, Progress):
            self._progress.show(Progress(event.done, event.total, _("Segmenting"), event.seconds_left))
        elif isinstance(event, Warned):
            self.logic.log(event.message)
            self.say(event.message)
        elif isinstance(event, Artifact):
            self._take_result(order, event)
        elif isinstance(event, Failed):
            self.say(in_words(event))
            self._next()
            self._tell_failure(order.volume, event)
            self._say_end()
        elif isinstance(event, Finished):
            if event.cancelled:
                self.say(_("Stopped. Nothing was changed."))
            self._next()
            self._say_end()

    def _take_result(self, order: _Order, event: Artifact) -> None:
        volume = slicer.mrmlScene.GetNodeByID(order.volume)
        if volume is None:
            self.say(in_words(_removed()))
            if order.volume in self._listed:
                self._tell_failure(order.volume, _removed())
            return
        try:
            node = load_result(Path(event.path), volume, event.details, order.model_name)
        except CPS4Error as error:
            self._tell_failure(order.volume, error)
            return
        previous = result_of(volume, besides=node)
        if previous is not None and self._may_replace(previous):
            node = replace_content(previous, node)
        self.scene.segmentation = node
        self._check_result(order, node)
        if self.ui.show3DButton.checked:
            show_surfaces(node, True)
        count, doubts = node.GetSegmentation().GetNumberOfSegments(), [_(doubt) for doubt in doubts_of(node)]
        found = _("no structure found. Is it a sagittal spine MR?")
        if count:
            found = " ".join([_("{count} structures found.").format(count=count), *doubts])
        if order.volume in self._listed:
            node_id = node.GetID()
            self._table.add_done(volume.GetName(), found, lambda: self._open_node(node_id))
        if count and not doubts:
            found += " " + _("Review tells which to look at first.")
        self.say(f"{volume.GetName()}: {found}")

    def _check_result(self, order: _Order, node: slicer.vtkMRMLSegmentationNode) -> None:
        """Let the model's teacher and its class prompts look at a result too, once nothing else is to be done."""
        node_id, made = node.GetID(), node.GetAttribute(DIGEST)

        def on_event(event: Event) -> None:
            found = slicer.mrmlScene.GetNodeByID(node_id)
            if isinstance(event, Failed):
                self.logic.log(in_words(event))
            elif isinstance(event, Artifact) and found is not None and found.GetAttribute(DIGEST) == made:
                set_agreement(found, event.details["agreement"])
                self.changed()

        network = node.GetAttribute(MADE_BY)
        self.logic.worker.check(order.model, order.device, order.source, order.result, network, on_event)

    def _may_replace(self, previous: slicer.vtkMRMLSegmentationNode) -> bool:
        """Whether the new result may take the place of an earlier one; asked only if somebody edited that."""
        return not is_edited(previous) or slicer.util.confirmYesNoDisplay(
            _("{name} was edited. Replace it with the new result? No keeps both.").format(
                name=previous.GetName()
            ),
            windowTitle=_("CPS4"),
        )

    def _say_running(self) -> None:
        if self._running is not None:
            name = slicer.mrmlScene.GetNodeByID(self._running.volume).GetName()
            more = len(self._waiting)
            waits = _(" {count} more in line.").format(count=more) if more else ""
            self.say(_("Segmenting {name}.").format(name=name) + waits)
        self._say_end()
        self.refresh()

    def _say_end(self) -> None:
        """Say how the batch of the scene's volumes ended, once nothing of it runs."""
        if self._listed and self._running is None:
            ended = _("{done} segmented, {failed} failed.").format(
                done=self._table.done, failed=self._table.failed
            )
            left = len(self._listed) - self._table.done - self._table.failed
            self.say(ended if not left else _("Stopped. {ended} {left} left.").format(ended=ended, left=left))

    def _open_node(self, node_id: str) -> None:
        """Choose a segmentation of the scene and its volume."""
        node = slicer.mrmlScene.GetNodeByID(node_id)
        if node is not None:
            self._choose(source_volume(node), node)

    def _open_file(self, result: FileResult) -> None:
        """Load a result with its scan, unless both are in the scene from before."""
        try:
            with slicer.util.WaitCursor():
                self._choose(*load_pair(result))
        except CPS4Error as error:
            show_error(error, self.logic.log)

    def _choose(
        self, volume: slicer.vtkMRMLScalarVolumeNode | None, node: slicer.vtkMRMLSegmentationNode
    ) -> None:
        if volume is not None:
            self.scene.inputVolume = volume
            slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.scene.segmentation = node

    def _on_folder_progress(self, event: Progress) -> None:
        self._progress.show(Progress(event.done, event.total, "", event.seconds_left))
        if event.message and event.message != self._step:
            self._step = event.message
            self.say(f"{event.message}.")

    def _on_folder_end(self, words: str) -> None:
        self._folder = None
        self._progress.reset()
        self.say(words)
        self.refresh()

    def _on_folder(self, name: str, path: str) -> None:
        remember(name, path)
        self.refresh()

    def _on_device(self, index: int) -> None:
        remember("Device", self.ui.deviceBox.itemData(index))

    def _on_model(self, path: str) -> None:
        remember("ModelFolder", path)
        self._show_card()
        self.refresh()
        self.changed()

    def _show_card(self) -> None:
        if self.logic.model is None:
            self.ui.cardLabel.text = _("Choose a model folder: `model` in a training run.")
            return
        try:
            self.ui.cardLabel.text = describe(Card.read(self.logic.model))
        except CPS4Error as error:
            self.ui.cardLabel.text = in_words(error)

    def _on_input(self, node: Any) -> None:
        self.refresh()
        self.changed()

    def _on_segmentation(self, node: Any) -> None:
        self.ui.segmentsTable.setSegmentationNode(node)
        self.ui.show3DButton.checked = node is not None and _has_surface(node)
        self.refresh()
        self.changed()

    def _on_show_3d(self, shown: bool) -> None:
        node = self.ui.segmentationSelector.currentNode()
        if node is None or _has_surface(node) == shown:
            return
        with slicer.util.WaitCursor():
            show_surfaces(node, shown)
        if shown:
            slicer.app.layoutManager().resetThreeDViews()


def _removed() -> CPS4Error:
    return CPS4Error(_("The volume was removed meanwhile."), _("Its result is dropped."))


def _has_surface(node: slicer.vtkMRMLSegmentationNode) -> bool:
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    display = node.GetDisplayNode()
    shown = display is not None and bool(display.GetVisibility3D())
    return shown and node.GetSegmentation().ContainsRepresentation(name)
