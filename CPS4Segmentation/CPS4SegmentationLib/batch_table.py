"""The table of a batch: what became of each scan, with reason and next step where it failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from CPS4SegmentationLib.panel import fit_to_contents

SCAN, OUTCOME = range(2)


class BatchTable:
    """Shows a row a scan, those that failed at the top; both are hidden while there is none.

    Args:
        table: with the columns scan and outcome, of equal width.
        button: opens the result of the chosen row, as a double click does.
    """

    def __init__(self, table: qt.QTableWidget, button: qt.QPushButton):
        self._table, self._button = table, button
        self._open: list[Callable[[], None] | None] = []
        fit_to_contents(table, stretched=OUTCOME)
        table.horizontalHeader().setSectionResizeMode(SCAN, qt.QHeaderView.Stretch)
        table.connect("cellDoubleClicked(int,int)", self._on_open)
        table.connect("currentCellChanged(int,int,int,int)", self._on_row)
        button.connect("clicked()", self._on_open)
        self.clear()

    @property
    def failed(self) -> int:
        """How many scans failed."""
        return sum(open_result is None for open_result in self._open)

    @property
    def done(self) -> int:
        """How many scans have a result."""
        return len(self._open) - self.failed

    def clear(self) -> None:
        """Forget all rows."""
        self._open.clear()
        self._table.setRowCount(0)
        self._on_row()

    def add_done(self, scan: str, outcome: str, open_result: Callable[[], None]) -> None:
        """Add a scan that has a result, which ``open_result`` shows."""
        self._add(len(self._open), (scan, outcome), open_result)

    def add_failed(self, scan: str, problem: str, remedy: str) -> None:
        """Add a scan that failed, below those that failed before."""
        self._add(self.failed, (scan, f"{problem}\n{remedy}"), None)

    def _add(self, row: int, texts: tuple[str, str], open_result: Callable[[], None] | None) -> None:
        self._open.insert(row, open_result)
        self._table.insertRow(row)
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(text)
            self._table.setItem(row, column, item)
        self._on_row()

    def _chosen(self) -> Callable[[], None] | None:
        row = self._table.currentRow()
        return self._open[row] if 0 <= row < len(self._open) else None

    def _on_row(self, *_cells: Any) -> None:
        self._table.visible = self._button.visible = bool(self._open)
        self._button.enabled = self._chosen() is not None

    def _on_open(self, *_cell: Any) -> None:
        open_result = self._chosen()
        if open_result is not None:
            open_result()
