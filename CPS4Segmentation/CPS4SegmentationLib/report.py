"""The report of a reviewed segmentation: one page of HTML that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from CPS4Core import __version__
from CPS4Core.levels import LADDER, step_of
from CPS4Core.measuring import Spine
from CPS4Core.measuring.spine import NOTHING
from CPS4Core.measuring.table import LUMBAR, rows_of
from CPS4Core.measuring.voxels import Grid
from CPS4SegmentationLib.flag_words import flag_words
from CPS4SegmentationLib.mid_sagittal import SagittalView, middle_slice
from CPS4SegmentationLib.report_pictures import Drawn, overlaid_picture, plain_picture
from CPS4SegmentationLib.review import Finding
from CPS4SegmentationLib.segmentations import (
    DIGEST,
    doubts_of,
    is_edited,
    masks_of,
    model_of,
    source_volume,
)

WIDTH = 700
"""Of the page between its margins, in pixels of 1/96 inch: A4 with margins of 12 mm."""
PICTURE = (340, 400)
"""Most width and height of a picture on the page, in the same pixels."""
MEASURES = slice(2, 9)
"""The columns of a row of measures that are shown: heights, angles, index, slip."""
# Black on white whatever the style of Slicer or of the browser. Pixels, for a point has another size on each system.
STYLE = """
body { background-color: #ffffff; color: #000000; font-family: Helvetica, Arial, sans-serif; font-size: 11px; }
h1 { font-size: 18px; margin: 0px; }
h2 { font-size: 13px; margin-top: 8px; margin-bottom: 2px; }
p { margin-top: 2px; margin-bottom: 2px; }
td { font-size: 11px; }
th { font-size: 10px; }
table.measures { border-collapse: collapse; border-style: solid; border-color: #aaaaaa; }
.small { font-size: 9px; color: #444444; }
"""
# Qt passes over these.
FOR_BROWSERS = """
html { display: flex; justify-content: center; padding: 12mm; }
body { max-width: 700px; margin: 0px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media print { html { padding: 0px; } }
@page { size: A4; margin: 12mm; }
"""


def make_report(
    node: slicer.vtkMRMLSegmentationNode, findings: Sequence[Finding], spine: Spine, with_name: bool
) -> str:
    """Return the report of a segmentation as HTML, its pictures inside.

    Args:
        node: the segmentation.
        findings: what was found on it, with what is flagged.
        spine: its measures.
        with_name: say who the patient is. Otherwise no name is in it, not that of a node either.

    Raises:
        CPS4Error: if the source volume is gone.
    """
    masks, volume = masks_of(node), source_volume(node)
    assert volume is not None  # masks_of has refused it
    body = (
        *_head(node, _patient(volume) if with_name else ""),
        *_pictures(node, volume, masks, spine),
        *_flagged(node, findings),
        *_table(node, findings, spine),
        *_foot(),
    )
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html><head><meta charset="utf-8"><meta name="color-scheme" content="light">',
            f"<title>{escape(_('Spine MR report'))}</title>",
            f"<style>{STYLE}</style><style>{FOR_BROWSERS}</style></head>",
            '<body bgcolor="#ffffff">',
            *body,
            "</body></html>",
            "",
        )
    )


def _head(node: slicer.vtkMRMLSegmentationNode, patient: str) -> Iterator[str]:
    yield f"<h1>{escape(_('Spine MR: segmentation and measures'))}</h1>"
    if patient:
        yield _paragraph(f"<b>{escape(patient)}</b>")
    model, made = model_of(node), _("segmentation of unknown origin")
    if node.GetAttribute(DIGEST) is not None:
        made = _("segmented by CPS4, edited since") if is_edited(node) else _("segmented by CPS4, not edited")
    facts = (
        datetime.now().strftime("%Y-%m-%d %H:%M"),
        made,
        _("model: {name}").format(name=model or _("not known")),
        _("CPS4 {version} in 3D Slicer {slicer}").format(
            version=__version__, slicer=slicer.app.applicationVersion
        ),
    )
    yield _paragraph(escape("; ".join(facts) + "."))
    yield _paragraph("<b>" + escape(_("For research. Not a medical device; not for diagnosis.")) + "</b>")


def _patient(volume: slicer.vtkMRMLScalarVolumeNode) -> str:
    """Return who the patient is, from DICOM; without it the name of the volume."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(volume)
    name = hierarchy.GetAttributeFromItemAncestor(
        item, constants.GetDICOMPatientNameAttributeName(), constants.GetDICOMLevelPatient()
    )
    if not name:
        return _("MR volume: {name}").format(name=volume.GetName())
    day = hierarchy.GetAttributeFromItemAncestor(
        item, constants.GetDICOMStudyDateAttributeName(), constants.GetDICOMLevelStudy()
    )
    told = _("Patient: {name}").format(name=" ".join(part for part in name.split("^") if part))
    if len(day) == 8 and day.isdigit():
        day = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return told + _(", study of {date}").format(date=day) if day else told


def _pictures(
    node: slicer.vtkMRMLSegmentationNode,
    volume: slicer.vtkMRMLScalarVolumeNode,
    masks: Mapping[str, np.ndarray],
    spine: Spine,
) -> Iterator[str]:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    grid = Grid(volume.GetImageData().GetDimensions(), slicer.util.arrayFromVTKMatrix(matrix))
    view = SagittalView.of(grid, middle_slice(grid, masks.values()))
    grey = view.picture(slicer.util.arrayFromVolume(volume))
    drawn = [
        structure
        for segment, mask in masks.items()
        if (structure := _drawn(view, node.GetSegmentation().GetSegment(segment), mask, spine)) is not None
    ]
    rows, columns = view.shape
    scale = min(PICTURE[0] / columns, PICTURE[1] / rows)
    size = f'width="{round(scale * columns)}" height="{round(scale * rows)}"'
    where = _(
        "Slice {number} of {count}, through the middle of the spine; head up, front on the left."
    ).format(number=view.number + 1, count=grid.shape[grid.across])
    yield '<table width="100%" cellpadding="4" cellspacing="0"><tr>'
    for png in (plain_picture(grey), overlaid_picture(grey, drawn)):
        data = base64.b64encode(png).decode("ascii")
        yield f'<td width="50%" align="center"><img {size} src="data:image/png;base64,{data}"></td>'
    yield f'</tr></table><p class="small">{escape(where)}</p>'


def _drawn(view: SagittalView, segment: slicer.vtkSegment, mask: np.ndarray, spine: Spine) -> Drawn | None:
    """Return a structure as it is drawn, its name on its body; None where the slice does not show it."""
    pixels = view.mask(mask)
    if not pixels.any():
        return None
    place = _middle_of_largest_piece(pixels)
    shape = spine.shapes.get(segment.GetName(), NOTHING)
    if shape.outline is not None and not math.isnan(
        shape.middle_mm
    ):  # of the sacrum its plate alone is known
        place = view.pixel_of((shape.outline.upper_middle + shape.outline.lower_middle) / 2)
    return Drawn(segment.GetName(), segment.GetColor(), pixels, place)


def _middle_of_largest_piece(pixels: np.ndarray) -> tuple[float, float]:
    from scipy.ndimage import center_of_mass, label

    pieces, _count = label(pixels)
    row, column = center_of_mass(pieces == np.bincount(pieces[pixels]).argmax())
    return float(row), float(column)


def _flagged(node: slicer.vtkMRMLSegmentationNode, findings: Sequence[Finding]) -> Iterator[str]:
    yield f"<h2>{escape(_('To look at'))}</h2>"
    words = flag_words()
    doubts = " ".join(_(doubt) for doubt in doubts_of(node))
    told = [_("When CPS4 made it: {doubts}").format(doubts=doubts)] if doubts else []
    told += [
        f"{finding.name}: {', '.join(words[flag] for flag in finding.flags)}."
        for finding in findings
        if finding.flags
    ]
    told += [
        _("{name}: {flags}; looked at.").format(
            name=finding.name, flags=", ".join(words[flag] for flag in finding.looked_at)
        )
        for finding in findings
        if finding.looked_at
    ]
    yield _paragraph(escape(" ".join(told) or _("Nothing conspicuous.")))


def _table(node: slicer.vtkMRMLSegmentationNode, findings: Sequence[Finding], spine: Spine) -> Iterator[str]:
    words, measures = flag_words(), rows_of(spine)
    titles = (
        _("Structure"),
        _("Volume ml"),
        _("Ant. mm"),
        _("Mid. mm"),
        _("Post. mm"),
        _("Wedge °"),
        _("Index"),
        _("Slip mm"),
        _("Lord. °"),
        _("Sure"),
        _("Look at"),
    )
    yield f"<h2>{escape(_('Measures'))}</h2>"
    yield '<table class="measures" width="100%" border="1" cellpadding="2" cellspacing="0">'
    widths = (11, *[7] * 9, 24)
    heads = zip(widths, titles, strict=True)
    yield '<tr><th width="2%"></th>'
    yield "".join(f'<th width="{width}%">{escape(title)}</th>' for width, title in heads) + "</tr>"
    for finding in sorted(findings, key=_place):
        row = measures.get(finding.name, ("",) * 10)
        notes = [words[flag] for flag in finding.flags]
        numbers = (_number(finding.volume_ml, 1), *row[MEASURES], _number(finding.confidence, 2))
        yield _row(_colour(node, finding), finding.name, numbers, ", ".join(notes) or row[-1])
    yield _row("#ffffff", LUMBAR, ("", *measures[LUMBAR][MEASURES], ""), "")
    yield "</table>"


def _row(colour: str, name: str, numbers: Sequence[str], note: str) -> str:
    cells = "".join(f'<td align="right">{escape(number)}</td>' for number in numbers)
    return (
        f'<tr><td bgcolor="{colour}"></td><td><b>{escape(name)}</b></td>{cells}<td>{escape(note)}</td></tr>'
    )


def _colour(node: slicer.vtkMRMLSegmentationNode, finding: Finding) -> str:
    if finding.segment is None:
        return "#ffffff"
    colour = node.GetSegmentation().GetSegment(finding.segment).GetColor()
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _foot() -> Iterator[str]:
    meaning = _(
        "Heights in front, in the middle and at the back, between the two faces of a body or disc in its own "
        "mid-sagittal plane. Wedge: angle between its faces, positive where the front is higher. Index: mean height "
        "of the disc over that of the bodies beside it. Slip: how far the vertebra above the disc stands before the "
        "bone below it; negative: behind it. Lord.: lordosis of the two vertebrae beside the disc, and of L1-S1; "
        "negative: kyphosis. Sure: how sure the model is, 0 to 1."
    )
    yield f'<p class="small">{escape(meaning)}</p>'


def _place(finding: Finding) -> int:
    step = step_of(finding.name)
    return len(LADDER) if step is None else step


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _paragraph(html: str) -> str:
    return f"<p>{html}</p>"
