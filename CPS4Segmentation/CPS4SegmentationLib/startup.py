"""What happens once when Slicer has started."""

import logging

import slicer

from CPS4SegmentationLib import ENGINE_FOLDER

TERMINOLOGY = ENGINE_FOLDER / "Resources" / "CPS4.term.json"


def load_terminology() -> None:
    """Make the class table known to Slicer's terminology selector, so that segments can be chosen by name."""
    if not hasattr(slicer.modules, "terminologies") or not TERMINOLOGY.is_file():
        return
    if not slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(TERMINOLOGY)):
        logging.getLogger(__name__).warning("the CPS4 terminology could not be loaded")
