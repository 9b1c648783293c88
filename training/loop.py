"""The training loop of the bundled networks. A resumed run ends like one that was never stopped.

Batch and random numbers of a step follow from (seed, step), and all else is in the state on disk.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.files import replacing, write_csv
from models.tensors import DAMAGED

log = logging.getLogger("masc")
LOWEST = 1e-3  # of the learning rate, at the end
PLACES = ("device", "workers")  # may change between two starts, as may all paths


@dataclass(kw_only=True)
class Options:
    """What every training takes."""

    out: Path
    """where weights, log and state go"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    workers: int = 2
    """processes that make batches"""
    lr: float
    weight_decay: float
    ema: float = 0.998
    """decay of the moving average of the weights"""
    seed: int = 0
    limit: int = 0
    """number of faces (of each dump); 0: all"""


@dataclass(frozen=True)
class Schedule:
    """Learning rate and length."""

    steps: int
    interval: int  # steps between rows of log.csv; weights and state are written with each
    warm_up: float  # steps until the full learning rate
    clip: float  # largest norm of the gradients
    constant: float = 0.0  # share of the steps after which the rate falls along a cosine

    def rate(self, step: int) -> float:
        """Factor of the learning rate."""
        fallen = max(0.0, (step / self.steps - self.constant) / (1 - self.constant))
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen))
        return max(LOWEST, min(1.0, (step + 1) / self.warm_up) * cosine)


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, faster in the first steps."""

    def update(average: list, current: list, count: torch.Tensor) -> None:
        warm = (1 + int(count)) / (10 + int(count))
        get_ema_multi_avg_fn(min(decay, warm))(average, current, count)

    return AveragedModel(net, multi_avg_fn=update, use_buffers=True)


def fit(
    task: nn.Module,
    batches: Dataset,
    write: Callable[[nn.Module, str], dict[str, float] | None],
    options: Options,
    schedule: Schedule,
    faces: int,
) -> None:
    """Train `task`, or resume a stopped run of the same options.

    Args:
        task: holds the network as `task.net`. Of a batch it returns the loss and figures to log.
        batches: step -> tuple of tensors on the CPU.
        write: writes the weights of the averaged network, given a note on the progress. May return
            more figures to log.
        faces: number of training faces, which must not change.

    Raises:
        ValueError: the folder holds a run of other options, or a damaged state.
    """
    cv2.setNumThreads(0)  # or workers that inherit OpenCV's pool wait for threads that they lack
    out, steps, settings = options.out, schedule.steps, {"faces": faces}
    out.mkdir(parents=True, exist_ok=True)
    for name, value in vars(options).items():
        if name not in PLACES and isinstance(value, int | float | str):
            settings[name] = value
    device = next(task.parameters()).device
    # No weight decay of biases, normalisations and scalars.
    decayed, others = ([p for p in task.parameters() if (p.ndim > 1) == x] for x in (True, False))
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)
    average, scheduler = moving_average(task.net, options.ema), LambdaLR(optimizer, schedule.rate)
    parts = {"task": task, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    start, rows = resume(out / "state.pt", settings, parts, device)
    if start:
        log.info("resuming after step %d of %d", start, steps)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(start, steps), num_workers=options.workers
    )
    sums, began, done = Counter(), time.perf_counter(), start
    try:
        for batch in tqdm(loader, initial=start, total=steps, unit=" steps", disable=None):
            torch.manual_seed(options.seed * 1_000_003 + done)
            task.train()
            loss, figures = task(*(tensor.to(device) for tensor in batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(task.parameters(), schedule.clip)
            optimizer.step()
            scheduler.step()
            average.update_parameters(task.net)
            sums.update(figures)
            done += 1
            if done % schedule.interval and done < steps:
                continue
            count = (done - 1) % schedule.interval + 1
            row = {"step": done, "seconds": round(time.perf_counter() - began, 1)}
            row |= {name: round(float(value) / count, 4) for name, value in sums.items()}
            more = write(average.module, f"{done} of {steps} steps") or {}
            rows.append(row | {name: round(value, 4) for name, value in more.items()})
            header = list(dict.fromkeys(name for row in rows for name in row))
            write_csv(out / "log.csv", header, [[row.get(k, "") for k in header] for row in rows])
            state = {name: part.state_dict() for name, part in parts.items()}
            with replacing(out / "state.pt") as file:  # last: it says that the rest is there
                torch.save(state | {"settings": settings, "step": done, "log": rows}, file)
            log.info(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
            sums.clear()
            began = time.perf_counter()
    except KeyboardInterrupt:
        kept = done - done % schedule.interval
        log.warning("stopped; the same command resumes after step %d of %d", kept, steps)
        raise SystemExit(130) from None


def resume(path: Path, settings: dict, parts: dict, device: torch.device) -> tuple[int, list[dict]]:
    """Load a state into `parts`, if there is one. Returns: steps done and rows of the log."""
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["settings"]
        if found == settings:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            return state["step"], state["log"]
    except DAMAGED as error:
        raise ValueError(f"{path}: not the state of a run, or damaged; delete it") from error
    differing = [f"{k} {found.get(k)}, not {v}" for k, v in settings.items() if found.get(k) != v]
    differing = ", ".join(differing)
    raise ValueError(f"{path}: the state of another run ({differing}); choose another --out")
