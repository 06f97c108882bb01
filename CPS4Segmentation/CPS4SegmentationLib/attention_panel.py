"""The panel Attention: what each class prompt, or any other, attends to in the volume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from CPS4Core.card import ENCODERS
from CPS4Core.class_table import class_name, find_label, short_name, structure_of
from CPS4Core.errors import CPS4Error
from CPS4Core.events import Artifact, Event, Failed, Finished, Progress
from CPS4SegmentationLib.attention_display import FREE_PROMPT_COLOUR, AttentionDisplay, show_side_by_side
from CPS4SegmentationLib.attention_maps import CLASSES, LABELS, AttentionMap, dice
from CPS4SegmentationLib.logic import CPS4SegmentationLogic, in_words, show_error
from CPS4SegmentationLib.panel import Panel, fit_to_contents
from CPS4SegmentationLib.progress import ProgressDisplay
from CPS4SegmentationLib.segmentations import mask_of, segment_ids, set_mask, source_volume

NAME, PEAK, PRESENT, DICE = range(4)


class AttentionPanel(Panel):
    """A table of the class prompts; the chosen one's maps lie over the image."""

    ui_file = "AttentionPanel.ui"

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        super().__init__(widget, logic)
        self._progress = ProgressDisplay(self.ui.progressBar)
        self._maps: dict[str, AttentionMap] = {}
        self._maps_of: tuple | None = None
        self._asked: set[str] = set()
        self._round = 0
        self._fill_table()
        self.ui.classTable.connect("currentCellChanged(int,int,int,int)", self._on_row)
        self.ui.computeButton.connect("clicked()", self.compute_all)
        self.ui.sideBySideButton.connect("clicked()", self._on_side_by_side)
        self.ui.promptButton.connect("clicked()", self._on_prompt)
        self.ui.promptEdit.connect("returnPressed()", self._on_prompt)
        self.ui.opacitySlider.connect("valueChanged(double)", self._on_opacity)
        self.ui.thresholdSlider.connect("valueChanged(double)", self._on_threshold)
        self.ui.referenceSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_reference)
        self.ui.makeSegmentButton.connect("clicked()", self.make_segment)
        self.ui.saveFigureButton.connect("clicked()", self.save_figure)
        self.ui.hideButton.connect("clicked()", self.hide)

    def show_prompt(self, text: str) -> None:
        """Show what a class name or any other prompt attends to, computing its map if it is not there yet."""
        if self.parameters is None or not text.strip():
            return
        text = _key(text)
        self._forget_old_maps()
        self.scene.prompt = text
        if text in self._maps:
            self._display(text)
        else:
            self._compute([text])

    def compute_all(self) -> None:
        """Compute the maps of all class prompts."""
        self._forget_old_maps()
        missing = [name for name in CLASSES if name not in self._maps]
        if missing:
            self._compute(missing)
        else:
            self.say(_("All maps are there: pick a class."))

    def hide(self) -> None:
        """Take the maps out of the views."""
        if self.parameters is not None:
            AttentionDisplay(self.parameters).hide()
            self.parameters.prompt = ""
            self.ui.promptLabel.text = ""
            self.ui.classTable.setCurrentCell(-1, -1)
        self.refresh()

    def make_segment(self) -> None:
        """Add the shown binary map to the segmentation as a segment."""
        shown = self._maps[self.scene.prompt]
        volume = self.scene.inputVolume
        node = self.scene.segmentation
        if node is None or source_volume(node) is not volume:
            node = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLSegmentationNode", _("{volume} prompts").format(volume=volume.GetName())
            )
            node.CreateDefaultDisplayNodes()
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
            self.scene.segmentation = node
        structure = structure_of(shown.label)
        colour = structure.color if structure is not None else FREE_PROMPT_COLOUR
        name = _("{prompt} (prompt)").format(prompt=self.scene.prompt)
        segment = node.GetSegmentation().AddEmptySegment("", name, [channel / 255 for channel in colour])
        set_mask(node, segment, shown.binary(), volume)
        self.say(_("Added the segment {name}.").format(name=name))

    def save_figure(self) -> None:
        """Save a picture of the image, the attention map and the binary map of the shown prompt."""
        chosen = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save figure"), "attention.png", "PNG (*.png)"
        )
        if not chosen:
            return
        path = Path(chosen).with_suffix(".png")
        try:
            model, source = self._model_and_source()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        prompts = [self.scene.prompt]
        self.logic.worker.figure(model, self.logic.device, source, path, prompts, self._on_figure)

    def use_scene(self, parameters: Any) -> None:
        """Take the scene's parameters; a map that was saved with the scene shows again when it is picked."""
        super().use_scene(parameters)
        self._forget_old_maps()

    def forget_scene(self) -> None:
        """The scene closes: maps of its volumes are worth nothing in the next one."""
        super().forget_scene()
        self._forget_maps()

    def refresh(self) -> None:
        """Enable what can be done now."""
        ready = (
            self.parameters is not None
            and self.logic.model is not None
            and self.parameters.inputVolume is not None
        )
        shown = ready and self.scene.prompt in self._maps
        for button in (self.ui.computeButton, self.ui.promptButton):
            button.enabled = ready
        for button in (self.ui.makeSegmentButton, self.ui.saveFigureButton, self.ui.hideButton):
            button.enabled = shown
        self.ui.introLabel.visible = not ready

    def _model_and_source(self) -> tuple[Path, Path]:
        self.logic.ensure_engine()
        model = self.logic.checked_model(
            ENCODERS, _("The model was trained without prompts and has no attention maps.")
        )
        return model, self.logic.volumes.path_of(self.scene.inputVolume)

    def _compute(self, prompts: list[str]) -> None:
        try:
            model, source = self._model_and_source()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        prompts = [prompt for prompt in prompts if prompt not in self._asked]
        if not prompts:
            return
        self._asked.update(prompts)
        self._progress.start(_("Attention maps"))
        self._maps_of = self._source_state()
        this_round, pending = self._round, list(prompts)

        def on_event(event: Event) -> None:
            if this_round == self._round:
                self._on_event(event, pending)

        target = self.logic.new_folder("attention")
        self.logic.worker.attend(model, self.logic.device, source, target, prompts, on_event)

    def _on_event(self, event: Event, pending: list[str]) -> None:
        if isinstance(event, Progress):
            self._progress.show(event)
        elif isinstance(event, Artifact):
            text = pending.pop(0)  # answers come in the order of the prompts
            self._asked.discard(text)
            self._maps[text] = AttentionMap.of(event)
            self._fill_row(text)
            if text == self.scene.prompt:
                self._display(text)
        elif isinstance(event, Failed | Finished):
            self._asked.difference_update(pending)
            self._progress.reset()
            if isinstance(event, Failed):
                self.say(in_words(event))
                show_error(event, self.logic.log)
            self.refresh()

    def _on_figure(self, event: Event) -> None:
        if isinstance(event, Artifact):
            self.say(_("Saved {path}").format(path=event.path))
        elif isinstance(event, Failed):
            show_error(event, self.logic.log)

    def _display(self, text: str) -> None:
        shown = self._maps[text]
        title = text if shown.label is None else short_name(shown.label)
        AttentionDisplay(self.scene).show(
            self.scene.inputVolume, shown.attention(), shown.binary(), shown.label, title
        )
        self.ui.promptLabel.text = _("{prompt} Peak attention {peak:.2f}.").format(
            prompt=f"“{shown.prompt}”", peak=shown.peak
        )
        self.refresh()

    def _source_state(self) -> tuple | None:
        """Return what the maps depend on: the volume as it is, and the model."""
        volume = self.parameters.inputVolume if self.parameters is not None else None
        if volume is None or volume.GetImageData() is None:
            return None
        return (volume.GetID(), *self.logic.volumes.state_of(volume), str(self.logic.model))

    def _forget_old_maps(self) -> None:
        if self._maps_of is not None and self._maps_of != self._source_state():
            self._forget_maps()

    def _forget_maps(self) -> None:
        self._round += 1  # answers that are still on their way belong to nothing
        self._maps, self._maps_of, self._asked = {}, None, set()
        self._progress.reset()
        self.ui.promptLabel.text = ""
        for name in CLASSES:
            self._fill_row(name)

    def _fill_table(self) -> None:
        table = self.ui.classTable
        table.setRowCount(len(CLASSES))
        fit_to_contents(table, stretched=NAME)
        for row, label in enumerate(LABELS):
            structure = structure_of(label)
            name = class_name(label)
            item = qt.QTableWidgetItem(name if structure is None else f"{structure.short}  {name}")
            item.setToolTip(name)
            pixels = qt.QPixmap(12, 12)
            pixels.fill(qt.QColor(*((0, 0, 0) if structure is None else structure.color)))
            item.setIcon(qt.QIcon(pixels))
            table.setItem(row, NAME, item)
            self._fill_row(short_name(label))

    def _fill_row(self, name: str) -> None:
        if name not in CLASSES:
            return
        known = self._maps.get(name)
        values = ("", "", "")
        if known is not None:
            values = (f"{known.peak:.2f}", _("yes") if known.present else _("no"), self._dice_text(known))
        for column, text in zip((PEAK, PRESENT, DICE), values, strict=True):
            self.ui.classTable.setItem(CLASSES.index(name), column, qt.QTableWidgetItem(text))

    def _dice_text(self, known: AttentionMap) -> str:
        truth = self._reference_mask(known.label)
        value = float("nan") if truth is None else dice(known.binary(), truth)
        return "" if math.isnan(value) else f"{value:.2f}"

    def _reference_mask(self, label: int | None) -> np.ndarray | None:
        """Return the reference's mask of a class on the grid of the volume, None if there is none."""
        node = self.ui.referenceSelector.currentNode()
        if node is None or label is None or self.parameters is None:
            return None
        for segment in segment_ids(node):
            if find_label(node.GetSegmentation().GetSegment(segment).GetName()) == label:
                return mask_of(node, segment, self.parameters.inputVolume)
        return None

    def _on_row(self, row: int, *_: int) -> None:
        if row >= 0:
            self.show_prompt(CLASSES[row])

    def _on_prompt(self) -> None:
        self.show_prompt(self.ui.promptEdit.text)

    def _on_side_by_side(self) -> None:
        show_side_by_side()
        if self.parameters is not None and self.parameters.prompt in self._maps:
            AttentionDisplay(self.parameters).show_layers(self.parameters.inputVolume)

    def _on_opacity(self, value: float) -> None:
        if self.parameters is not None and self.parameters.prompt in self._maps:
            self.parameters.opacity = value
            AttentionDisplay(self.parameters).show_layers(self.parameters.inputVolume)

    def _on_threshold(self, value: float) -> None:
        if self.parameters is not None and self.parameters.attentionVolume is not None:
            self.parameters.threshold = value
            AttentionDisplay(self.parameters).apply_limits()

    def _on_reference(self, node: Any) -> None:
        for name in list(self._maps):
            self._fill_row(name)


def _key(text: str) -> str:
    """Return the short name of the class that ``text`` names, or the text itself."""
    label = find_label(text)
    return text.strip() if label is None else short_name(label)
