"""Other ways to compute the same forwards, each alone: milliseconds per face, and what differs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.gpu.correctness import difference
from benchmarks.gpu.material import Visit, float32
from benchmarks.gpu.worker import NeedsCudaError, Step
from models.base import Expert

BATCH = 64
Answers = dict[str, torch.Tensor]
Way = Callable[[Expert, torch.Tensor], Callable[[], Answers]]  # something to call again and again


def experts_of(visit: Visit, *profiles: str) -> dict[str, Expert]:
    """`traces` of `lite` is in float32, that of `full` in bfloat16."""
    found = {}
    for profile in profiles:
        for expert in visit.ensemble(profile).experts:
            name = expert.name if expert.name != "traces" else f"traces {profile}"
            found[name] = expert
    return found


def tried(visit: Visit, make: Way, expert: Expert) -> dict:
    """One way for one expert, against the eager forward."""
    size = 1 if visit.small else BATCH
    view = visit.views([expert.crop], size)[expert.crop]
    with float32(tf32=False):
        eager, wanted = visit.best(partial(expert, view)), expert(view)
        start = time.perf_counter()
        work = make(expert, view)
        found = {key: value.clone() for key, value in work().items()}
        visit.synchronize()
        first, taken = time.perf_counter() - start, visit.best(work)
    figures = {"ms_face": 1e3 * taken / size, "eager_ms_face": 1e3 * eager / size}
    outputs = expert.outputs.items()
    differs = max(difference(output, found[key], wanted[key]) for key, output in outputs)
    return figures | {"gain": eager / taken, "differs": differs, "first_call_s": first}


def compare(visit: Visit, way: str, make: Way, experts: dict[str, Expert]) -> dict:
    """A row for each expert; the step's own says by how much each way wins.

    What one expert refuses is told in its row, and the others are still tried.
    """
    gains = {}
    for name, expert in experts.items():
        row = f"try.{way}.{name.replace(' ', '-')}"
        try:
            figures = tried(visit, make, expert)
        except NeedsCudaError:
            raise
        except Exception as error:  # of any library; the next expert is still tried
            visit.note.failed(row, error)
            visit.synchronize()  # raises where the device is lost for this process
            continue
        gains[name] = figures["gain"]
        visit.note(row, **figures)
    return {"gains": gains}


def every(visit: Visit) -> dict[str, Expert]:
    return experts_of(visit, "full", "lite")


def graphs(visit: Visit) -> dict:
    """The eager forward, captured as a CUDA graph and replayed."""
    visit.only_on_cuda()

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        stream, here = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            for _ in range(3):
                expert(view)
        here.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answers = expert(view)

        def replay() -> Answers:
            graph.replay()
            return answers

        return replay

    return compare(visit, "graphs", make, every(visit))


def streams(visit: Visit) -> dict:
    """One stream per expert, all experts of `full` at once, against one after another."""
    visit.only_on_cuda()
    experts = visit.ensemble("full").experts
    views = visit.views([expert.crop for expert in experts], BATCH)
    lanes, here = [torch.cuda.Stream() for _ in experts], torch.cuda.current_stream()

    def side_by_side() -> None:
        for expert, lane in zip(experts, lanes, strict=True):
            lane.wait_stream(here)
            with torch.cuda.stream(lane):
                expert(views[expert.crop])
        for lane in lanes:
            here.wait_stream(lane)

    taken = visit.best(side_by_side)
    eager = visit.best(lambda: [expert(views[expert.crop]) for expert in experts])
    both = {"ms_face": 1e3 * taken / BATCH, "eager_ms_face": 1e3 * eager / BATCH}
    return both | {"gain": eager / taken}


def tf32(visit: Visit) -> dict:
    """The float32 ensemble with TF32 in convolutions and products."""

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        def work() -> Answers:
            with float32(tf32=True):
                return expert(view)

        return work

    return compare(visit, "tf32", make, experts_of(visit, "lite"))


def sixteen_bits(visit: Visit) -> dict:
    """The bundled networks as `--precision bfloat16` makes them, against float32."""

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        return partial(visit.expert(expert.name, True), view)

    return compare(visit, "sixteen_bits", make, experts_of(visit, "lite"))


def cudnn(visit: Visit) -> dict:
    """torch.backends.cudnn.benchmark: kernels chosen by trying them."""

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        def work() -> Answers:
            torch.backends.cudnn.benchmark = True
            try:
                return expert(view)
            finally:
                torch.backends.cudnn.benchmark = False

        return work

    return compare(visit, "cudnn", make, every(visit))


def contiguous(visit: Visit) -> dict:
    """Channels first, in weights and inputs, instead of channels last."""

    def first(module: torch.nn.Module, given: tuple) -> tuple:
        return tuple(each.contiguous() if torch.is_tensor(each) else each for each in given)

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        other = copy.deepcopy(expert)
        other.net.to(memory_format=torch.contiguous_format)
        other.net.register_forward_pre_hook(first)
        return partial(other, view)

    return compare(visit, "contiguous", make, every(visit))


def compiled(mode: str, name: str, visit: Visit) -> dict:
    """torch.compile of one network; the first call's seconds are those of the compiler.

    On a CPU, only that it can be traced.
    """
    if (mode, name) != (MODES[0], "traces lite"):
        visit.only_on_cuda()

    def make(expert: Expert, view: torch.Tensor) -> Callable[[], Answers]:
        torch.compiler.reset()
        other = copy.deepcopy(expert)
        other.net.compile(dynamic=False, **({"mode": mode} if visit.cuda else {"backend": "eager"}))

        def work() -> Answers:
            torch.compiler.cudagraph_mark_step_begin()
            return other(view)

        return work

    expert = every(visit).get(name)
    figures = tried(visit, make, expert) if expert else {"skipped": "not one of --experts"}
    torch.compiler.reset()
    return figures


QUICK = (graphs, streams, tf32, sixteen_bits, cudnn, contiguous)
LIMITS = {graphs: 20, streams: 10, cudnn: 25, contiguous: 20}
MODES = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")
STEPS = [Step(f"try.{work.__name__}", LIMITS.get(work, 10), work) for work in QUICK]
# A step each, so that an expert that takes too long costs no other; those that take longest first.
COMPILED = (
    "pyfeat",
    "arcface",
    "fairface",
    "clip",
    "facenet",
    "lite",
    "traces full",
    "traces lite",
)
COMPILING = [
    Step(f"try.compile-{mode}.{name.replace(' ', '-')}", 75, partial(compiled, mode, name))
    for mode in MODES
    for name in COMPILED
]
