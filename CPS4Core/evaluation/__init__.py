"""Dice, IoU, surface distances, level accuracy and their tables."""
