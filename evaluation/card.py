"""A report's figures as plain text for a model card or a page of the documentation: all that matters, without pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from evaluation.metrics import aligned, short, table
from evaluation.systems import MASC

UNTOLD = ("sanity",)  # protocols of which the remarks tell


def for_card(data: Mapping) -> str:
    """Markdown. data: what is in results.json."""
    parts = [
        _run(run, level)
        for run in data["runs"]
        if run["protocol"] not in UNTOLD
        for level in ("frame", "video")
    ]
    parts.append(_delong(data["runs"]))
    parts += [
        _robustness(data["robustness"]),
        _few_shot(data["few_shot"]),
        _importance(data),
        _gaps(data["subgroups"]),
    ]
    remarks = [
        *data["remarks"],
        *dict.fromkeys(remark for run in data["runs"] for remark in run["remarks"]),
    ]
    notes = [
        f"{system['name']} ({run['title']}): {system['note']}"
        for run in data["runs"]
        for system in run["systems"]
        if system["kind"] == "baseline" and system["note"] and run["protocol"] == "in-dataset"
    ]
    listed = "\n".join(f"- {text}" for text in [*remarks, *notes])
    return "\n\n".join(
        [part for part in parts if part] + ([f"### Remarks\n\n{listed}"] if listed else [])
    )


def block(title: str, text: str) -> str:
    return f"### {title[0].upper()}{title[1:]}\n\n```\n{text}\n```"


def _run(run: Mapping, level: str) -> str:
    """Every system on every test; ablations where the datasets train together or alone, not where they cross."""
    rows = {}
    for system in run["systems"]:
        for test in system["tests"]:
            if test["level"] == level and (
                system["kind"] != "ablation" or run["protocol"] == "in-dataset"
            ):
                rows[f"{system['name']}; {test['test']}"] = test["figures"]
    rows = {name: rows[name] for name in sorted(rows, key=lambda name: name.rpartition("; ")[2])}
    if not rows:
        return ""
    trained = f"{run['train']['real']} real and {run['train']['fake']} fake training faces"
    return block(f"{run['title']} ({run['protocol']}, {level}s; {trained})", table(rows))


def _delong(runs: Sequence[Mapping]) -> str:
    """MASC less each baseline, on frames, with DeLong's interval and p."""
    lines = [[f"AUC of {MASC} less that of", "difference", "95%", "p"]]
    for run in (run for run in runs if run["protocol"] not in (*UNTOLD, "cross-auc")):
        for system in (system for system in run["systems"] if system["kind"] == "baseline"):
            for test in system["tests"]:
                if test["level"] == "frame" and test["delong"]:
                    d = test["delong"]
                    p = "<.001" if d["p"] < 0.001 else short(d["p"])
                    interval = f"{d['low']:+.3f} to {d['high']:+.3f}"
                    lines.append(
                        [
                            f"{system['name']}; {run['id']}, {test['test']}",
                            f"{d['difference']:+.3f}",
                            interval,
                            p,
                        ]
                    )
    return (
        block(f"{MASC} against the baselines (DeLong's test)", aligned(lines))
        if len(lines) > 1
        else ""
    )


def _robustness(curves: Sequence[Mapping]) -> str:
    lines: list[list[str]] = [["", "family", "clean", *"12345", "slope", "faces", "lost at most"]]
    for curve in curves:
        points = {point["level"]: point for point in curve["points"]}
        at = [
            short(points[level]["auc"]["value"]) if level in points else "" for level in range(1, 6)
        ]
        lost = max((point["lost"] for point in points.values()), default=0)
        counted = next(iter(points.values()), {"n": 0, "lost": 0})
        slope = "n/a" if curve["slope"] is None else f"{curve['slope']:+.4f}"
        start = [
            f"{curve['system']}; {curve['dataset']}",
            curve["family"],
            short(curve["clean"]["value"]),
        ]
        lines.append([*start, *at, slope, str(counted["n"] + counted["lost"]), str(lost)])
    if len(lines) == 1:
        return ""
    title = "Robustness: AUC on frames at every level, over the faces still found; degraded before the face is looked for"
    return block(title, aligned(lines))


def _few_shot(points: Sequence[Mapping]) -> str:
    sizes = sorted({point["asked"] for point in points})
    lines = [["mean AUC on frames over the draws", *(f"{size} faces" for size in sizes)]]
    for dataset, system in _pairs(points, "dataset", "system"):
        mine = [
            point for point in points if (point["dataset"], point["system"]) == (dataset, system)
        ]
        row = [f"{system}; {dataset}"]
        for size in sizes:
            aucs = [point["figures"]["auc"]["value"] for point in mine if point["asked"] == size]
            row.append(short(sum(aucs) / len(aucs)) if aucs else "")
        lines.append(row)
    return block("Few training faces", aligned(lines)) if sizes else ""


def _importance(data: Mapping) -> str:
    """What MASC leans on: how much AUC each output is worth in the in-dataset runs."""
    lines = [["fall of the AUC on frames without it", "95%"]]
    for entry in data["importance"]:
        interval = "{low:+.3f} to {high:+.3f}".format(**entry["fall"])
        lines.append(
            [
                f"{entry['group']}; {entry['run']}, {entry['dataset']}",
                f"{entry['fall']['value']:+.3f}, {interval}",
            ]
        )
    return block(f"What {MASC} leans on", aligned(lines)) if len(lines) > 1 else ""


def _gaps(found: Sequence[Mapping]) -> str:
    lines = [["largest gap between two groups of people", "AUC", "FPR", "groups"]]
    for entry in found:
        gap, names = (
            entry["largest_gap"],
            [group["name"] for group in entry["groups"] if group["auc"]],
        )
        title = f"{entry['system']}; {entry['run']}, {entry['dataset']}: {entry['attribute']}"
        lines.append([title, short(gap["auc"]), short(gap["fpr"]), ", ".join(names)])
    return block("Groups of people", aligned(lines)) if len(lines) > 1 else ""


def _pairs(entries: Iterable[Mapping], *keys: str) -> list[tuple]:
    return list(dict.fromkeys(tuple(entry[key] for key in keys) for entry in entries))
