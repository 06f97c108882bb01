"""Named tensors in safetensors files. No other format is ever opened: a pickle can run code."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from CPS4Core.errors import CPS4Error
from CPS4Core.files import not_whole, written_aside


def save_weights(path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write named tensors to a safetensors file, aside and renamed.

    Raises:
        CPS4Error: if the disk is full or the folder cannot be written.
    """
    # A tensor may be a view or share memory (tied weights), which the format does not allow.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with written_aside(path) as temporary:
        try:
            save_file(copies, temporary, metadata=header or {})
        except SafetensorError as error:
            if "os error" in str(error).lower():
                raise not_whole(path) from error
            raise


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its header.

    Raises:
        CPS4Error: if the file is missing, truncated, or no safetensors file.
    """
    if not path.is_file():
        raise CPS4Error("The file is missing.", "Copy the whole folder again.", path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CPS4Error(
            "The file is truncated or is no safetensors file.",
            "Copy it again. CPS4 opens safetensors only: other formats can run code.",
            path,
        ) from error
