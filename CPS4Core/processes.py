"""Several processes of one job, on one machine or many, as a launcher starts them.

``accelerate launch`` and ``torchrun`` tell each process who it is by ``RANK``, ``WORLD_SIZE`` and more; SLURM's
``srun`` does so by variables of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping, Sequence
from typing import TypeVar

T = TypeVar("T")

FIRST_PORT, PORTS = 20000, 20000
"""Where the processes of a SLURM job meet: a port that its number chooses, so that jobs on one node do not collide."""


def join_slurm_step(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let a process that ``srun`` started, one of several, find the others as under ``torchrun``.

    What a launcher or the user has set stays. Without ``srun`` nothing happens, also within a SLURM job.
    """
    count = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if count == "1" or "RANK" in environment or "SLURM_PROCID" not in environment:
        return
    gpus = environment.get("CUDA_VISIBLE_DEVICES", "")
    bound = gpus != "" and "," not in gpus  # each task has one GPU of its own, and sees it as the first
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    found = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": count,
        "LOCAL_RANK": "0" if bound else environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": first_host(environment.get("SLURM_STEP_NODELIST", "localhost")),
        "MASTER_PORT": str(FIRST_PORT + (job + step) % PORTS),
    }
    for name, value in found.items():
        environment.setdefault(name, value)


def first_host(nodes: str) -> str:
    """Return the first of the nodes that SLURM lists, such as ``gpu007`` of ``gpu[007-009,012],login1``."""
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    return "" if found is None else "".join(found.groups(""))


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Return the items that fall to this process; all of them if it is alone."""
    rank, count = (int(os.environ.get(name, alone)) for name, alone in (("RANK", 0), ("WORLD_SIZE", 1)))
    return items[rank::count]
