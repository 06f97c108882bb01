"""Dice, IoU, surface distances, level accuracy, tables and figures."""
