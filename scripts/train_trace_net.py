"""Train the trace network on real faces and forgeries that are made of them on the fly. Fakes in the dumps are never looked at.

Much as the bundled network began (4,500 steps, of milder channels; about 80 minutes on 2 cores that
have nothing else to do; resumes where it was stopped):
    python preprocessing_pipeline.py --experts lite --data_root DATA/dfdc --index DATA/index.csv      (... and each other set)
    python -m scripts.train_trace_net --features outputs/features/*/lite --out outputs/trace_net

Only the landmarks of the dumps are used, whatever their experts; the pictures must lie where the dump found them, or where
--data-root says. Of each dump the real faces of its train split serve, or all of them where it has no fakes. Training begins
with ImageNet's weights, which an installed package brings, or with those of `--start FILE`.

Losses: cross-entropy of the whole face, of each region (put there or not; regions that are hardly touched do not count), of
each cell (what share of it was put there), and of pairs of cells (of one origin or of two).
Writes `trace_net.safetensors`, `log.csv` and `state.pt` (to resume from).
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from tqdm import tqdm

from data.cutting import cut_again
from data.dump import Dump, landmarks_of, read_dump
from data.forging import ALIGNED_PX, AlignedCrops, PseudoFakes, on_crop, window
from data.images import ImageError
from evaluation.metrics import auc
from models.base import native_bf16
from models.lite0 import lite0_weights
from models.resynthesis import SIDE, reconstruct
from models.tensors import write_half
from models.trace_net import CROP, GRID, TraceNet, as_seen, load_trace_net

CELLS = 48  # cells of a face whose pairs are compared in one step
TOUCHED, UNTOUCHED = (
    0.06,
    0.01,
)  # shares of a region from which on, and up to which, it counts as forged or not


@dataclass
class Config:
    """What a run depends on; a stopped run resumes only under the same values."""

    steps: int = 5000
    pairs: int = 16  # a real face and its forgery, in one step
    lr: float = 8e-4
    weight_decay: float = 0.02
    ema: float = 0.998
    autoencoder_steps: int = 300
    seed: int = 0
    start: str = ""  # a trace network to train further; "": ImageNet's trunk
    limit: int = 0  # real faces of each dump (0: all)


def real_faces(
    dump: Dump, root: Path, limit: int, workers: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Canvases and landmarks on them of the real faces of a dump, and what could not be read. See `Canvases`."""
    rows = dump.rows
    keep = rows["label"] == 0
    if (rows["label"] == 1).any():
        keep &= rows["split"] == "train"
    index = np.flatnonzero(keep)[: limit or None]
    landmarks = landmarks_of(rows)[index]
    cut = cut_again([root / path for path in rows["path"][index]], landmarks, ALIGNED_PX, workers)
    aligned_crops, kept, failed = [], [], []
    for place, face in enumerate(
        tqdm(cut, total=len(index), desc=dump.meta["dataset"], unit=" faces")
    ):
        if isinstance(face, ImageError):
            failed.append(str(face))
            continue
        aligned_crops.append(face.permute(1, 2, 0).numpy())
        kept.append(place)
    images = (
        np.stack(aligned_crops)
        if aligned_crops
        else np.empty((0, ALIGNED_PX.px, ALIGNED_PX.px, 4), np.uint8)
    )
    return images, on_crop(landmarks[kept], ALIGNED_PX), failed


def collect_real_faces(
    dumps: list[Dump], roots: list[Path], config: Config, workers: int
) -> AlignedCrops:
    """Raises: ValueError where no real face can be read."""
    images, landmarks, sources = [], [], []
    for dump, root in zip(dumps, roots, strict=True):
        pictures, points, failed = real_faces(dump, root, config.limit, workers)
        for reason in failed[:3]:
            print(f"warning: left out: {reason}", file=sys.stderr)
        if len(failed) > 3:
            print(f"warning: and {len(failed) - 3} more of {dump.path}", file=sys.stderr)
        images.append(pictures)
        landmarks.append(points)
        sources += [dump.meta["dataset"]] * len(pictures)
    if len(sources) < 2:
        raise ValueError("fewer than two real training faces could be read; nothing can be swapped")
    return AlignedCrops(np.concatenate(images), np.concatenate(landmarks), np.array(sources))


def with_reconstructed(faces: AlignedCrops, config: Config, device: torch.device) -> AlignedCrops:
    x, y, side = window()
    inner = [
        cv2.resize(
            image[y : y + side, x : x + side, :3], (SIDE, SIDE), interpolation=cv2.INTER_AREA
        )
        for image in faces.images
    ]
    drawn = reconstruct(np.stack(inner), config.autoencoder_steps, config.seed, device)
    return AlignedCrops(faces.images, faces.landmarks, faces.sources, drawn)


class Pairs(torch.utils.data.IterableDataset):
    """Endless batches: faces (2P, 3, px, px) uint8, real and forged in turn, and shares (2P, 20, 20) of cells forged."""

    def __init__(self, pseudo_fakes: PseudoFakes, pairs: int, seed: int) -> None:
        self.pseudo_fakes, self.pairs, self.seed = pseudo_fakes, pairs, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            faces, shares = [], []
            while len(shares) < 2 * self.pairs:
                pair = self.pseudo_fakes.pair(
                    self.pseudo_fakes.faces.draw(rng), int(rng.integers(1 << 40)), CROP, GRID
                )
                if pair is not None:
                    faces += pair[:2]
                    shares += [np.zeros((GRID, GRID), np.float32), pair[2]]
            yield (
                torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous(),
                torch.from_numpy(np.stack(shares)),
            )


class Losses(nn.Module):
    """The four losses of a batch. Similarities of origins become odds by a learned scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(
        self, said: dict[str, torch.Tensor], shares: torch.Tensor, regions: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """said: of `TraceNet`. shares: (N, 20, 20), how much of a cell was forged. regions: (R, 20, 20), each sums to 1."""
        forged = (torch.arange(len(shares), device=shares.device) % 2).float()
        touched = torch.einsum("nhw,rhw->nr", shares, regions)
        clear = ((touched > TOUCHED) | (touched <= UNTOUCHED)).float()
        parts = F.binary_cross_entropy_with_logits(
            said["parts"], (touched > TOUCHED).float(), reduction="none"
        )
        cells = torch.randint(GRID * GRID, (CELLS,), device=shares.device)
        origin, share = said["cell_source"].flatten(2)[:, :, cells], shares.flatten(1)[:, cells]
        alike = self.scale * torch.einsum("ncp,ncq->npq", origin, origin) + self.bias
        same = 1 - (share[:, :, None] - share[:, None]).abs()
        return {
            "whole": F.binary_cross_entropy_with_logits(said["whole"], forged),
            "parts": (parts * clear).sum() / clear.sum(),
            "cells": F.binary_cross_entropy_with_logits(said["cells"], shares),
            "origins": F.binary_cross_entropy_with_logits(alike, same),
        }


WARM_UP, CONSTANT = 100, 0.55  # steps; share of all steps after which the rate begins to fall
SAVE_EVERY, LOG_EVERY = 500, 100  # steps
WEIGHTS = {"whole": 1.0, "parts": 0.5, "cells": 0.5, "origins": 0.5}


def total(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(WEIGHTS[name] * loss for name, loss in parts.items())


def learning_rate(config: Config, step: int) -> float:
    """Of a step: rises at first, is constant for more than half of the time, then falls along a cosine to nearly nothing."""
    fallen = min(1.0, max(0.0, (step / config.steps - CONSTANT) / (1 - CONSTANT)))
    return (
        config.lr * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * fallen)) + 1e-6
    )


def begin(path: str = "") -> TraceNet:
    """The network in a file, or a new one with ImageNet's EfficientNet-Lite0 for a trunk. Raises: as load_trace_net."""
    if path:
        return load_trace_net(Path(path))
    net, found = TraceNet(), lite0_weights()
    stem = {key: found[name] for key, name in zip(net.stem.state_dict(), found, strict=False)}
    net.stem.load_state_dict(stem)
    blocks = {
        key.removeprefix("blocks."): value
        for key, value in found.items()
        if key.startswith("blocks.")
    }
    net.blocks.load_state_dict(blocks)
    return net


def folded(net: TraceNet) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """The network in training mode, but with the statistics of batch normalisation that it came with: batches of pairs would
    distort them. Each normalisation is multiplied into the convolution before it: the same answers and gradients (in float32),
    faster.
    """
    pairs = [
        (f"{name}.{conv}", f"{name}.{norm}")
        for name, module in net.named_modules()
        for (conv, _), (norm, layer) in pairwise(module.named_children())
        if isinstance(layer, nn.BatchNorm2d)
    ]
    twin = deepcopy(net).train()
    for conv, norm in pairs:
        layer = twin.get_submodule(conv)
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0, 0, 0]))
        twin.set_submodule(norm, twin.get_submodule(norm).act)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in twin.modules()), (
        "a normalisation follows no convolution"
    )

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        values = dict(net.named_parameters())
        for conv, norm in pairs:
            layer = net.get_submodule(norm)
            scale = values.pop(f"{norm}.weight") * torch.rsqrt(layer.running_var + layer.eps)
            values[f"{conv}.weight"] = values[f"{conv}.weight"] * scale[:, None, None, None]
            values[f"{conv}.bias"] = values.pop(f"{norm}.bias") - layer.running_mean * scale
        return functional_call(twin, values, (images,))

    return forward


def train(
    faces: AlignedCrops, config: Config, out: Path, device: torch.device, workers: int
) -> Path:
    """Train, or go on where a stopped run of the same config left off. Returns: the path of the weights.

    Raises: ValueError where `out` holds a run of another config.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    net = begin(config.start).to(device, memory_format=torch.channels_last)
    average, losses = TraceNet().to(device, memory_format=torch.channels_last), Losses().to(device)
    average.load_state_dict(net.state_dict())
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [*(p for p in net.parameters() if p.ndim <= 1), *losses.parameters()]
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer, start = torch.optim.AdamW(groups, lr=config.lr), 0
    state_path, weights_path = out / "state.pt", out / "trace_net.safetensors"
    kept = {"net": net, "average": average, "losses": losses, "optimizer": optimizer}
    if state_path.is_file():
        state = torch.load(state_path, map_location=device, weights_only=True)
        if state["config"] != asdict(config):
            raise ValueError(
                f"{out} holds a run with {state['config']}; choose another --out for {asdict(config)}"
            )
        for name, part in kept.items():
            part.load_state_dict(state[name])
        start = state["step"]
        print(f"resuming after step {start} of {config.steps}")
    batches = iter(
        torch.utils.data.DataLoader(
            Pairs(PseudoFakes(faces), config.pairs, config.seed * 1_000_003 + start),
            batch_size=None,
            num_workers=workers,
        )
    )
    predictions, sums, began = folded(net), Counter(), time.perf_counter()
    for step in tqdm(range(start, config.steps), desc="trace network", unit=" steps", disable=None):
        images, shares = (tensor.to(device) for tensor in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
            said = predictions(as_seen(images))
        parts = losses(said, shares, net.shares)
        optimizer.zero_grad(set_to_none=True)
        total(parts).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            weight = min(config.ema, (1 + step) / (10 + step))
            for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(value, 1 - weight)
        sums.update({name: loss.item() for name, loss in parts.items()})
        sums["AUC on its own forgeries"] += auc(
            np.arange(len(shares)) % 2, said["whole"].detach().cpu().numpy()
        )
        if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
            count = (step % LOG_EVERY) + 1
            row = {"step": step + 1, "seconds": round(time.perf_counter() - began)}
            append_row(
                out / "log.csv",
                row | {name: round(value / count, 4) for name, value in sums.items()},
            )
            sums.clear()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            write_half(average, weights_path, {"trained": f"{step + 1} of {config.steps} steps"})
            state = {name: part.state_dict() for name, part in kept.items()}
            partial = state_path.with_suffix(".partial")
            torch.save({"config": asdict(config), "step": step + 1, **state}, partial)
            partial.replace(state_path)
    return weights_path


def append_row(path: Path, row: dict) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([list(row), list(row.values())] if new else [list(row.values())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features", type=Path, nargs="+", required=True, help="dumps whose real faces serve"
    )
    parser.add_argument(
        "--data-root",
        nargs="+",
        default=(),
        metavar="DATASET=DIR",
        help="where pictures lie that have moved",
    )
    parser.add_argument(
        "--start", default="", metavar="FILE", help="a trace network to train further"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/trace_net"),
        help="where weights, log and state go",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2, help="processes that forge, default 2")
    numbers = {name: value for name, value in asdict(Config()).items() if name != "start"}
    for name, default in numbers.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"default {default}",
        )
    args = parser.parse_args()
    config = Config(**{name: getattr(args, name) for name in asdict(Config())})
    try:
        begin(config.start)  # what is wrong with it is told before anything takes long
        dumps = [read_dump(path) for path in args.features]
        moved = dict(pair.partition("=")[::2] for pair in args.data_root)
        roots = [Path(moved.get(dump.meta["dataset"], dump.meta["data_root"])) for dump in dumps]
        device = torch.device(args.device)
        faces = collect_real_faces(dumps, roots, config, max(1, args.workers))
        print(f"{len(faces)} real faces: {dict(Counter(faces.sources.tolist()))}")
        faces = with_reconstructed(faces, config, device)
        print("weights:", train(faces, config, args.out, device, args.workers))
    except (ValueError, OSError) as error:
        sys.exit(f"train_trace_net: {error}")


if __name__ == "__main__":
    main()
