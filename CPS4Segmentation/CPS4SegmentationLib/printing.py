"""A page of HTML as PDF, by Qt alone: Slicer's Python has no printer."""

from __future__ import annotations

from pathlib import Path

import qt

PAGE, MARGIN = (210.0, 297.0), 12.0
"""A4 and its margins, mm."""
PIXELS_A_MM = 96 / 25.4
"""Of the HTML: a pixel is 1/96 inch there, on a screen of any size."""
DOTS_AN_INCH = 300
DOTS_A_MM = DOTS_AN_INCH / 25.4
END = b"%%EOF"


def print_page(html: str, path: Path) -> None:
    """Write HTML as one page; what would be longer is made smaller.

    Raises:
        EOFError: if the file is not whole.
    """
    width, height = (PIXELS_A_MM * (length - 2 * MARGIN) for length in PAGE)
    document = qt.QTextDocument()
    document.setDocumentMargin(0)
    document.setHtml(html)
    document.setTextWidth(width)
    smaller = max(1.0, document.size.width() / width, document.size.height() / height)
    writer = qt.QPdfWriter(str(path))
    writer.setResolution(DOTS_AN_INCH)
    writer.setPageSize(qt.QPageSize(qt.QPageSize.A4))
    writer.setPageMargins(qt.QMarginsF(0, 0, 0, 0))
    writer.setTitle(document.metaInformation(qt.QTextDocument.DocumentTitle))
    writer.setCreator("CPS4")
    painter = qt.QPainter(writer)
    painter.translate(MARGIN * DOTS_A_MM, MARGIN * DOTS_A_MM)
    scale = DOTS_A_MM / PIXELS_A_MM / smaller
    painter.scale(scale, scale)
    painter.translate((smaller - 1) * width / 2, 0)
    document.drawContents(painter)
    painter.end()  # the file is whole only then
    check_pdf_is_whole(path)


def check_pdf_is_whole(path: Path) -> None:
    """Check that a PDF file has its end, which a full disk leaves out.

    Raises:
        EOFError: if not.
    """
    if not path.read_bytes().rstrip().endswith(END):
        raise EOFError(path)
