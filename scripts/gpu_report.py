"""A visit's rows as Markdown: the table of its card for docs/performance.md.

python -m scripts.gpu_report outputs/gpu/visit.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu.worker import NEEDS_CUDA, read_rows

PROFILES = ("full", "lite")
GOALS = {"H100": {"full": 500, "lite": 3500}, "H200": {"full": 700, "lite": 5000}}  # faces/s
RATIO, TIMES, SHARE = 1.25, 10.0, 0.35  # to pure forwards, to the plain loop, of the peak


class Results:
    """Figures by step; of several rows of a step, the last that holds the figure."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows

    def of(self, step: str, key: str) -> object:
        found = [row[key] for row in self.rows if row["step"] == step and key in row]
        return found[-1] if found else None

    def ratio(self, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        upper, lower = self.of(*one), self.of(*other)
        return upper / lower if upper and lower else None

    def named(self, prefix: str) -> list[dict]:
        return [row for row in self.rows if row["step"].startswith(prefix)]


def number(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(number, cells))} |"


def head(*cells: str) -> list[str]:
    return [line(*cells), f"|{'---|' * len(cells)}"]


def goals(found: Results) -> list[str]:
    """What was aimed at, what came, and whether it is met."""
    card = str(found.of("machine", "card"))
    rates = next((rates for name, rates in GOALS.items() if name in card), {})
    rows = []
    for profile in PROFILES:
        rate = found.of(f"{profile}.files", "images_s")
        if rates:
            rows.append((f"`{profile}`, images/s from files", rates[profile], rate, True))
        sum_, end = (f"{profile}.forwards", "sum_ms_face"), (f"{profile}.files", "ms_face")
        rows.append(
            (f"`{profile}`, end to end over forwards", RATIO, found.ratio(end, sum_), False)
        )
        loop = (f"{profile}.plain", "images_s")
        times = found.ratio((f"{profile}.files", "images_s"), loop)
        rows.append((f"`{profile}`, end to end over the plain loop", TIMES, times, True))
    share = found.of("full.forwards", "share_of_peak")
    rows.append(("`full`, share of the matrix peak in its forwards", SHARE, share, True))
    lines = head("goal", "wanted", "found", "met")
    for name, wanted, value, more in rows:
        met = "not measured" if value is None else "no"
        if value is not None and (value >= wanted if more else value <= wanted):
            met = "yes"
        lines.append(line(name, f"{'at least' if more else 'at most'} {wanted}", value, met))
    return lines


def rates(found: Results) -> list[str]:
    def both(step: str, key: str) -> list[object]:
        return [found.of(f"{profile}.{step}", key) for profile in PROFILES]

    def stage(name: str) -> list[object]:
        return [(rates or {}).get(name) for rates in both("stages", "images_s")]

    table = {
        "end to end from files, images/s": both("files", "images_s"),
        "batch of it": both("files", "batch"),
        "GPU busy meanwhile": both("files", "gpu_busy"),
        "pictures in memory, images/s": both("pictures", "images_s"),
        "plain loop, images/s": both("plain", "images_s"),
        "forwards, best batch, faces/s": both("batches", "best_faces_s"),
        "that batch": both("batches", "best_batch"),
        "sum of the experts alone, ms/face": both("forwards", "sum_ms_face"),
        "arithmetic limit, faces/s": both("forwards", "limit_faces_s"),
        "share of the matrix peak": both("forwards", "share_of_peak"),
        "kernels' share of the time": both("profile", "kernel_share"),
        "--batch-size auto chooses": both("auto", "batch"),
        "and reaches, of the best": both("auto", "share_of_best"),
    }
    for name in ("decode", "find", "cut", "experts"):
        table[f"{name} alone, images/s"] = stage(name)
    measured = [(name, values) for name, values in table.items() if values != [None, None]]
    columns = head("", *(f"`{profile}`" for profile in PROFILES))
    return columns + [line(name, *values) for name, values in measured]


def experts(found: Results) -> list[str]:
    lines = head("expert", "ms/face", "GFLOP/face", "in the profile")
    for profile in PROFILES:
        times = found.of(f"{profile}.forwards", "ms_face") or {}
        giga = found.of(f"{profile}.forwards", "gflop_face") or {}
        lines += [line(name, ms, giga.get(name), f"`{profile}`") for name, ms in times.items()]
    return lines


def memory(found: Results) -> list[str]:
    lines = head("profile", "batch", "faces/s", "GiB used", "GiB reserved", "faces at once")
    for profile in PROFILES:
        for row in found.named(f"{profile}.batch"):
            if "faces_s" in row:
                keys = ("batch", "faces_s", "gib", "gib_reserved", "at_once")
                lines.append(line(f"`{profile}`", *(row.get(key) for key in keys)))
    return lines


def ways(found: Results) -> list[str]:
    lines = head("way", "expert", "ms/face", "eager", "gain", "differs by", "first call, s")
    for row in found.named("try."):
        if "gain" not in row:
            continue
        _, way, *name = row["step"].split(".")
        keys = ("ms_face", "eager_ms_face", "gain", "differs", "first_call_s")
        lines.append(line(way, name[0] if name else "all", *(row.get(key) for key in keys)))
    return lines


def correctness(found: Results) -> list[str]:
    lines = head("what", "found")
    for row in found.named("correct."):
        name = row["step"].partition(".")[2]
        if "above" in row:
            above = ", ".join(row["above"])
            lines.append(line(name, f"above the tests' tolerance: {above}" if above else "within"))
        elif "error" not in row:
            left = {k: v for k, v in row.items() if k not in ("t", "step", "s", "levels")}
            lines.append(line(name, ", ".join(f"{k} {number(v)}" for k, v in left.items())))
    return lines


def errors(rows: list[dict]) -> list[str]:
    """Steps that failed, other than that they need CUDA, and outputs that are too far apart."""
    found = [
        f"{row['step']}: {row['error']}"
        for row in rows
        if row.get("error", NEEDS_CUDA) != NEEDS_CUDA
    ]
    above = [(row["step"], ", ".join(row["above"])) for row in rows if row.get("above")]
    return found + [f"{step}: above the tests' tolerance: {names}" for step, names in above]


def report(rows: list[dict]) -> str:
    """Markdown; a part that no row speaks of is left out."""
    found = Results(rows)
    machine = next((row for row in rows if row["step"] == "machine"), {})
    left = {k: v for k, v in machine.items() if k not in ("t", "step", "s", "card", "date")}
    settings = ", ".join(f"{key} {number(value)}" for key, value in left.items())
    lines = [
        f"### {machine.get('card', 'unknown card')}, {machine.get('date', 'no date')}",
        "",
        settings,
    ]
    parts = {
        "Goals": goals(found),
        "Rates": rates(found),
        "Experts": experts(found),
        "Batches": memory(found),
        "Other ways": ways(found),
        "Correctness": correctness(found),
    }
    for title, part in parts.items():
        if len(part) > 2:
            lines += ["", f"{title}:", "", *part]
    if failed := errors(rows):
        lines += ["", "Failed:", "", *(f"- {each}" for each in failed)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("visit", type=Path, help="a visit.json")
    print(report(read_rows(parser.parse_args().visit)), end="")
