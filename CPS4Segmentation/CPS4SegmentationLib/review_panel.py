"""The panel Review: what to look at first, the corrections made most often, and the export."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CPS4Core.class_table import BY_LABEL, HEAD_TO_TAIL, short_name
from CPS4Core.errors import CPS4Error
from CPS4Core.measuring import Spine
from CPS4Core.measuring.table import rows_of
from CPS4SegmentationLib import exports
from CPS4SegmentationLib.doubt import show_doubt
from CPS4SegmentationLib.drawn_measures import clear_measures, draw_measures
from CPS4SegmentationLib.flag_words import flag_words
from CPS4SegmentationLib.level_changes import LevelChanges
from CPS4SegmentationLib.level_click import LevelClick
from CPS4SegmentationLib.logic import CPS4SegmentationLogic, show_error
from CPS4SegmentationLib.panel import Panel, fit_to_contents
from CPS4SegmentationLib.report import make_report
from CPS4SegmentationLib.review import Finding
from CPS4SegmentationLib.segmentations import (
    BINARY,
    agreement_of,
    examine,
    looked_at,
    segments,
    source_volume,
)

STRUCTURE, VOLUME, CONFIDENCE, FLAGS = range(4)
NO_SPINE = Spine({}, {}, math.nan)
MEASURES = slice(2, 9)
"""The columns of a row of measures that the table shows beside the name: heights, angles, index, slip."""


class ReviewPanel(Panel):
    """A table of the structures, doubtful ones first, with buttons to correct and to export."""

    ui_file = "ReviewPanel.ui"

    def __init__(self, widget: Any, logic: CPS4SegmentationLogic):
        super().__init__(widget, logic)
        self._findings: list[Finding] = []
        self._spine = NO_SPINE
        self._changes: LevelChanges | None = None
        self._seen: tuple | None = None
        self._words = flag_words()
        self._problems = {
            "cut": _("The border of the picture cuts it: not measured."),
            "irregular": _("It has not the shape of a body or disc: not measured."),
        }
        self._parts = {"network": _("network"), "teacher": _("teacher"), "prompts": _("class prompts")}
        for label in HEAD_TO_TAIL:
            self.ui.nameBox.addItem(short_name(label))
        table = self.ui.structureTable
        fit_to_contents(table, stretched=FLAGS)
        table.connect("currentCellChanged(int,int,int,int)", self._on_row)
        fit_to_contents(self.ui.measureTable, stretched=STRUCTURE)
        self.ui.measureTable.connect("currentCellChanged(int,int,int,int)", self._on_measure)
        self.ui.drawButton.connect("toggled(bool)", self._on_draw)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_node)
        self.ui.lookedAtButton.connect("clicked()", self.look_at)
        self.ui.levelsUpButton.connect("clicked()", self.levels_up)
        self.ui.levelsDownButton.connect("clicked()", self.levels_down)
        self._level_click = LevelClick(
            self.ui.nameClickButton, lambda: self.segmentation, self._shift_to, self.say
        )
        self.ui.undoButton.connect("clicked()", self.undo)
        self.ui.renameButton.connect("clicked()", self.rename)
        self.ui.deleteButton.connect("clicked()", self.delete)
        self.ui.editButton.connect("clicked()", self.edit)
        self.ui.exportNiftiButton.connect("clicked()", self.export_nifti)
        self.ui.exportSegmentationButton.connect("clicked()", self.export_segmentation)
        self.ui.exportDicomButton.connect("clicked()", self.export_dicom)
        self.ui.exportTableButton.connect("clicked()", self.export_table)
        self.ui.exportReportButton.connect("clicked()", self.export_report)

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The segmentation under review."""
        return self.ui.segmentationSelector.currentNode()

    def look_at(self) -> None:
        """Take the chosen structure off the list of those to look at, and show the next one."""
        chosen = self._chosen()
        if chosen is None or chosen.segment is None or not chosen.flags:
            return
        told = _("{name} was looked at.").format(name=chosen.name)
        self._change(lambda changes: changes.look_at(chosen.segment, chosen.flags), told)
        left = (finding.segment for finding in self._findings if finding.flags and finding.segment)
        self._show_structure(next(left, chosen.segment))

    def levels_up(self) -> None:
        """Name every structure one level higher: L5 becomes L4."""
        self._change(lambda changes: changes.shift(-1), _("All levels moved up by one."))

    def levels_down(self) -> None:
        """Name every structure one level lower: L4 becomes L5."""
        self._change(lambda changes: changes.shift(1), _("All levels moved down by one."))

    def _shift_to(self, name: str, new_name: str, levels: int) -> None:
        """Move all levels, so that the structure ``name`` gets its new name."""
        told = _("{old} is now {new}, and all others moved with it.").format(old=name, new=new_name)
        self._change(lambda changes: changes.shift(levels), told)

    def rename(self) -> None:
        """Give the chosen structure the chosen name; if another has it, the two may exchange names."""
        chosen, name = self._chosen(), self.ui.nameBox.currentText
        if chosen is None or chosen.segment is None or chosen.name == name:
            return
        taken = any(segment.GetName() == name for segment in segments(self.segmentation))
        question = _("There is already a structure {name}. Exchange the two names?").format(name=name)
        if taken and not slicer.util.confirmYesNoDisplay(question, windowTitle=_("CPS4")):
            return
        told = _("{old} is now {new}.").format(old=chosen.name, new=name)
        self._change(lambda changes: changes.rename(chosen.segment, name), told)

    def delete(self) -> None:
        """Remove the chosen structure."""
        chosen = self._chosen()
        if chosen is not None and chosen.segment is not None:
            told = _("{name} was deleted; Undo brings it back.").format(name=chosen.name)
            self._change(lambda changes: changes.delete(chosen.segment), told)

    def undo(self) -> None:
        """Take back the last change that was made here."""
        if self._changes is not None and self._changes.undo():
            self.say(_("The last change was taken back."))
            self._show_findings()
            self.changed()

    def edit(self) -> None:
        """Open the segmentation, with the chosen structure selected, in the Segment Editor."""
        chosen, node = self._chosen(), self.segmentation
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        editor.setSourceVolumeNode(source_volume(node))
        if chosen is not None and chosen.segment is not None:
            editor.setCurrentSegmentID(chosen.segment)

    def export_nifti(self) -> None:
        """Save the labels as NIfTI."""
        self._export(exports.write_nifti, _("Save labels"), "labels.nii.gz", "NIfTI (*.nii.gz)")

    def export_segmentation(self) -> None:
        """Save the segmentation with names, colours and codes."""
        kind = "Segmentation (*.seg.nrrd)"
        self._export(exports.write_segmentation, _("Save segmentation"), "segmentation.seg.nrrd", kind)

    def export_table(self) -> None:
        """Save the measurements as CSV, and keep them in the scene as a table."""
        self._export(
            lambda node, path: exports.write_measurements(self._findings, self._spine, path),
            _("Save measurements"),
            "measurements.csv",
            "CSV (*.csv)",
        )
        exports.measurements_table(self._findings, self._spine, self.segmentation)

    def export_report(self) -> None:
        """Save pictures, measures and what is flagged on one page."""
        self._export(
            lambda node, path: exports.write_report(
                make_report(node, self._findings, self._spine, self.ui.patientNameBox.checked), path
            ),
            _("Save report"),
            "report.pdf",
            "PDF (*.pdf);;HTML (*.html)",
        )

    def export_dicom(self) -> None:
        """Export as DICOM SEG, where an exporter is installed."""
        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("Folder for the DICOM files")
        )
        if folder:
            self._try(lambda: exports.write_dicom(self.segmentation, Path(folder)), folder)

    def use_scene(self, parameters: Any) -> None:
        """Take the scene's parameters."""
        super().use_scene(parameters)
        self._on_segmentation(self.segmentation)

    def leave(self) -> None:
        """Nobody clicks on vertebrae elsewhere."""
        self._level_click.stop()

    def forget_scene(self) -> None:
        """The scene closes."""
        self._level_click.stop()
        super().forget_scene()
        self._changes, self._seen = None, None
        self._findings, self._spine = [], NO_SPINE
        self.ui.drawButton.checked = False
        self._fill_table()

    def refresh(self) -> None:
        """Enable what can be done now, and measure again if the segmentation changed elsewhere."""
        self._show_findings()
        node, chosen = self.segmentation, self._chosen()
        filled = node is not None and node.GetSegmentation().GetNumberOfSegments() > 0
        if not filled:
            self._level_click.stop()
        for button in (
            self.ui.nameClickButton,
            self.ui.levelsUpButton,
            self.ui.levelsDownButton,
            self.ui.exportNiftiButton,
            self.ui.exportSegmentationButton,
            self.ui.exportDicomButton,
            self.ui.exportTableButton,
            self.ui.exportReportButton,
        ):
            button.enabled = filled
        self.ui.editButton.enabled = node is not None
        self.ui.drawButton.enabled = filled
        self.ui.lookedAtButton.enabled = (
            chosen is not None and chosen.segment is not None and bool(chosen.flags)
        )
        for button in (self.ui.renameButton, self.ui.deleteButton):
            button.enabled = chosen is not None and chosen.segment is not None
        self.ui.undoButton.enabled = self._changes is not None and self._changes.can_undo

    def _change(self, change: Any, told: str) -> None:
        try:
            change(self._changes)
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        self.say(told)
        self._show_findings()
        self.changed()

    def _export(self, write: Any, title: str, name: str, kind: str) -> None:
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, kind)
        if not chosen:
            return
        suffixes = re.findall(r"\*(\.[\w.]+)", kind)
        path = Path(chosen)
        if not chosen.lower().endswith(tuple(suffixes)):
            path = Path(chosen + suffixes[0])
            question = _("{name} exists. Replace it?").format(
                name=path.name
            )  # the dialog asked of another name
            if path.exists() and not slicer.util.confirmYesNoDisplay(question, windowTitle=_("CPS4")):
                return
        self._try(lambda: write(self.segmentation, path), str(path))

    def _try(self, write: Any, path: str) -> None:
        try:
            with slicer.util.WaitCursor():
                warning = write()
        except CPS4Error as error:
            show_error(error, self.logic.log)
            return
        self.say(" ".join(part for part in (_("Saved {path}.").format(path=path), warning) if part))

    def _on_node(self, node: Any) -> None:
        """Begin anew with another segmentation. Slicer 5.12 also speaks when the same one is renamed."""
        if node is not (None if self._changes is None else self._changes.node):
            self._on_segmentation(node)

    def _on_segmentation(self, node: Any) -> None:
        self._changes = None if node is None else LevelChanges(node)
        self._seen = None
        self._show_findings()
        self.refresh()

    def _show_findings(self) -> None:
        """Measure the segmentation and fill the table, unless nothing changed since the last time."""
        node = self.segmentation
        if node is not None and self._seen == _state(node):
            return
        with slicer.util.WaitCursor():
            self._findings, self._spine = ([], NO_SPINE) if node is None else examine(node)
        self._seen = None if node is None else _state(node)
        if node is not None:
            show_doubt(node, {finding.segment for finding in self._findings if finding.flags})
        self._fill_table()

    def _fill_table(self) -> None:
        table = self.ui.structureTable
        blocked = table.blockSignals(True)
        table.setRowCount(len(self._findings))
        for row, finding in enumerate(self._findings):
            texts = (
                finding.name,
                _number(finding.volume_ml, 1),
                _number(finding.confidence, 2),
                self._why(finding.flags) or (_("looked at") if finding.looked_at else ""),
            )
            tips = {CONFIDENCE: self._in_words(finding), FLAGS: self._why(finding.flags + finding.looked_at)}
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(tips.get(column, text))
                table.setItem(row, column, item)
        table.blockSignals(blocked)
        self._summarise()
        self._fill_measures()

    def _fill_measures(self) -> None:
        table, rows = self.ui.measureTable, rows_of(self._spine) if self._spine.shapes else {}
        blocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for row, (name, texts) in enumerate(rows.items()):
            shape = self._spine.shapes.get(name)
            told = self._problems[shape.problem] if shape is not None and shape.problem else name
            for column, text in enumerate((name, *texts[MEASURES])):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(told)
                table.setItem(row, column, item)
        table.blockSignals(blocked)
        self._draw()

    def _on_draw(self, wanted: bool) -> None:
        if wanted and self.ui.measureTable.currentRow() < 0:
            self.ui.measureTable.setCurrentCell(self.ui.measureTable.rowCount - 1, STRUCTURE)
        self._draw()

    def _on_measure(self, *_cells: int) -> None:
        """Show the measured structure in its mid-sagittal plane."""
        name = self._measured()
        shape = self._spine.shapes.get(name)
        if shape is not None and shape.outline is not None:
            centre = (shape.outline.upper_middle + shape.outline.lower_middle) / 2
            slicer.vtkMRMLSliceNode.JumpAllSlices(
                slicer.mrmlScene, *centre, slicer.vtkMRMLSliceNode.CenteredJumpSlice
            )
        self._draw()

    def _draw(self) -> None:
        """Draw the measures of the chosen row, if they are wanted."""
        name = self._measured()
        if not self.ui.drawButton.checked or not name:
            clear_measures()
        else:
            drawn = draw_measures(self._spine, name)
            self.say("" if drawn else _("{name} is not measured.").format(name=name))

    def _measured(self) -> str:
        """Return the name in the chosen row of the measures, empty if none is chosen."""
        item = self.ui.measureTable.item(self.ui.measureTable.currentRow(), STRUCTURE)
        return "" if item is None else item.text()

    def _why(self, flags: list[str]) -> str:
        """Return why to look at a structure."""
        return ", ".join(self._words[flag] for flag in flags)

    def _in_words(self, finding: Finding) -> str:
        """Return what the confidence is the mean of."""
        parts = (f"{self._parts[name]} {_number(value, 2)}" for name, value in finding.agreement.items())
        return ", ".join(parts)

    def _summarise(self) -> None:
        doubtful = sum(bool(finding.flags) for finding in self._findings)
        if self.segmentation is None:
            self.ui.summaryLabel.text = _("Choose a segmentation.")
        elif not self._findings:
            self.ui.summaryLabel.text = _("The segmentation is empty.")
        elif doubtful:
            self.ui.summaryLabel.text = _("{count} to look at, at the top of the table.").format(
                count=doubtful
            )
        else:
            self.ui.summaryLabel.text = _("Nothing conspicuous. Check that the levels are named right.")

    def _chosen(self) -> Finding | None:
        row = self.ui.structureTable.currentRow()
        return self._findings[row] if 0 <= row < len(self._findings) else None

    def _show_structure(self, segment: str) -> None:
        """Choose the row of a segment, and take the views there."""
        (row,) = (row for row, finding in enumerate(self._findings) if finding.segment == segment)
        self.ui.structureTable.setCurrentCell(row, STRUCTURE)
        self._on_row(row)  # it may have been the chosen row before

    def _on_row(self, row: int, *_args: int) -> None:
        chosen = self._chosen()
        if chosen is not None and chosen.centre is not None:
            slicer.vtkMRMLSliceNode.JumpAllSlices(
                slicer.mrmlScene, *chosen.centre, slicer.vtkMRMLSliceNode.CenteredJumpSlice
            )
        if chosen is not None and chosen.name in {structure.short for structure in BY_LABEL.values()}:
            self.ui.nameBox.currentIndex = self.ui.nameBox.findText(chosen.name)
        self.refresh()


def _state(node: slicer.vtkMRMLSegmentationNode) -> tuple:
    """Return what changes whenever a segment is added, removed, renamed, edited or checked."""
    return (
        node.GetID(),
        *(
            (
                segment.GetName(),
                _changed(segment.GetRepresentation(BINARY)),
                *agreement_of(segment).values(),
                *looked_at(segment),
            )
            for segment in segments(node)
        ),
    )


def _changed(image: slicer.vtkOrientedImageData | None) -> int:
    """Return when a label map changed last; 0 if there is none."""
    return 0 if image is None else image.GetMTime()


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
