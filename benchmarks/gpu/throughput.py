"""How fast `full` (bfloat16) and `lite` (tf32) are: forwards alone, end to end, stage by stage."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

import preprocessing_pipeline as pipeline
from benchmarks.gpu.material import Busy, Visit, float32
from benchmarks.gpu.worker import Step, TooLongError
from data.datasets import find_samples
from data.decoding import Reading, decoded
from data.dump import read_dump
from data.faces import FaceCrops, FaceCutter
from data.filling import one_thread_per_operation
from data.images import MAX_PIXELS
from data.loading import in_order, load
from data.samples import even_subsample
from features.regions import REGIONS
from models.base import Expert, WholeFaceExpert
from models.ensemble import usual_batch
from models.region_net import RegionExpert, masked_input

SIZES = (32, 64, 128, 256, 512, 1024)
IMAGES = {"full": 4000, "lite": 12000}  # end to end
FEW = 256  # images of a first run, which plans kernels and tells what starting takes
OTHER_SIZES = (64, 128, 256)  # of batches, end to end; a shard has 256 pictures
PLAIN = 8  # pictures of the plain loop
KERNELS = 30  # rows of the profiler's table


def batches(profile: str, visit: Visit) -> dict:
    """Forwards of the whole ensemble, crops on the device, by batch; a row each, with memory."""
    ensemble, rates = visit.ensemble(profile), {}
    for size in (1, 2) if visit.small else SIZES:
        views = visit.views(ensemble.crops.values(), size)
        visit.forget_peak()
        try:
            taken = visit.best(partial(ensemble, views), 3 if size <= 256 else 2)
        except TooLongError:
            if not rates:
                raise
            break
        halved, ensemble.faces_at_once = ensemble.faces_at_once, None
        rates[size] = size / taken
        figures = {"faces_s": rates[size], **visit.peak(), "at_once": halved or size}
        visit.note(f"{profile}.batch", batch=size, **figures)
    best = max(rates, key=rates.get)
    return {"best_batch": best, "best_faces_s": rates[best]}


def forwards(profile: str, visit: Visit) -> dict:
    """Each expert alone at the best batch, crops on the device, and what they must compute."""
    ensemble = visit.ensemble(profile)
    size = int(visit.figure(f"{profile}.batches", "best_batch", 2 if visit.small else 64))
    views = visit.views(ensemble.crops.values(), size)
    times, giga = {}, {}
    for expert in ensemble.experts:
        view = views[expert.crop]
        with float32(ensemble.tf32):
            times[expert.name] = 1e3 * visit.best(partial(expert, view)) / size
        giga[expert.name] = visit.figure(f"correct.{expert.name}", "gflop_face", 0)
        giga[expert.name] = giga[expert.name] or visit.gflop(expert, view)
    together = 1e3 * visit.best(partial(ensemble, views)) / size
    total, whole = sum(times.values()), sum(giga.values())
    tflops = whole / total  # GFLOP per face / ms per face
    peak = visit.figure("machine", "peak_tflops")
    rates = {"tflops": tflops, "share_of_peak": tflops / peak, "limit_faces_s": 1e3 * peak / whole}
    parts = {"ms_face": times, "gflop_face": giga, "sum_ms_face": total}
    return {"batch": size, **parts, "together_ms_face": together, **rates}


def profiled(profile: str, visit: Visit) -> dict:
    """torch.profiler's table in profile_<profile>.txt; kernel time over wall time."""
    ensemble, rounds = visit.ensemble(profile), 1 if visit.small else 3
    size = int(visit.figure(f"{profile}.batches", "best_batch", 2 if visit.small else 64))
    views = visit.views(ensemble.crops.values(), min(size, 256))
    size = len(next(iter(views.values())))

    def work() -> None:
        for _ in range(rounds):
            ensemble(views)

    wall = visit.best(work, 2)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if visit.cuda else [])]
    with profiler(activities=kinds) as seen:
        visit.seconds(work)
    key = "self_device_time_total" if visit.cuda else "self_cpu_time_total"
    averages = seen.key_averages()
    table = averages.table(sort_by=key, row_limit=KERNELS, max_name_column_width=90)
    (visit.out / f"profile_{profile}.txt").write_text(table, encoding="utf-8")
    kernels = [event for event in seen.events() if str(event.device_type).endswith("CUDA")]
    inside = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    figures = {"batch": size, "wall_ms": 1e3 * wall / rounds}
    if visit.cuda:
        figures |= {"kernel_share": inside / wall, "kernels_a_batch": len(kernels) / rounds}
    return figures


class Clock:
    """Seconds spent in functions of a module, while they are replaced."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.began: float | None = None

    @contextmanager
    def on(self, module: object, *names: str) -> Iterator[Clock]:
        before = {name: getattr(module, name) for name in names}
        with patch.multiple(module, **{n: partial(self._timed, n, f) for n, f in before.items()}):
            yield self

    def _timed(self, name: str, function: Callable, *arguments: object, **more: object) -> object:
        start = time.perf_counter()
        self.began = self.began or start
        try:
            return function(*arguments, **more)
        finally:
            self.spent[name] = time.perf_counter() - start


def dumped(profile: str, visit: Visit, count: int, **settings: object) -> dict:
    """The whole command, files to dump, less the time to load the weights."""
    config = pipeline.Config(
        visit.wait_for("pictures"),
        limit=count,
        experts=visit.names(profile),
        profile=profile,
        device=str(visit.device),
        weights_dir=None if profile == "lite" else visit.weights,
        overwrite=True,
        **settings,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()), Busy(visit) as busy:
        config.out = Path(folder) / "dump"
        # The ways of a GPU, also on the CPU of a rehearsal.
        ways = patch.object(pipeline, "works_on_stacks", lambda device: True)
        with ways, clock.on(pipeline, "fill_faces", "fill_outputs"):
            pipeline.main(config)
        busy.since = clock.began
        taken = time.perf_counter() - clock.began
        dump = read_dump(config.out)
        counts, missing = dump.meta["counts"], len(dump.missing)
    found = {"images": count, "faces": counts["faces"], "missing": missing}
    passes = {f"{name}_s": spent for name, spent in clock.spent.items()}
    whole = {"images_s": count / taken, "ms_face": 1e3 * taken / max(1, counts["faces"])}
    return found | whole | passes | busy.figures()


def files(profile: str, visit: Visit) -> dict:
    """End to end with the settings that a user gets, after a few that choose kernels and plans."""
    few = 2 if visit.small else FEW
    first = dumped(profile, visit, few)
    count = few if visit.small else IMAGES[profile]
    usual = usual_batch(visit.device, visit.names(profile))
    figures = {"batch": usual, "first_images_s": first["images_s"]} | dumped(profile, visit, count)
    visit.note(f"{profile}.files", **figures)  # kept should a later run be cut
    if visit.small:
        return figures
    for size in sorted({*OTHER_SIZES} - {usual}):
        dumped(profile, visit, 2 * size, batch_size=size)
        found = dumped(profile, visit, count // 2, batch_size=size)
        visit.note(f"{profile}.files.batch-{size}", batch=size, **found)
    return figures


def usual_size(profile: str, visit: Visit) -> int:
    return 2 if visit.small else usual_batch(visit.device, visit.names(profile))


def pictures(profile: str, visit: Visit) -> dict:
    """End to end with decoded pictures in memory: one thread finds and cuts, one asks the experts."""
    ensemble, size = visit.ensemble(profile), usual_size(profile, visit)
    images = visit.read(4 if visit.small else IMAGES[profile] // 6)
    cutter = FaceCutter("one", 0.9, ensemble.crops.values(), visit.device)
    parts = [images[i : i + size] for i in range(0, len(images), size)]
    name = next(iter(ensemble.outputs))

    def cut(part: list[np.ndarray]) -> FaceCrops:
        return cutter(visit.stack(part))

    found, before = 0, None
    with one_thread_per_operation():
        # Each thread plans its kernels anew: the first part is done twice, and counts once.
        crops = in_order(cut, [parts[0], *parts], 1, 1)
        ensemble(next(crops).views)
        with Busy(visit) as busy:
            start = time.perf_counter()
            for some in crops:
                pending = ensemble.start(some.views) if len(some) else None
                found += len(before.result()[name]) if before else 0
                before = pending
            found += len(before.result()[name]) if before else 0
            taken = time.perf_counter() - start
    figures = {"batch": size, "images": len(images), "faces": found}
    return figures | {"images_s": len(images) / taken} | busy.figures()


def stages(profile: str, visit: Visit) -> dict:
    """Images per second of each stage by itself, on its usual threads or processes; the slowest is
    the limit. `decode` is without the time until its first batch, which is `decode_starts_s`.
    """
    ensemble, count = visit.ensemble(profile), 4 if visit.small else 512
    root, size = visit.wait_for("pictures"), usual_size(profile, visit)
    reading = Reading(root, size, pipeline.Config.workers)
    many = 8 if visit.small else IMAGES[profile] // 3
    shards = [(0, even_subsample(find_samples(root), many))]
    cutter = FaceCutter("one", 0.9, ensemble.crops.values(), visit.device)
    with one_thread_per_operation():
        stacks, times = [], [time.perf_counter()]
        for _, _, stack in decoded(shards, reading, True):
            times.append(time.perf_counter())
            stacks += [stack][: count // size - len(stacks)]
        views = [cutter(stack).views for stack in stacks]
        images = visit.read(count)
        wide = [
            images[i : i + pipeline.FOUND_TOGETHER]
            for i in range(0, count, pipeline.FOUND_TOGETHER)
        ]
        there = [visit.stack(some).to(visit.device) for some in wide]
        cutter(there[0])
        find = visit.seconds(lambda: [cutter.find_in_stack(stack) for stack in there])
        both = visit.seconds(lambda: [cutter(stack) for stack in there])
        infer = visit.seconds(lambda: [ensemble(part) for part in views])
    count = sum(map(len, stacks))
    taken = {"find": find, "cut": max(both - find, 1e-9), "experts": infer}
    rates = {"decode": (many - size) / max(1e-9, times[-1] - times[1])}
    rates |= {name: count / seconds for name, seconds in taken.items()}
    starts = {"decode_starts_s": times[1] - times[0]}
    return {"images": count, "images_s": rates, "limit": min(rates, key=rates.get), **starts}


def plain(profile: str, visit: Visit) -> dict:
    """The plain loop: one picture, one expert and one region at a time."""
    ensemble, paths = visit.ensemble(profile), visit.paths[: 2 if visit.small else PLAIN]
    cutter = FaceCutter("one", 0.9, ensemble.crops.values(), visit.device)

    def work(paths: list[Path]) -> None:
        for path in paths:
            views = cutter(visit.stack([load(path, MAX_PIXELS).image])).views
            for expert in ensemble.experts:
                one_by_one(expert, views[expert.crop].to(visit.device))

    work(paths[:1])
    return {"images": len(paths), "images_s": len(paths) / visit.seconds(lambda: work(paths))}


def one_by_one(expert: Expert, face: torch.Tensor) -> list[np.ndarray]:
    """Each region of one face (1, 4, px, px) in a forward of its own, its answer on the CPU.

    The trace network and CLIP answer for all regions of a face at once, and are asked once.
    """
    if type(expert).forward is WholeFaceExpert.forward:
        with expert.inference(face.device):
            images = expert.network_input(face)
            found = [expert.predict(images[i : i + 1]) for i in range(len(REGIONS))]
    elif isinstance(expert, RegionExpert):
        with expert.inference(face.device):
            px = expert.net.config["px"]
            masks = expert.masks.split(1)
            found = [expert.net(masked_input(face, mask, px)) for mask in masks]
    else:
        found = [expert(face)]
    return [value.float().cpu().numpy() for one in found for value in one.values()]


def steps(profile: str) -> list[Step]:
    works = (
        *((40, batches), (30, forwards), (75, files), (20, profiled)),
        *((25, pictures), (25, stages), (20, plain)),
    )
    names = {profiled: "profile"}
    return [
        Step(f"{profile}.{names.get(work, work.__name__)}", limit, partial(work, profile))
        for limit, work in works
    ]


STEPS = [*steps("full"), *steps("lite")]
