"""The engine beside what a user would pick instead: nnU-Net v2, MONAI, and a training step written plainly.

    make peers                                        installs nnU-Net and MONAI into build/peers and runs this
    python Testing/Benchmarks/peers.py --device cpu   writes build/peers.md; RESULTS.md has what was found

Each row runs in a process of its own, by the peer's public calls and with its own defaults but for what the row says.
The study is a phantom of 15 x 512 x 512; times do not depend on weights, which are random. The network of the preset
`paper` works on the centre half of the rows, 256 x 512, as in the paper.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from timing import clock, slices_of, study, time_stage

from CPS4Core.card import NETWORK
from CPS4Core.class_table import NUM_CLASSES
from CPS4Core.config import load_settings
from CPS4Core.inference.segmenter import Segmenter
from CPS4Core.model_folder import ModelFolder, new_card
from CPS4Core.segmentation.unet import ResidualUNet
from CPS4Core.synthesis.phantom.data_set import write_phantom_data_set
from CPS4Core.synthesis.phantom.volume import PhantomOptions

OUTPUT = Path(__file__).parents[2] / "build/peers.md"
FIRST_STEPS, STEPS, BATCH = 5, 4, 2
CANVAS = (256, 512)


class Bench:
    """What the rows work on.

    Args:
        device: where to compute.
        slices: of the study.
        pixels: of its sides.
        repeats: of each action; the fastest counts, which others disturb least.
    """

    def __init__(self, device: torch.device, slices: int, pixels: int, repeats: int):
        self.device = device
        self.repeats = repeats
        self.settings = load_settings("paper")
        self.spacing = [4.4, 307.2 / pixels, 307.2 / pixels]
        self.image = study(slices, pixels)
        self.voxels = sitk.GetArrayFromImage(self.image).astype(np.float32)[None]

    def network(self) -> ResidualUNet:
        """Return our network with random weights."""
        torch.manual_seed(0)
        return ResidualUNet(self.settings.train.widths).eval().to(self.device)

    def segmenter(self) -> Segmenter:
        """Return the engine with that network."""
        with tempfile.TemporaryDirectory() as folder:
            card = new_card(self.settings, stage=2)
            ModelFolder.write(Path(folder), 0, {NETWORK: self.network().cpu().state_dict()}, card)
            return Segmenter(ModelFolder.open(folder), self.device)

    def prepared(self) -> torch.Tensor:
        """Return the slices that the network sees, (n, 1, AP, SI)."""
        return slices_of(self.segmenter(), self.image)

    def seconds(self, action: Callable[[], object]) -> float:
        """Return the least seconds that ``action`` takes."""
        return min(clock(action, self.device) for _ in range(self.repeats))


def ours(bench: Bench) -> float:
    """CPS4, `paper`: volume to labels on its grid"""
    segmenter = bench.segmenter()
    return bench.seconds(lambda: segmenter.segment(bench.image))


def ours_logits(bench: Bench) -> float:
    """CPS4, `paper`: logits of the prepared slices"""
    segmenter, slices = bench.segmenter(), bench.prepared()
    return bench.seconds(
        lambda: list(segmenter.forward(slices, lambda logits, _: logits.float().cpu(), None))
    )


def ours_logits_float32(bench: Bench) -> float:
    """CPS4, `paper`, in float32 as the peers: logits of the prepared slices"""
    with patch("CPS4Core.inference.segmenter.choose_precision", return_value="no"):
        return ours_logits(bench)


def monai_with_ours(bench: Bench) -> float:
    """MONAI's sliding_window_inferer, our network: logits of the prepared slices"""
    from monai.inferers import SlidingWindowInferer

    infer = SlidingWindowInferer(CANVAS, sw_batch_size=4, overlap=0.5, mode="gaussian")
    network, slices = bench.network(), bench.prepared()

    @torch.inference_mode()
    def action() -> None:
        for few in slices.split(4):
            infer(few.to(bench.device), network).cpu()

    return bench.seconds(action)


def nnunet_with_ours(bench: Bench, mirror: bool = False) -> float:
    """nnU-Net's predictor, our network, no mirroring: logits of the prepared slices"""
    predictor = _nnunet(bench, bench.network(), CANVAS, mirror)
    volume = bench.prepared().squeeze(1)[None]
    return bench.seconds(lambda: predictor.predict_logits_from_preprocessed_data(volume))


def nnunet_with_ours_mirrored(bench: Bench) -> float:
    """nnU-Net's predictor, our network, its default mirroring: logits of the prepared slices"""
    return nnunet_with_ours(bench, mirror=True)


def nnunet_own(bench: Bench, mirror: bool = False) -> float:
    """nnU-Net, its own 2D network, no mirroring: volume to labels on its grid"""
    predictor = _nnunet(bench, *_own_network(bench, bench.voxels.shape[2:]), mirror)
    properties = {"spacing": bench.spacing}
    return bench.seconds(lambda: predictor.predict_single_npy_array(bench.voxels, dict(properties)))


def nnunet_own_mirrored(bench: Bench) -> float:
    """nnU-Net as it comes: its own 2D network, mirroring: volume to labels on its grid"""
    return nnunet_own(bench, mirror=True)


def our_step(bench: Bench) -> float:
    """CPS4: a stage-2 step of the mean teacher, reading and augmenting included"""
    changes = ["train.method=mean_teacher_hard", f"train.batch={BATCH}"]
    settings = load_settings("paper", changes)
    with tempfile.TemporaryDirectory() as folder:
        data = write_phantom_data_set(
            Path(folder) / "data", 4, labelled=2, options=PhantomOptions(slices=(5, 5))
        )
        return time_stage(2, data, Path(folder) / "run", settings, bench.device, FIRST_STEPS + STEPS).step


def plain_step(bench: Bench) -> float:
    """The same step as public loops write it, on a batch that lies there already"""
    from torch.nn.functional import cross_entropy

    student, teacher = bench.network().train(), bench.network()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4, weight_decay=1e-4)
    labelled, unlabelled = torch.randn(2, BATCH, 1, *CANVAS, device=bench.device)
    labels = torch.randint(NUM_CLASSES, (BATCH, *CANVAS), device=bench.device)

    def step() -> None:
        outputs = student(torch.cat((labelled, unlabelled), dim=0))
        with torch.no_grad():
            pseudo_labels = torch.softmax(teacher(unlabelled), dim=1).argmax(1)
        supervised = cross_entropy(outputs[:BATCH], labels)
        consistency = cross_entropy(outputs[BATCH:], pseudo_labels)
        loss = supervised + consistency
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for mean, new in zip(teacher.parameters(), student.parameters(), strict=True):
            mean.data.mul_(0.99).add_(new.data, alpha=0.01)
        float(loss), float(supervised), float(consistency)  # what such loops log at each step

    step()
    return bench.seconds(step)


ROWS = (
    ours,
    ours_logits,
    ours_logits_float32,
    nnunet_with_ours,
    nnunet_with_ours_mirrored,
    monai_with_ours,
    nnunet_own,
    nnunet_own_mirrored,
    our_step,
    plain_step,
)
AGAINST = {
    ours_logits_float32: ours_logits,
    nnunet_with_ours: ours_logits,
    nnunet_with_ours_mirrored: ours_logits,
    monai_with_ours: ours_logits,
    nnunet_own: ours,
    nnunet_own_mirrored: ours,
    plain_step: our_step,
}
"""Which row of ours each is compared with."""


def _nnunet(bench: Bench, network: torch.nn.Module, tile: tuple[int, ...], mirror: bool) -> Any:
    """Return nnU-Net's predictor for a network, by the plans that nnU-Net would write for such a study."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    of_labels = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "peers",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 12,
        "patch_size": list(tile),
        "median_image_size_in_voxels": list(tile),
        "spacing": bench.spacing[1:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg_kwargs": resample | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": of_labels,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
        "batch_dice": True,
    }
    plans = PlansManager(
        {
            "dataset_name": "Dataset001_peers",
            "plans_name": "nnUNetPlans",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"2d": configuration},
        }
    )
    labels = {"background": 0, **{f"class {k}": k for k in range(1, NUM_CLASSES)}}
    described = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    predictor = nnUNetPredictor(use_mirroring=mirror, device=bench.device, allow_tqdm=False)
    weights = [network.state_dict()]
    manager = plans.get_configuration("2d")
    predictor.manual_initialization(network, plans, manager, weights, described, "nnUNetTrainer", (0, 1))
    return predictor


def _own_network(bench: Bench, size: tuple[int, ...]) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """Return the 2D network that nnU-Net's planner takes for slices of a size, as deep and wide, and its patch."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, tile, _ = get_pool_and_conv_props(bench.spacing[1:], size, 4, 999999)
    levels = len(strides)
    network = PlainConvUNet(
        1,
        levels,
        [min(512, 32 * 2**level) for level in range(levels)],
        torch.nn.Conv2d,
        kernels,
        strides,
        [2] * levels,
        NUM_CLASSES,
        [2] * (levels - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network.eval().to(bench.device), tuple(map(int, tile))


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held: on the GPU, else in memory (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Measure each row in a process of its own and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slices", type=int, default=15)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--rows", nargs="+", help="measure these alone, and keep the others of the last call")
    parser.add_argument("--row", choices=[row.__name__ for row in ROWS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.row:
        row = next(row for row in ROWS if row.__name__ == arguments.row)
        repeats = 1 if row is nnunet_own_mirrored and device.type == "cpu" else arguments.repeats
        bench = Bench(device, arguments.slices, arguments.pixels, repeats)
        seconds = row(bench)
        print(json.dumps({"seconds": seconds, "peak": peak_memory(device)}))
        return
    kept = arguments.output.with_suffix(".json")
    found = json.loads(kept.read_text(encoding="utf-8")) if arguments.rows and kept.exists() else {}
    for row in ROWS:
        if arguments.rows and row.__name__ not in arguments.rows:
            continue
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--row", row.__name__],
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {f"nnUNet_{name}": "unused" for name in ("raw", "preprocessed", "results")},
        )
        told = done.stdout.splitlines()[-1:] if done.returncode == 0 else []
        found[row.__name__] = json.loads(told[0]) if told else {"error": done.stderr.splitlines()[-1]}
        print(row.__name__, found[row.__name__], flush=True)
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    arguments.output.write_text(table(found, device), encoding="utf-8")
    print(table(found, device))


def table(found: dict[str, dict[str, Any]], device: torch.device) -> str:
    """Return the table of all rows, by what each found."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores, no GPU"
    lines = [
        "# Side by side",
        "",
        f"`OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')} python Testing/Benchmarks/peers.py "
        f"{' '.join(sys.argv[1:])}` on {platform.machine()}, {name}, torch {torch.__version__}.",
        "",
        "| what | seconds | over ours | peak memory |",
        "|---|---|---|---|",
    ]
    for row in (row for row in ROWS if row.__name__ in found):
        what, values = (row.__doc__ or "").splitlines()[0], found[row.__name__]
        if "error" in values:
            lines.append(f"| {what} | {values['error']} | | |")
            continue
        own = AGAINST.get(row)
        base = found.get(own.__name__, {}).get("seconds") if own else None
        over = f"{values['seconds'] / base:.1f}" if base else ""
        lines.append(f"| {what} | {values['seconds']:.2f} | {over} | {values['peak'] / 2**20:.0f} MiB |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
