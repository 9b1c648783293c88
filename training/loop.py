"""The training loop of the bundled networks. A resumed run ends like one that was never stopped.

Batch and random numbers of a step follow from (seed, step), and all else is in the state on disk.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

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
PLACES = (
    "device",
    "workers",
    "seconds",
    "interval",
    "left_out",
    "data_root",
)  # may change between two starts, as may all paths


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
    seconds: float = 0
    """stop after so many, with weights and state written; the same command resumes. 0: never"""


@dataclass(frozen=True)
class Schedule:
    """Learning rate and length."""

    steps: int
    interval: int  # steps between rows of log.csv; weights and state are written with each
    warm_up: float  # steps until the full learning rate
    clip: float  # largest norm of the gradients
    constant: float = 0.0  # share of the steps after which the rate falls along a cosine
    start: int = 0  # steps of an earlier run that this one goes on from

    def rate(self, step: int) -> float:
        """Factor of the learning rate. step: of this run."""
        fallen = max(0.0, ((self.start + step) / self.steps - self.constant) / (1 - self.constant))
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen))
        return max(LOWEST, min(1.0, (step + 1) / self.warm_up) * cosine)


class MovingAverage(AveragedModel):
    """An exponential moving average of weights and buffers, faster in the first steps.

    As AveragedModel's own, which waits for the device in every step.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__(net, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, net: nn.Module) -> None:
        count = int(self.n_averaged)  # which stays on the CPU
        own, current = (
            list(chain(each.parameters(), each.buffers())) for each in (self.module, net)
        )
        if count == 0:
            for average, value in zip(own, current, strict=True):
                average.copy_(value)
        else:
            update = get_ema_multi_avg_fn(min(self.decay, (1 + count) / (10 + count)))
            for floating in (True, False):
                chosen = [x.is_floating_point() == floating for x in own]
                if any(chosen):
                    update(*(list(compress(each, chosen)) for each in (own, current)), count)
        self.n_averaged += 1


def fit(
    task: nn.Module,
    batches: Dataset,
    write: Callable[[nn.Module, str], dict[str, float] | None],
    options: Options,
    schedule: Schedule,
    faces: int,
    begin: Mapping[str, Any] | None = None,
    also: Callable[[dict], None] = lambda state: None,
) -> None:
    """Train `task`, or resume a stopped run of the same options.

    Args:
        task: holds the network as `task.net`. Of a batch it returns the loss and figures to log.
            `task.rates`, where it is there, maps the first part of parameters' names to factors of
            their learning rate.
        batches: step -> tuple of tensors: on the CPU, or where `batches.on_device`, on the device
            of the task; then they are made in this process.
        write: writes the weights of the averaged network, given a note on the progress. May return
            more figures to log.
        faces: number of training faces, which must not change.
        begin: what a new run goes on from, with a fresh optimizer and warm-up: the state dicts
            "task" and "average", "step" and "log".
        also: given every state that is written.

    Raises:
        ValueError: the folder holds a run of other options, or a damaged state.
    """
    schedule = replace(schedule, start=begin["step"]) if begin else schedule
    cv2.setNumThreads(0)  # or workers that inherit OpenCV's pool wait for threads that they lack
    out, steps, settings = options.out, schedule.steps, {"faces": faces}
    out.mkdir(parents=True, exist_ok=True)
    for name, value in vars(options).items():
        texts = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
        if name not in PLACES and (isinstance(value, int | float | str) or (texts and value)):
            settings[name] = value
    device = next(task.parameters()).device
    # No weight decay of biases, normalisations and scalars.
    rates = {"": 1.0} | getattr(task, "rates", {})
    groups = {}
    for name, parameter in task.named_parameters():
        first = max((each for each in rates if name.startswith(each)), key=len)
        groups.setdefault((parameter.ndim > 1, rates[first]), []).append(parameter)
    decay = (0.0, options.weight_decay)
    groups = [
        {"params": of, "weight_decay": decay[many], "lr": options.lr * rate}
        for (many, rate), of in sorted(
            groups.items(), key=lambda item: (not item[0][0], item[0][1])
        )
    ]
    fused = {"fused": True} if device.type == "cuda" else {}
    optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, **fused)
    average, scheduler = MovingAverage(task.net, options.ema), LambdaLR(optimizer, schedule.rate)
    parts: dict[str, Any] = {
        "task": task,
        "average": average,
        "optimizer": optimizer,
        "scheduler": scheduler,
    }
    start, rows = resume(out / "state.pt", settings, parts, device)
    if begin and not start:
        start, rows = begin["step"], list(begin["log"])
        for name in ("task", "average"):
            parts[name].load_state_dict(begin[name])
    if start:
        log.info("resuming after step %d of %d", start, steps)
    workers = 0 if getattr(batches, "on_device", False) else options.workers
    loader = DataLoader(batches, batch_size=None, sampler=range(start, steps), num_workers=workers)
    sums, began, done, written = Counter(), time.perf_counter(), start, start
    ends = began + options.seconds if options.seconds else math.inf
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
            late = time.perf_counter() > ends
            if done % schedule.interval and done < steps and not late:
                continue
            count, written = done - written, done
            row = {"step": done, "seconds": round(time.perf_counter() - began, 1)}
            row |= {name: round(float(value) / count, 4) for name, value in sums.items()}
            more = write(average.module, f"{done} of {steps} steps") or {}
            rows.append(row | {name: round(value, 4) for name, value in more.items()})
            header = list(dict.fromkeys(name for row in rows for name in row))
            write_csv(out / "log.csv", header, [[row.get(k, "") for k in header] for row in rows])
            state = {name: part.state_dict() for name, part in parts.items()}
            with replacing(out / "state.pt") as file:  # last: it says that the rest is there
                state |= {"settings": settings, "step": done, "log": rows}
                torch.save(state, file)
            also(state)
            log.info(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
            if late:
                log.info("stopped after %d of %d steps, as told by --seconds", done, steps)
                return
            sums.clear()
            began = time.perf_counter()
    except KeyboardInterrupt:
        log.warning("stopped; the same command resumes after step %d of %d", written, steps)
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
