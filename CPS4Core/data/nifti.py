"""What a NIfTI header says, and whether the file is whole: ITK fills a truncated one with zeros without complaint.

The standard library alone, so that Slicer's process can check its own exports.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

SUFFIXES = (".nii", ".nii.gz")
HEADER_BYTES = 540
CHUNK_BYTES = 2**20
MAGIC = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")


@dataclass(frozen=True)
class Layout:
    """Where the fields of a version of the header lie, in bytes, and how they are stored."""

    header_bytes: int
    magic: int
    fields: dict[str, tuple[int, str]]


LAYOUTS = (
    Layout(
        348,
        344,
        {
            "dim": (40, "8h"),
            "bitpix": (72, "h"),
            "pixdim": (76, "8f"),
            "vox_offset": (108, "f"),
            "xyzt_units": (123, "B"),
            "qform_code": (252, "h"),
            "sform_code": (254, "h"),
            "quatern": (256, "3f"),
            "qoffset": (268, "3f"),
            "srow": (280, "12f"),
        },
    ),
    Layout(
        540,
        4,
        {
            "dim": (16, "8q"),
            "bitpix": (14, "h"),
            "pixdim": (104, "8d"),
            "vox_offset": (168, "q"),
            "xyzt_units": (500, "i"),
            "qform_code": (344, "i"),
            "sform_code": (348, "i"),
            "quatern": (352, "3d"),
            "qoffset": (376, "3d"),
            "srow": (400, "12d"),
        },
    ),
)
"""NIfTI-1 and NIfTI-2."""


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says, by the names of the NIfTI standard; values as stored."""

    dim: tuple[int, ...]
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    xyzt_units: int
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]
    """The three rows, one after the other."""

    @classmethod
    def parse(cls, header: bytes) -> NiftiHeader | None:
        """Return the header that the first bytes of a file hold; None if they hold none.

        An Analyze header, which looks alike but never says how the image lies, counts as one with both codes 0.
        """
        for layout in LAYOUTS:
            for order in "<>":
                if len(header) < layout.header_bytes:
                    continue
                if struct.unpack_from(order + "i", header)[0] != layout.header_bytes:
                    continue
                said = {
                    name: struct.unpack_from(order + kind, header, offset)
                    for name, (offset, kind) in layout.fields.items()
                }
                if header[layout.magic : layout.magic + 4] not in MAGIC:
                    said |= {"qform_code": (0,), "sform_code": (0,)}
                single = {name: values[0] for name, values in said.items() if len(values) == 1}
                return cls(**{**said, **single})
        return None

    @property
    def size(self) -> tuple[int, ...] | None:
        """How many values lie along each axis; None if the header is damaged."""
        if not 1 <= self.dim[0] <= 7:
            return None
        return tuple(max(length, 1) for length in self.dim[1 : self.dim[0] + 1])


def is_nifti(path: Path) -> bool:
    """Return whether a file is NIfTI, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """Return the header of a NIfTI file; None if it has none.

    Raises:
        EOFError: if the file is cut short or its compression is damaged.
    """
    try:
        with _open(path) as file:
            return NiftiHeader.parse(file.read(HEADER_BYTES))
    except (gzip.BadGzipFile, zlib.error) as error:
        raise EOFError("damaged compression") from error


def check_nifti_is_whole(path: Path) -> None:
    """Check that a ``.nii`` or ``.nii.gz`` file holds all the voxels that its header promises.

    Files of other formats pass; so does a header that cannot be read, which ITK refuses.

    Raises:
        EOFError: if bytes are missing.
    """
    if not is_nifti(path):
        return
    with _open(path) as file:
        try:
            start = file.read(HEADER_BYTES)
            header = NiftiHeader.parse(start)
            promised = None if header is None else _promised_bytes(header)
            if promised is not None and len(start) + _remaining_bytes(file) < promised:
                raise EOFError(f"{promised} bytes promised")
        except (gzip.BadGzipFile, zlib.error) as error:
            raise EOFError("damaged compression") from error


def _open(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _promised_bytes(header: NiftiHeader) -> int | None:
    """Return the size of the file that a header describes; None if it describes none."""
    if header.size is None or not math.isfinite(header.vox_offset):
        return None
    return int(header.vox_offset) + math.prod(header.size) * header.bitpix // 8


def _remaining_bytes(file: BufferedIOBase) -> int:
    """Read to the end and return how many bytes there were; a truncated gzip stream raises ``EOFError``."""
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk)
    return count
