"""Runs a scripted Slicer module without Slicer: see README.md."""

from .harness import SlicerHarness

__all__ = ["SlicerHarness"]
