"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Settings are fixed once read, and a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
