"""CPS4Core: class prompt driven semi-supervised spine segmentation, without 3D Slicer."""

__version__ = "0.1.0"
