"""Spines that nobody has: anatomy, tissue maps and random appearance, to learn from without a label drawn by hand.

The phantom is one look of them: a T2-weighted sagittal volume.
"""
