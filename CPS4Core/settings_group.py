"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel


class Group(BaseModel, extra="forbid", frozen=True):
    """Settings are fixed once read, and a misspelt name is an error."""
