"""The steps of a visit to a machine with a GPU, in order of value."""

from __future__ import annotations

import argparse
import gc
import time
from functools import partial

import torch

from benchmarks.gpu import correctness, experiments, throughput
from benchmarks.gpu.material import Visit
from benchmarks.gpu.pictures import picture
from benchmarks.gpu.worker import Rows, Step
from inference.detector import Detector
from models.ensemble import find_device


def automatic(profile: str, visit: Visit) -> dict:
    """What --batch-size auto chooses, and what it costs against the best batch that was seen."""
    ensemble, start = visit.ensemble(profile), time.perf_counter()
    visit.forget_peak()
    size = ensemble.best_batch()
    taken, memory = time.perf_counter() - start, visit.peak()
    views = visit.views(ensemble.crops.values(), 2 if visit.small else size)
    rate = len(next(iter(views.values()))) / visit.best(partial(ensemble, views), 2)
    best = visit.figure(f"{profile}.batches", "best_faces_s", rate)
    return {
        "batch": size,
        "seconds": taken,
        **memory,
        "faces_s": rate,
        "share_of_best": rate / best,
    }


def predict(visit: Visit) -> dict:
    """predict.py's detector on the CPU and on the device: the same verdicts, and how long each."""
    images = [picture(number) for number in range(2 if visit.small else 16)]
    said, times = [], {}
    for device in ("cpu", str(visit.device)):
        detector = Detector.load(device=device)
        said.append([detector.predict(image).p_fake for image in images])
        few = images[:1] if device == "cpu" else images
        taken = visit.best(lambda d=detector, few=few: [d.predict(each) for each in few], 1)
        times[device] = 1e3 * taken / len(few)
    apart = max(abs(one - other) for one, other in zip(*said, strict=True))
    return {"pictures": len(images), "p_fake_apart": float(apart), "ms_picture": times}


def open_visit(options: argparse.Namespace, rows: Rows) -> Visit:
    find_device(options.device)
    return Visit(options, rows)


def healthy(visit: Visit) -> bool:
    """Whether the device still answers after a failed step; some errors end it for a process."""
    gc.collect()
    torch.compiler.reset()
    try:
        visit.synchronize()
        if visit.cuda:
            torch.cuda.empty_cache()
        return torch.ones(8, device=visit.device).sum().item() == 8
    except RuntimeError:
        return False


STEPS = [
    *correctness.STEPS,
    *throughput.STEPS,
    *experiments.STEPS,
    Step("full.auto", 20, partial(automatic, "full")),
    Step("lite.auto", 15, partial(automatic, "lite")),
    Step("predict", 25, predict),
    *experiments.COMPILING,
]
