# Slicer generates and packs here; there is nothing to check without it.
