"""The pictures of a report as PNG: the mid-sagittal slice, and the same with the structures in their colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import qt
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

FILLED, EDGE_PIXELS = 0.4, 2
"""How much of its colour covers the inside of a structure, and how wide its edge in full colour is."""
LETTER_PIXELS = 21
HALO = [(right, down) for right in (-2, 0, 2) for down in (-2, 0, 2)]
"""Pixels by which the dark edge of a letter surrounds it."""


@dataclass(frozen=True)
class Drawn:
    """A structure of the picture."""

    name: str
    colour: tuple[float, float, float]
    """Red, green and blue, 0 to 1."""
    mask: np.ndarray
    """Its pixels, bool, rows and columns."""
    place: tuple[float, float]
    """Row and column of the middle of its name."""


def plain_picture(grey: np.ndarray) -> bytes:
    """Return a picture, uint8, rows and columns, as PNG."""
    return _png_of(np.repeat(grey[..., None], 3, axis=2))


def overlaid_picture(grey: np.ndarray, structures: Sequence[Drawn]) -> bytes:
    """Return a picture, uint8, rows and columns, with the structures and their names over it, as PNG."""
    colours = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    which = np.zeros(grey.shape, int)
    for number, structure in enumerate(structures, start=1):
        which[structure.mask] = number
    full = 255 * np.array([(0, 0, 0), *(structure.colour for structure in structures)], np.float32)[which]
    inside = which > 0
    colours[inside] += FILLED * (full - colours)[inside]
    edge = inside & _differs_near_by(which)
    colours[edge] = full[edge]
    return _with_names(_png_of(np.rint(colours).astype(np.uint8)), structures)


def _differs_near_by(which: np.ndarray) -> np.ndarray:
    """Return which pixels have another value within a few pixels above, below or beside them."""
    wide = np.pad(which, EDGE_PIXELS, mode="edge")
    differs = np.zeros(which.shape, bool)
    for shift in (-EDGE_PIXELS, EDGE_PIXELS):
        for axis in (0, 1):
            moved = np.roll(wide, shift, axis)[EDGE_PIXELS:-EDGE_PIXELS, EDGE_PIXELS:-EDGE_PIXELS]
            differs |= moved != which
    return differs


def _with_names(png: bytes, structures: Sequence[Drawn]) -> bytes:
    image = qt.QImage()
    image.loadFromData(png)
    painter = qt.QPainter(image)
    font = qt.QFont()
    font.setPixelSize(LETTER_PIXELS)
    font.setBold(True)
    painter.setFont(font)
    for structure in structures:
        row, column = (round(part) for part in structure.place)
        for colour, shifts in ((qt.QColor(0, 0, 0), HALO), (qt.QColor(255, 255, 255), [(0, 0)])):
            painter.setPen(colour)
            for right, down in shifts:
                painter.drawText(
                    column - 100 + right, row - 20 + down, 200, 40, qt.Qt.AlignCenter, structure.name
                )
    painter.end()  # what Python lets go of later must not hold the image
    data = qt.QByteArray()
    buffer = qt.QBuffer(data)
    buffer.open(qt.QIODevice.WriteOnly)
    image.save(buffer, "PNG")
    buffer.close()
    return bytes(data.data())


def _png_of(colours: np.ndarray) -> bytes:
    """Return a picture, uint8, rows, columns and red, green, blue, as PNG."""
    rows, columns, channels = colours.shape
    image = vtk.vtkImageData()
    image.SetDimensions(columns, rows, 1)
    upright = np.ascontiguousarray(colours[::-1])  # VTK counts rows from below
    image.GetPointData().SetScalars(numpy_to_vtk(upright.reshape(-1, channels), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetInputData(image)
    writer.Write()
    return vtk_to_numpy(writer.GetResult()).tobytes()
