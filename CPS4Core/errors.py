"""Errors that a user can act on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class CPS4Error(Exception):
    """One clear error: what is wrong, with which file, and what to do about it.

    Args:
        problem: what is wrong, a short sentence.
        remedy: what the user can do next, a short sentence.
        path: the file or folder concerned, if there is one.
    """

    def __init__(self, problem: str, remedy: str, path: str | Path | None = None):
        self.problem = problem
        self.remedy = remedy
        self.path = None if path is None else Path(path)
        super().__init__(problem, remedy, path)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        return f"{where}{self.problem} {self.remedy}"


class Cancelled(Exception):
    """The user asked a job to stop; its work so far is saved."""


def listed(names: Iterable[object], most: int = 6) -> str:
    """Return names as a message lists them: the first few, and whether there are more."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")
