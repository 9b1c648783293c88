"""Frozen experts and the classifiers that judge their disagreements.

`EXPERTS` says how each expert is built, `PROFILES` which of them work together. A new expert is one file and one row.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from models.base import Expert, Output


def _lite(weights_dir: Path | None = None, bf16: bool = False) -> Expert:
    from models.region_net import BUNDLED, RegionExpert

    return RegionExpert(BUNDLED if weights_dir is None else Path(weights_dir) / BUNDLED.name, bf16)


# Each imports its own heavy backend when it is called.
EXPERTS: dict[str, Callable[..., Expert]] = {"lite": _lite}
PROFILES: dict[str, tuple[str, ...]] = {"lite": ("lite",)}
# Faces at a time, whose regions are one batch: on a CPU few that stay in its cache (64 take 1.5 times as long each as 8).
FACES_CPU, FACES_GPU = 8, 256


def find_device(name: str) -> torch.device:
    """Raises: ValueError where there is no such device here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]}); use cpu") from error
    return device


def build_experts(
    profile: str, device: str | torch.device = "cpu", bf16: bool = False, weights_dir: Path | None = None
) -> list[Expert]:
    """The experts of a profile, frozen, on `device`.

    weights_dir: folder with weights of your own under the bundled names; by default the bundled ones. bf16: compute in
    bfloat16, which is faster on recent hardware and differs in the third digit.

    Raises: ValueError for an unknown profile; FileNotFoundError where weights are missing.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    return [EXPERTS[name](weights_dir, bf16).frozen(device) for name in PROFILES[profile]]


def outputs_of(experts: list[Expert]) -> dict[str, Output]:
    """`<expert>.<output>` -> what it is, of all experts."""
    return {f"{expert.name}.{name}": output for expert in experts for name, output in expert.outputs.items()}


def ask(experts: list[Expert], faces: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the experts say of every region of every face.

    faces: (F, 4, 112, 112) uint8 RGBA, F at least 1, on the experts' device.
    Returns: `<expert>.<output>` -> (F, R, D) float32, on the device.
    """
    answers = defaultdict(list)
    for some in faces.split(FACES_CPU if faces.device.type == "cpu" else FACES_GPU):
        for expert in experts:
            for name, value in expert(some).items():
                answers[f"{expert.name}.{name}"].append(value)
    return {name: torch.cat(values) for name, values in answers.items()}


def weights_sha256(expert: Expert) -> str:
    """Of the file that `expert` was loaded from: what tells whether two dumps, or a dump and a detector, fit together."""
    return hashlib.sha256(expert.weights.read_bytes()).hexdigest()
