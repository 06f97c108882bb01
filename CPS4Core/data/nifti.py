"""Whether a NIfTI file is whole: ITK reads a truncated one without complaint and fills it with zeros."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

HEADER_BYTES = 540
CHUNK_BYTES = 2**20


def check_nifti_is_whole(path: Path) -> None:
    """Check that a ``.nii`` or ``.nii.gz`` file holds all the voxels that its header promises.

    Files of other formats pass; so does a header that cannot be read, which ITK refuses.

    Raises:
        EOFError: if bytes are missing.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return
    with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
        try:
            header = file.read(HEADER_BYTES)
            promised = _promised_bytes(header)
            if promised is not None and len(header) + _remaining_bytes(file) < promised:
                raise EOFError(f"{promised} bytes promised")
        except (gzip.BadGzipFile, zlib.error) as error:
            raise EOFError("damaged compression") from error


def _promised_bytes(header: bytes) -> int | None:
    """Return the size of the file that a NIfTI-1 or NIfTI-2 header describes."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(order + "i", header)[0] == 348:
            dimensions = struct.unpack_from(order + "8h", header, 40)
            bits, offset = (
                struct.unpack_from(order + "h", header, 72)[0],
                struct.unpack_from(order + "f", header, 108)[0],
            )
            break
        if len(header) >= 540 and struct.unpack_from(order + "i", header)[0] == 540:
            bits, dimensions = (
                struct.unpack_from(order + "h", header, 14)[0],
                struct.unpack_from(order + "8q", header, 16),
            )
            offset = struct.unpack_from(order + "q", header, 168)[0]
            break
    else:
        return None
    if not 1 <= dimensions[0] <= 7:
        return None
    return int(offset) + math.prod(max(length, 1) for length in dimensions[1 : dimensions[0] + 1]) * bits // 8


def _remaining_bytes(file: BufferedIOBase) -> int:
    """Read to the end and return how many bytes there were; a truncated gzip stream raises ``EOFError``."""
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk)
    return count
