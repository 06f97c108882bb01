"""The report of the panel Review: its pictures, measures and flags, as HTML and PDF; nobody's name unasked."""

import base64
import errno
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from measured_spines import SpineShape, build, draw
from module_under_test import Module, write_series
from PySide6 import QtGui

from CPS4Core.class_table import BY_LABEL
from CPS4Core.measuring.voxels import Grid

NAME = "Müller Hans <2>"


@pytest.fixture
def plain_module(slicer_harness, tmp_path):
    """The opened module, without a model of its own."""
    return Module(slicer_harness, tmp_path)


@pytest.fixture
def mid_sagittal(plain_module):
    from CPS4SegmentationLib import mid_sagittal

    return mid_sagittal


@pytest.fixture
def reviewed(plain_module):
    """A panel Review of a spine without L2/L3, and whose T12 the border cuts."""
    slicer = plain_module.slicer
    labels, to_ras = draw(build(SpineShape(slips={"L4/L5": 6.0})), (1.1, 0.8, 4.4), above=-10.0)
    volume = slicer.util.addVolumeFromArray(labels.astype(float), name=NAME)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(to_ras))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{NAME} spine")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in np.unique(labels)[1:].tolist():
        structure = BY_LABEL[label]
        if structure.short == "L2/L3":
            continue
        segment = node.GetSegmentation().AddEmptySegment("", structure.short, np.array(structure.color) / 255)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (labels == label).astype(np.uint8), node, segment, volume
        )
    panel = plain_module.panel("review")
    panel.ui.segmentationSelector.setCurrentNode(node)
    plain_module.harness.process_events()
    return panel


def save(module, panel, path):
    module.harness.dialogs.answer(str(path))
    panel.ui.exportReportButton.click()
    return path.read_text(encoding="utf-8") if path.suffix == ".html" else path.read_bytes()


class Rows(HTMLParser):
    """The cells of the table of measures, row by row."""

    def __init__(self, html):
        super().__init__()
        self.rows, self._cell = [], None
        self.feed(html[html.index('<table class="measures"') :])

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def pictures(html):
    """The pictures, RGB, rows and columns."""
    found = []
    for data in re.findall(r'<img [^>]*src="data:image/png;base64,([^"]+)"', html):
        image = QtGui.QImage.fromData(base64.b64decode(data)).convertToFormat(QtGui.QImage.Format_RGB888)
        rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        found.append(rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy())
    return found


def test_html_is_one_file_with_pictures_measures_and_flags(plain_module, reviewed, tmp_path):
    html = save(plain_module, reviewed, tmp_path / "Befund é.html")
    assert "Befund é.html" in reviewed.ui.statusLabel.text
    assert not re.findall(r'(?:src|href)="(?!data:)', html)  # it needs no other file
    assert "Not a medical device" in html
    rows = {row[1]: row[2:] for row in Rows(html).rows}
    table = reviewed.ui.measureTable
    for line in range(table.rowCount):
        name, *measures = (table.item(line, column).text() for column in range(8))
        assert rows[name][1:8] == measures, name
    assert rows["L2/L3"][-1] == "missing"
    assert rows["T12"][-1]
    assert "L2/L3: missing" in html[html.index("To look at") : html.index("Measures</h2>")]


def test_what_was_looked_at_is_told_too(plain_module, reviewed, tmp_path):
    slicer, node = plain_module.slicer, reviewed.segmentation
    segment, volume = node.GetSegmentation().GetSegmentIdBySegmentName("L4"), slicer.util.getNode(NAME)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)
    from_side_to_side = np.moveaxis(mask, np.argmin(mask.shape), 0)
    from_side_to_side[: len(from_side_to_side) // 2] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    reviewed.refresh()
    table = reviewed.ui.structureTable
    (row,) = (row for row in range(table.rowCount) if table.item(row, 0).text() == "L4")
    assert "one side" in table.item(row, 3).text()
    table.setCurrentCell(row, 0)
    reviewed.ui.lookedAtButton.click()
    html = save(plain_module, reviewed, tmp_path / "report.html")
    assert re.search("L4: [^.]*one side; looked at", html)


def test_nobody_is_named_unless_asked(plain_module, reviewed, tmp_path):
    assert not reviewed.ui.patientNameBox.checked
    html = save(plain_module, reviewed, tmp_path / "a.html")
    assert "Müller" not in html
    pdf = save(plain_module, reviewed, tmp_path / "a.pdf")
    assert "Müller".encode() not in pdf
    assert "Müller".encode("utf-16-be") not in pdf
    reviewed.ui.patientNameBox.click()
    assert "MR volume: Müller Hans &lt;2&gt;" in save(plain_module, reviewed, tmp_path / "b.html")


def test_the_name_and_the_day_of_the_study_come_from_dicom(module, tmp_path):
    import SimpleITK as sitk

    module.choose_model()
    (volume,) = module.harness.load_dicom(
        write_series(sitk.ReadImage(str(module.scan)), tmp_path / "study", "T2 sag")
    )
    module.segment(volume)
    panel = module.panel("review")
    html = save(module, panel, tmp_path / "a.html")
    assert "Müller" not in html
    assert "by CPS4, not edited" in html
    assert "stage 2/model" in html
    panel.ui.patientNameBox.click()
    panel.ui.levelsUpButton.click()
    html = save(module, panel, tmp_path / "b.html")
    assert "Patient: Müller Hans, study of 2024-03-05" in html
    assert "edited since" in html


def test_the_overlay_has_the_colours_of_the_classes_where_they_are(plain_module, reviewed, tmp_path):
    plain, overlaid = pictures(save(plain_module, reviewed, tmp_path / "a.html"))
    assert plain.shape == overlaid.shape
    assert (plain[..., 0] == plain[..., 2]).all()  # grey
    coloured = np.abs(overlaid.astype(int) - plain).sum(2) > 30
    middles = {}
    for name in ("L5", "L4", "L3", "L1"):
        colour = np.array(next(s.color for s in BY_LABEL.values() if s.short == name))
        edge = np.abs(overlaid.astype(int) - colour).sum(2) < 6  # the edge is in full colour
        assert edge.sum() > 100, name
        assert coloured[edge].mean() > 0.9
        middles[name] = np.argwhere(edge).mean(0)[0]
    assert middles["L1"] < middles["L3"] < middles["L4"] < middles["L5"]  # from above
    assert ((overlaid == 255).all(2) & (plain[..., 0] < 250)).sum() > 200  # names, in white


def test_pdf_is_one_page_and_whole(plain_module, reviewed, tmp_path):
    pdf = save(plain_module, reviewed, tmp_path / "Befund é.pdf")
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == 1
    assert [float(side) for side in re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups()] == [
        pytest.approx(595, abs=1),
        pytest.approx(842, abs=1),
    ]


def test_the_page_is_black_on_white_in_the_dark_style(plain_module, reviewed, tmp_path):
    plain_module.harness.use_dark_style()
    html = save(plain_module, reviewed, tmp_path / "a.html")
    assert "background-color: #ffffff" in html
    document = QtGui.QTextDocument()
    document.setHtml(re.sub(r"<img[^>]*>", "", html))
    document.setTextWidth(700)
    page = QtGui.QImage(700, int(document.size.height()), QtGui.QImage.Format_RGB32)
    page.fill(QtGui.QColor("white"))
    painter = QtGui.QPainter(page)
    document.drawContents(painter)
    painter.end()
    grey = page.convertToFormat(QtGui.QImage.Format_Grayscale8)
    rows = np.frombuffer(grey.constBits(), np.uint8).reshape(grey.height(), grey.bytesPerLine())[:, :700]
    assert (rows > 250).mean() > 0.7
    assert (rows < 60).mean() > 0.01


def test_a_file_is_not_written_over_unasked(plain_module, reviewed, tmp_path):
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(b"mine")
    plain_module.harness.dialogs.answer(
        str(tmp_path / "mine"), "No"
    )  # the dialog asks of mine, not of mine.pdf
    reviewed.ui.exportReportButton.click()
    assert mine.read_bytes() == b"mine"
    assert "mine.pdf exists" in plain_module.harness.dialogs.messages[-1].text
    plain_module.harness.dialogs.answer(str(tmp_path / "mine"), "Yes")
    reviewed.ui.exportReportButton.click()
    assert mine.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("said", [True, False], ids=["refused", "not whole"])
def test_what_cannot_be_written_is_told_and_the_old_file_stays(
    plain_module, reviewed, tmp_path, monkeypatch, said
):
    from CPS4SegmentationLib import exports, printing

    def fail(html, path):
        if said:
            raise OSError(errno.ENOSPC, "full")
        path.write_bytes(b"%PDF-1.4 and no end")
        printing.check_pdf_is_whole(path)

    monkeypatch.setattr(exports, "print_page", fail)
    mine = tmp_path / "mine.pdf"
    mine.write_bytes(b"mine")
    plain_module.harness.dialogs.answer(str(mine))
    reviewed.ui.exportReportButton.click()
    assert "could not be written" in plain_module.harness.dialogs.errors[-1].text
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.pdf"]
    assert mine.read_bytes() == b"mine"


def test_without_the_volume_there_is_no_report(plain_module, reviewed):
    volume = plain_module.slicer.util.getNode(NAME)
    plain_module.harness.dialogs.answer("/nowhere/a.html")
    plain_module.slicer.mrmlScene.RemoveNode(volume)
    reviewed.ui.exportReportButton.click()
    assert "not in the scene" in plain_module.harness.dialogs.errors[-1].text


def turn(degrees):
    """Turns about the patient's right, back and head, one after the other."""
    x, y, z = np.radians(degrees)
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_x) @ about_y @ about_z


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, 8, -12)])
def test_head_is_up_and_front_on_the_left_in_real_proportions(mid_sagittal, degrees, monkeypatch):
    """However the volume is stored, and of voxels of any shape."""
    monkeypatch.setattr(mid_sagittal, "LONGER_SIDE", 250)  # for speed
    spacing, size = np.array([4.4, 0.7, 1.3]), np.array([9, 100, 80])  # right, front, head
    rotation = turn(degrees)
    sideways = rotation[:, 0]
    balls = {"head": np.array([0.0, 0.0, 40.0]), "front": np.array([0.0, 25.0, 0.0]), "middle": np.zeros(3)}
    balls = {name: ball - (ball @ sideways) * sideways for name, ball in balls.items()}  # in the middle slice
    for order, signs in itertools.product(
        itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)
    ):
        to_ras = np.eye(4)
        to_ras[:3, :3] = (rotation * spacing * signs)[:, order]
        shape = size[list(order)]
        to_ras[:3, 3] = -to_ras[:3, :3] @ ((shape - 1) / 2)
        grid = Grid(tuple(shape.tolist()), to_ras)
        points = grid.points(np.moveaxis(np.indices(shape), 0, -1))
        masks = {name: (np.linalg.norm(points - ball, axis=-1) < 6).T for name, ball in balls.items()}
        number = mid_sagittal.middle_slice(grid, masks.values())
        assert number == 4
        view, seen = mid_sagittal.SagittalView.of(grid, number), {}
        for name, mask in masks.items():
            drawn = view.mask(mask)
            assert (view.picture(mask.astype(float)) > 127)[drawn].mean() > 0.9
            seen[name] = np.argwhere(drawn).mean(0)
            assert seen[name] == pytest.approx(view.pixel_of(balls[name]), abs=1.5 / view.step_mm)
        up, left = seen["middle"] - seen["head"], seen["middle"] - seen["front"]
        assert up[0] > 10 * abs(up[1])
        assert left[1] > 10 * abs(left[0]) or degrees != (
            0,
            0,
            0,
        )  # else the front is not at a right angle to the head
        assert left[1] > 2 * abs(left[0])
        lengths = [np.linalg.norm(way) * view.step_mm for way in (up, left)]
        assert lengths == pytest.approx([np.linalg.norm(balls[name]) for name in ("head", "front")], abs=1.0)


def test_the_slice_is_where_most_is_seen(mid_sagittal):
    middle_slice = mid_sagittal.middle_slice
    grid = Grid((11, 40, 40), np.diag([4.0, 1.0, 1.0, 1.0]))
    masks = np.zeros((3, 40, 40, 11), bool)
    masks[0, :, :, 1:9] = masks[1, :, :, 2:9] = True
    assert middle_slice(grid, masks) == 5
    masks[2, :, :, 7:11] = True  # a spine that bends: only two slices show all of it
    assert middle_slice(grid, masks) == 7
    assert middle_slice(grid, masks[:0]) == 5
