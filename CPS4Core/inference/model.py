"""A trained model in memory, as programs use it: ``CPS4Core.load_model`` returns one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import SimpleITK as sitk
import torch

from CPS4Core.data.geometry import check_sagittal
from CPS4Core.data.volumes import check_image, read_scan
from CPS4Core.events import Event, Reporter, Warned
from CPS4Core.inference.agreement import Checker, asks_prompts
from CPS4Core.inference.attention import AttentionMapper, PromptMap
from CPS4Core.inference.segmenter import SegmentedVolume, Segmenter
from CPS4Core.model_folder import ModelFolder
from CPS4Core.naming import Levels


def warn(event: Event) -> None:
    """Tell a Python program what the user should know."""
    if isinstance(event, Warned):
        warnings.warn(event.message, stacklevel=2)


class Model:
    """A trained model. Each part is read from the disk when it is first needed, and stays in memory.

    Args:
        folder: the model on the disk.
        device: where to compute.
        report: receives warnings.
    """

    def __init__(self, folder: ModelFolder, device: torch.device, report: Reporter = warn):
        self.folder = folder
        self.device = device
        self._report = report

    @cached_property
    def segmenter(self) -> Segmenter:
        """The segmentation network."""
        return Segmenter(self.folder, self.device, self._report)

    @cached_property
    def mapper(self) -> AttentionMapper:
        """The class prompt model."""
        return AttentionMapper(self.folder, self.device)

    @cached_property
    def checker(self) -> Checker:
        """What tells how sure the model is of a segmentation."""
        mapper = self.mapper if asks_prompts(self.folder) else None
        return Checker.of(self.folder, self.segmenter, mapper)

    def segment(self, image: sitk.Image | str | Path, *, levels: Levels = "counted") -> SegmentedVolume:
        """Segment a volume.

        Args:
            image: a sagittal spine MR, 3D, in any orientation; or its file, or the folder of its DICOM series.
            levels: name structures by counting along the spine, or as the network sees each pixel.

        Returns:
            ``labels``, uint8, on the grid of the volume, 0 to 19 (``CPS4Core.class_table``), and the ``confidence``
            in each structure, 0 to 1.

        Raises:
            CPS4Error: if the volume or the model cannot be used, or the memory does not suffice.
        """
        return self.segmenter.segment(self._sagittal(image), levels=levels)

    def attend(self, image: sitk.Image | str | Path, prompts: str | Sequence[str]) -> list[PromptMap]:
        """Return what prompts attend to in a volume (eq. 3).

        Args:
            image: as for ``segment``.
            prompts: class names, such as ``L4``, or any text.

        Returns:
            For each prompt the ``attention``, float32 in (0, 1), and its ``binary`` map, uint8, both on the grid of
            the volume.

        Raises:
            CPS4Error: if the volume cannot be used, or the model was trained without prompts.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        volume = self.mapper.encode(self._sagittal(image))
        return [self.mapper.attend(volume, text) for text in texts]

    def _sagittal(self, image: sitk.Image | str | Path) -> sitk.Image:
        if not isinstance(image, sitk.Image):
            return read_scan(image, self._report)
        image = check_image(image)
        check_sagittal(image, report=self._report)
        return image
