"""A plan whose steps fail in every way, for the tests of scripts/gpu_visit.py."""

from __future__ import annotations

import argparse
import os
import signal
import time
from types import SimpleNamespace

from benchmarks.gpu.worker import NeedsCudaError, Rows, Step


def first(visit: SimpleNamespace) -> dict:
    return {"answer": 42.0}


def fails(visit: SimpleNamespace) -> dict:
    raise ValueError("no such thing\nand more")


def without_cuda(visit: SimpleNamespace) -> dict:
    raise NeedsCudaError


def slow(visit: SimpleNamespace) -> dict:
    time.sleep(60)


def deaf(visit: SimpleNamespace) -> dict:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)


def dies(visit: SimpleNamespace) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)


def breaks(visit: SimpleNamespace) -> dict:
    visit.broken = True
    raise RuntimeError("the device is gone")


def process(visit: SimpleNamespace) -> dict:
    return {"pid": os.getpid(), "broken": visit.broken}


def open_visit(options: argparse.Namespace, rows: Rows) -> SimpleNamespace:
    return SimpleNamespace(broken=False)


def healthy(visit: SimpleNamespace) -> bool:
    return not visit.broken


STEPS = [
    Step("odd.first", 5, first),
    Step("odd.fails", 5, fails),
    Step("odd.cuda", 5, without_cuda),
    Step("odd.slow", 0.3, slow),
    Step("odd.same", 5, process),
    Step("odd.deaf", 0.3, deaf),
    Step("odd.other", 5, process),
    Step("odd.dies", 5, dies),
    Step("odd.breaks", 5, breaks),
    Step("odd.last", 5, process),
]
