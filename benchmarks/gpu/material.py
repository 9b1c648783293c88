"""What the steps of a visit share: pictures, crops, weights, ensembles, clocks."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.pictures import picture
from benchmarks.gpu.worker import NeedsCudaError, Rows, read_rows
from data.faces import FaceCutter
from data.stack import Stack
from features.regions import Crop
from models import BUNDLED, CLIP_MODEL, PROFILES, expert_class
from models.base import Expert
from models.ensemble import Ensemble, find_weights
from models.weights import WEIGHTS

PATIENCE = 60  # seconds to wait, in all, for what is made in the background
INTERVAL = 0.1  # seconds between two looks at the GPU
Views = dict[Crop, torch.Tensor]


class Visit:
    """rows: writes a row. small: tiny sizes, for a rehearsal. experts: some instead of all."""

    def __init__(self, options: argparse.Namespace, rows: Rows) -> None:
        self.note, self.out, self.work = rows, Path(options.out), Path(options.work)
        self.device, self.small = torch.device(options.device), options.small
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", 0)  # some functions of torch want a number
        self.experts = tuple(options.experts) or tuple(dict.fromkeys(chain(*PROFILES.values())))
        self.cuda, self.opened = self.device.type == "cuda", time.time()
        for name, entry in WEIGHTS.items():  # random values have no published SHA-256
            WEIGHTS[name] = replace(entry, sha256=None, size=None)

    def names(self, profile: str) -> tuple[str, ...]:
        return tuple(name for name in PROFILES[profile] if name in self.experts)

    def wait_for(self, name: str) -> Path:
        """A folder that is made in the background. Raises: TimeoutError."""
        path = self.work / name
        while not path.is_dir():
            if time.time() > self.opened + PATIENCE:
                raise TimeoutError(f"{path}: not there after {PATIENCE} s")
            time.sleep(0.2)
        return path

    @cached_property
    def weights(self) -> Path:
        return self.wait_for("weights")

    @cached_property
    def paths(self) -> list[Path]:
        return sorted(self.wait_for("pictures").rglob("*.jpg"), key=lambda path: path.name)

    def read(self, count: int) -> list[np.ndarray]:
        return [cv2.imread(str(path))[..., ::-1].copy() for path in self.paths[:count]]

    def expert(self, name: str, bf16: bool, plain: bool = False) -> Expert:
        """On the device, in a GPU's form (also in a rehearsal); plain: as it is, on the CPU."""
        folder = None if name in BUNDLED else self.weights
        file = find_weights([name], folder, CLIP_MODEL)[name]
        expert = expert_class(name)(file, bf16)
        return expert.frozen("cpu" if plain else self.device, for_gpu=not plain)

    @cache  # noqa: B019  one visit per process
    def ensemble(self, profile: str) -> Ensemble:
        """`full` in bfloat16, `lite` in tf32: what a run on a GPU takes by default."""
        names = self.names(profile)
        folder = self.weights if set(names) - set(BUNDLED) else None
        ensemble = Ensemble(names, self.device, profile == "full", folder)
        ensemble.tf32 = profile == "lite"
        return ensemble

    def crop_of(self, name: str) -> Crop:
        """That of CLIP depends on its tower."""
        known = getattr(expert_class(name), "crop", None)
        return known or self.expert(name, False, plain=True).crop

    @cached_property
    def cut(self) -> Views:
        """Every expert's crops of a few pictures, cut on the CPU."""
        crops = {self.crop_of(name) for name in self.experts}
        images = [picture(number) for number in range(4 if self.small else 64)]
        return FaceCutter("one", 0.9, crops)(images).views

    def views(self, crops: Iterable[Crop], count: int) -> Views:
        """`count` crops on the device, repeated as often as needed."""
        return {crop: tiled(self.cut[crop], count).to(self.device) for crop in set(crops)}

    def stack(self, images: list[np.ndarray]) -> Stack:
        """As a GPU takes pictures; the CPU works on stacks too, in a rehearsal."""
        stack = Stack.of(images)
        return stack.pin_memory() if self.cuda else stack

    def only_on_cuda(self) -> None:
        if not self.cuda:
            raise NeedsCudaError

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall time, until the device has finished."""
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start

    def best(self, work: Callable[[], object], rounds: int = 3) -> float:
        """The shortest of some rounds, after one that warms up."""
        if self.small:
            return self.seconds(work)
        work()
        return min(self.seconds(work) for _ in range(rounds))

    def gflop(self, expert: Expert, faces: torch.Tensor) -> float:
        """What the networks compute for one face; kernels of our own are not seen."""
        with FlopCounterMode(display=False) as counter:
            expert(faces[:1])
        return counter.get_total_flops() / 1e9

    def forget_peak(self) -> None:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> dict[str, float]:
        """GiB of device memory since `forget_peak`."""
        if not self.cuda:
            return {}
        used = torch.cuda.max_memory_allocated(self.device) / 2**30
        return {"gib": used, "gib_reserved": torch.cuda.max_memory_reserved(self.device) / 2**30}

    def figure(self, step: str, key: str, default: float | None = None) -> float:
        """A figure of an earlier row, maybe by a process before this one. Raises: KeyError."""
        for row in reversed(read_rows(self.out / "visit.json")):
            if row["step"] == step and key in row:
                return row[key]
        if default is None:
            raise KeyError(f"no row {step} with {key}")
        return default


@contextmanager
def float32(tf32: bool) -> Iterator[None]:
    """float32 products with TF32 or without, in experts that are asked by themselves."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = tf32
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def tiled(values: torch.Tensor, count: int) -> torch.Tensor:
    return torch.cat([values] * -(-count // len(values)))[:count]


class Busy:
    """The GPU's busy share (0..1) and power while something runs, by nvidia-smi in a process.

    since: of time.perf_counter(), when what counts began; from the start, unless set meanwhile.
    """

    since = 0.0
    share: float | None = None
    watts: float | None = None

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def __enter__(self) -> Busy:
        what = ["--query-gpu=utilization.gpu,power.draw", "--format=csv,noheader,nounits"]
        command = ["nvidia-smi", f"--id={self.visit.device.index or 0}", *what]
        command += ["-lms", str(round(1e3 * INTERVAL))]
        self.process = None
        if self.visit.cuda and shutil.which(command[0]):
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            self.process = subprocess.Popen(command, stdout=pipe, stderr=nothing, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        if not self.process:
            return
        self.process.terminate()
        lines = self.process.communicate()[0].splitlines()
        last = max(1, round((time.perf_counter() - self.since) / INTERVAL))
        lines = lines[-last:]
        rows = [line.split(",") for line in lines if line.replace(",", "").strip()]
        rows = [row for row in rows if len(row) == 2 and row[0].strip().isdigit()]
        if rows:
            self.share = float(np.mean([float(row[0]) for row in rows])) / 100
            watts = [float(row[1]) for row in rows if row[1].strip().replace(".", "").isdigit()]
            self.watts = float(np.mean(watts)) if watts else None

    def figures(self) -> dict[str, float]:
        found = {"gpu_busy": self.share, "watts": self.watts}
        return {name: value for name, value in found.items() if value is not None}
