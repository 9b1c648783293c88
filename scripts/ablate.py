"""Which families of experts carry the detector? One detector for every subset of them, on faces it was not trained on.

The newest dump below outputs/features:
    python -m scripts.ablate
Two datasets together, another classifier, no person on both sides of a split, raw columns only:
    python -m scripts.ablate --features outputs/features/dfdc/lite outputs/features/openforensics/lite
    python -m scripts.ablate --head xgboost --identity-disjoint --drop expected

The families: attributes, identities, vision_language, expressions, traces (features/columns.py). A row is what `train.py --only
FAMILY ...` fits on train and calibrates on val (on held-out training groups where val is small); test is only scored. There
is no --only here: its groups add up, and `raw` beside `identities` would keep the raw columns of all families. --drop says
what no row may see. Writes table.md, ablation.png and, after each row, results.json, from where the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from data.dump import newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.files import write_json
from data.splits import identity_disjoint, train_and_val
from features.columns import FAMILIES, groups_of, raw_features, select
from features.expectations import expected_names
from models.classifiers import KINDS
from train import Config
from training.detector import figures, fit

COLOURS = np.array(
    ["#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00"]
)  # Okabe-Ito: of one family, two, and so on
COUNTS = "{real} real and {fake} fake frames in {groups} groups"
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "xgboost")


def subsets(
    faces: FeatureDataset, outputs: dict, drop: tuple[str, ...], remarks: list[str]
) -> dict[str, tuple[str, ...]]:
    """Of families with a column that `drop` leaves and an answer about a real face. remarks: what is in none. Raises: ValueError
    where there is no such family, or for an unknown group in `drop`."""
    real = faces.rows["label"] == 0
    names = raw_features({name: value[:1] for name, value in faces.arrays.items()}, outputs).names
    kept = {name.partition("/")[0] for name in select(names + expected_names(outputs), drop)}
    groups = {
        x: groups_of(f"{x}/")
        for x in outputs
        if x in kept and np.isfinite(faces.arrays[x][real]).any()
    }
    families = [family for family in FAMILIES if any(family in found for found in groups.values())]
    if not families:
        raise ValueError(
            f"no column of {', '.join(FAMILIES)} is left; the dumps have {', '.join(outputs)}"
        )
    if missing := [family for family in FAMILIES if family not in families]:
        remarks.append(
            f"no column of {', '.join(missing)}: {2 ** len(families) - 1} rows instead of {2 ** len(FAMILIES) - 1}"
        )
    if strays := [name for name, found in groups.items() if found.isdisjoint(FAMILIES)]:
        remarks.append(f"in no family, so in no row: {', '.join(strays)}")
    return {
        " + ".join(x): x for size in range(len(families)) for x in combinations(families, size + 1)
    }


def begun(path: Path, results: dict) -> dict[str, dict]:
    """The rows of an earlier run with the same settings. Raises: ValueError where `path` holds something else."""
    try:
        found = (
            json.loads(path.read_text(encoding="utf-8"))
            if path.exists()
            else {**results, "rows": {}}
        )
        there, here = (
            {**every["config"], "versions": every["versions"]} for every in (found, results)
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path}: not written by this script; choose another --out, or --overwrite it"
        ) from None
    if changes := [
        f"{key} {there.get(key)} there, {here[key]} now"
        for key in here
        if here[key] != there.get(key)
    ]:
        raise ValueError(
            f"{path}: other settings: {'; '.join(changes)}. --overwrite it, or choose another --out"
        )
    return found["rows"]


def fitted(
    parts: tuple[FeatureDataset, FeatureDataset, FeatureDataset], outputs: dict, config: Config
) -> dict:
    """One row: fitted on the first part, validated on the second, scored on the third. One that fails says why."""
    row = {"families": list(config.only), "columns": 0, "figures": {}, "notes": []}
    try:
        with (
            redirect_stdout(None),
            threadpool_limits(1, "blas"),
        ):  # matrices are small: more threads only wait
            checkpoint, report = fit(*parts[:2], outputs, config, row["notes"])
    except ValueError as error:
        return row | {"notes": [f"failed, {error}"]}
    row |= {
        "columns": len(checkpoint.info["features"]),
        "threshold": checkpoint.info["threshold"],
        "choice": report,
    }
    found = figures(checkpoint, parts[2], "test", config.seed)
    return row | {
        "figures": {name.removesuffix(" test"): summary for name, summary in found.items()}
    }


def cell(found: dict | None, counts: dict[str, int]) -> str:
    """AUC and interval, and the number of frames where some have no score."""
    if not found or found["auc"]["value"] is None:
        return "n/a"
    value, low, high = ("n/a" if x is None else f"{x:.3f}" for x in found["auc"].values())
    some = f" of {found['n']} frames" if found["n"] < counts["real"] + counts["fake"] else ""
    return f"{value} ({low}-{high}){some}"


def markdown(results: dict) -> str:
    """table.md, from what is in results.json."""
    rows, tested = results["rows"], results["counts"]["test"]
    lines = [["families", "columns", *(f"{dataset}, AUC (95%)" for dataset in tested)]]
    for name, row in rows.items():
        lines.append(
            [name, str(row["columns"]), *(cell(row["figures"].get(x), tested[x]) for x in tested)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    table = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    parts = {x: results["counts"][x] for x in ("train", "val")} | {
        f"test, {x}": tested[x] for x in tested
    }
    notes = [f"{name}: {note}" for name, row in rows.items() for note in row["notes"]]
    remarks = [
        *(f"{part}: {COUNTS.format(**counts)}" for part, counts in parts.items()),
        *results["remarks"],
        *notes,
    ]
    return "\n".join([*table, "", *(f"- {remark}" for remark in remarks)]) + "\n"


def draw(results: dict, path: Path) -> None:
    """A panel per dataset; a bar per row, from chance (0.5) to its AUC, and the interval on it."""
    from matplotlib.figure import (
        Figure,
    )  # without pyplot there is no screen to open: PNG is drawn by Agg

    rows, tested = results["rows"], results["counts"]["test"]
    sizes = np.array([len(row["families"]) for row in rows.values()])
    places = np.arange(len(rows)) + 0.6 * sizes  # a gap before more families
    figure = Figure((4.2 + 5 * len(tested), 1.8 + 0.36 * places[-1]), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(tested), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (dataset, counts) in zip(axes, tested.items(), strict=True):
        found = [row["figures"].get(dataset) for row in rows.values()]
        aucs = np.array(
            [list(x["auc"].values()) if x else [None] * 3 for x in found], dtype=float
        )  # value, low, high
        axis.barh(places, aucs[:, 0] - 0.5, left=0.5, color=COLOURS[sizes - 1], alpha=0.8)
        axis.plot(aucs[:, 1:].T, [places, places], "|-", color="black", markersize=8)
        axis.axvline(0.5, color="black", linewidth=1)
        axis.secondary_yaxis("right").set_yticks(places, [cell(x, counts) for x in found])
        axis.set_xlabel("AUC on single frames, 95% interval by group")
        axis.set_title(f"{dataset}, test: {COUNTS.format(**counts)}", fontsize=10, parse_math=False)
    axes[0].set_yticks(places, [name.replace("_", " ") for name in rows])
    axes[0].set(xlim=(None, 1), ylim=(places[-1] + 0.8, places[0] - 0.8))
    figure.savefig(path)


def main(config: Config, overwrite: bool = False) -> Path:
    """Every row that is not there yet, then table and picture. Returns: the folder they are in. config: of train.py; each row
    sets its own `only`. overwrite: begin anew, whatever is there. Raises: FileNotFoundError, ValueError for unusable input."""
    if config.seed < 0:
        raise ValueError(f"--seed is at least 0 (given: {config.seed})")
    paths = {Path(path).resolve(): path for path in config.features or (newest_dump(),)}
    dumps = [read_dump(path) for path in paths.values()]
    faces, outputs, people = (
        join_dumps(dumps),
        dumps[0].meta["outputs"],
        "people may recur across splits",
    )
    if config.identity_disjoint:
        faces = identity_disjoint(faces)
        people = f"people apart, {(faces.rows['split'] == '').sum()} frames left out"
    without = f"without {', '.join(config.drop)}" if config.drop else "all columns"
    remarks = [
        f"{config.kind}, seed {config.seed}, {without}; {people}; nothing is chosen or calibrated on test"
    ]
    remarks.append(
        "figures are on single frames, not on videos, with 95% bootstrap intervals by group"
    )
    test = faces.split("test")
    tested = {
        x: test.select(test.rows["dataset"] == x).counts() for x in sorted({*test.rows["dataset"]})
    }
    if not tested:
        raise ValueError("none of these dumps has a test split")
    tested |= {"all": test.counts()} if len(tested) > 1 else {}
    fitting, val = train_and_val(faces, remarks, config.one_class)
    wanted = subsets(fitting, outputs, config.drop, remarks)
    sha256 = {
        str(path): hashlib.sha256((path / "meta.json").read_bytes()).hexdigest() for path in paths
    }
    options = {
        name: value
        for name, value in asdict(config).items()
        if name not in ("features", "only", "name", "out")
    }
    results = {
        "config": {
            "dumps": sha256,
            "weights": dumps[0].meta["weights"],
            **options,
            "drop": sorted(config.drop),
        },
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
        "counts": {"train": fitting.counts(), "val": val.counts(), "test": tested},
        "remarks": remarks,
    }
    out = config.out or Path("outputs/ablations") / "-".join(
        [*sorted({*faces.rows["dataset"]}), config.kind]
    )
    rows = results["rows"] = {} if overwrite else begun(out / "results.json", results)
    print(
        f"features    {', '.join(map(str, paths.values()))}{'' if config.features else ' (the newest dump)'}"
    )
    print(
        f"subsets     {len(wanted)}, of which {len(rows)} are done\nout         {out}", flush=True
    )
    out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(
        [x for x in wanted if x not in rows], desc="subsets", initial=len(rows), total=len(wanted)
    ):
        rows[name] = fitted((fitting, val, test), outputs, replace(config, only=wanted[name]))
        write_json(out / "results.json", results)
    if not any(row["figures"] for row in rows.values()):
        raise ValueError(
            f"no detector could be fitted and scored: {'; '.join(rows[next(iter(rows))]['notes'])}"
        )
    text = markdown(results)
    (out / "table.md").write_text(text, encoding="utf-8")
    draw(results, out / "ablation.png")
    print(f"\n{text}\nwritten: {out}")
    return out


def cli() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features", nargs="+", type=Path, default=(), metavar="DUMP", help="default: the newest"
    )
    parser.add_argument(
        "--head", choices=[kind for kind in KINDS if kind != "oneclass"], default=Config.head
    )
    parser.add_argument(
        "--drop",
        nargs="+",
        default=(),
        metavar="GROUP",
        help="columns that no row sees: expected, kl",
    )
    parser.add_argument(
        "--identity-disjoint", action="store_true", help="join groups of one person, split anew"
    )
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument(
        "--out", type=Path, help="a folder (default: outputs/ablations/<datasets>-<head>)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew, whatever rows are there"
    )
    args = vars(parser.parse_args())
    args |= {name: tuple(args[name]) for name in ("features", "drop")}
    try:
        main(overwrite=args.pop("overwrite"), config=Config(**args))
    except (OSError, ValueError) as error:
        print(f"scripts.ablate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
