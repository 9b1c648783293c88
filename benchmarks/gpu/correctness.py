"""Does the device compute what a CPU computes: experts, faces found and cut, memory run out."""

from __future__ import annotations

import os
import platform
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from benchmarks.gpu.material import Visit, float32, tiled
from benchmarks.gpu.worker import Step
from data.alignment import align
from data.faces import FaceCutter
from models import EXPERTS
from models.base import Output
from tests.test_experts import APART, apart

PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow")


def machine(visit: Visit) -> dict:
    """Card and versions; TFLOP/s of a matrix product of random numbers, the arithmetic limit."""
    side = 8192 if visit.cuda else 256
    numbers = partial(torch.randn, side, side, device=visit.device, dtype=torch.bfloat16)
    one, other, rounds = numbers(), numbers(), 10 if visit.cuda else 1
    product = visit.best(lambda: [one @ other for _ in range(rounds)]) / rounds
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "card": "none",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if visit.cuda:
        found["card"] = torch.cuda.get_device_name(visit.device)
        found["gib_of_card"] = torch.cuda.get_device_properties(visit.device).total_memory / 2**30
        found["cudnn"] = torch.backends.cudnn.version()
    versions = {name: installed(name) for name in PACKAGES}
    return found | {
        "cuda": torch.version.cuda,
        **versions,
        "peak_tflops": 2e-12 * side**3 / product,
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def expert(name: str, visit: Visit) -> dict:
    """The largest differences of each output, and those above the tolerance of the tests."""
    if name not in visit.experts:
        return {"skipped": "left out by --experts"}
    few, many = (1, 2) if visit.small else (8, 256)
    here = visit.expert(name, False, plain=True)
    faces = visit.cut[here.crop][:few]
    on_cpu = joined(here(part) for part in faces.split(here.faces_on_cpu))
    giga = visit.gflop(here, faces)
    exact = visit.expert(name, False)
    rough = visit.expert(name, True)
    here = tiled(visit.cut[exact.crop], many).to(visit.device)
    few = len(faces)
    with float32(tf32=False):
        batch, alone = exact(here), joined(exact(face[None]) for face in here[:few])
    in_bf16, alone_bf16 = rough(here), joined(rough(face[None]) for face in here[:few])
    figures, above = {}, []
    for key, output in exact.outputs.items():
        pairs = {
            "cuda": (batch[key][:few], on_cpu[key]),
            "same": (batch[key][:few], alone[key]),
            "bf16": (in_bf16[key], batch[key]),
            "bf16 alone": (in_bf16[key][:few], alone_bf16[key]),
        }
        found = {how: difference(output, *pair) for how, pair in pairs.items()}
        figures[key] = found
        allowed = APART[output.kind]
        kinds = {"cuda": "same", "bf16 alone": "bf16"}
        limits = {how: allowed[kinds.get(how, how)] for how in found}
        above += [f"{key} {how}" for how in found if not found[how] <= limits[how]]
    return {"differences": figures, "above": above, "gflop_face": giga}


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    parts = list(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def difference(output: Output, one: torch.Tensor, other: torch.Tensor) -> float:
    """As in the tests, the largest; NaN where either has one."""
    return apart(output, one.cpu(), other.cpu()).max().item()


def finding(visit: Visit) -> dict:
    """All faces, found on the device and on the CPU: how far landmarks move, in px."""
    images = visit.read(6 if visit.small else 256)
    cutter = FaceCutter("all", 0.9, (), visit.device)
    here, there = cutter(images), cutter(visit.stack(images))
    counts = [np.bincount(crops.image, minlength=len(images)) for crops in (here, there)]
    moved = []
    for image in np.flatnonzero((counts[0] == counts[1]) & (counts[0] > 0)):
        one, two = (crops.landmarks[crops.image == image] for crops in (here, there))
        moved.append(np.abs(one - two).max((1, 2)))
    moved = np.concatenate(moved)
    parts = {"moved_median": np.median(moved), "moved_99": np.quantile(moved, 0.99)}
    other = int((counts[0] != counts[1]).sum())
    found = {"pictures": len(images), "faces": len(here), "other_counts": other}
    return (
        found | {key: float(value) for key, value in parts.items()} | {"moved": float(moved.max())}
    )


def cutting(visit: Visit) -> dict:
    """Crops cut on the device against those cut on the CPU at the same landmarks, in 0..255."""
    images = visit.read(4 if visit.small else 128)
    there = FaceCutter("one", 0.9, visit.cut, visit.device)(visit.stack(images))
    levels = {}
    for crop, view in there.views.items():
        here = align(images, there.image, there.landmarks, crop)
        apart = (view.cpu().int() - here.int()).abs()
        found = {"mean": apart.float().mean().item(), "max": int(apart.max())}
        levels[f"{crop.px} px"] = found | {"over_2": (apart > 2).float().mean().item()}
    return {"faces": len(there), "levels": levels}


def memory(visit: Visit) -> dict:
    """Half of the memory that a batch needs: the ensemble goes on in halves, with its answers."""
    visit.only_on_cuda()
    ensemble = visit.ensemble("full")
    views = visit.views(ensemble.crops.values(), 64)
    ensemble.faces_at_once = None
    visit.forget_peak()
    before_gib = torch.cuda.memory_allocated(visit.device) / 2**30
    wanted = ensemble(views)
    needs_gib = visit.peak()["gib"] - before_gib
    card_gib = torch.cuda.get_device_properties(visit.device).total_memory / 2**30
    visit.forget_peak()
    share = (before_gib + needs_gib / 2) / card_gib
    torch.cuda.set_per_process_memory_fraction(share, visit.device)
    try:
        found = ensemble(views)
        at_once = ensemble.faces_at_once
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, visit.device)
        ensemble.faces_at_once = None
    if at_once is None:
        raise RuntimeError(f"memory did not run out at {needs_gib / 2:.2f} GiB for 64 faces")
    apart = max((found[key] - wanted[key]).abs().max().item() for key in wanted)
    given = {"gib_needed": needs_gib, "gib_given": needs_gib / 2}
    return given | {"faces_at_once": at_once, "difference": apart}


ORDER = sorted(EXPERTS, key=lambda name: name == "pyfeat")
LIMITS = {"pyfeat": 45}  # whose import takes long
STEPS = [
    Step("machine", 40, machine),
    *(Step(f"correct.{name}", LIMITS.get(name, 25), partial(expert, name)) for name in ORDER),
    Step("correct.finding", 20, finding),
    Step("correct.cutting", 15, cutting),
    Step("correct.memory", 20, memory),
]
