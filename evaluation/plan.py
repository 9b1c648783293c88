"""The plan of an evaluation: its options, its experiments and the systems fitted in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Literal, get_args

import torch
from tqdm import tqdm

from data.claims import datasets_with_people
from data.degrade import FAMILIES, Condition, conditions
from data.dump import Dump
from data.feature_dataset import FeatureDataset
from data.pictures import check_pictures
from evaluation import systems
from evaluation.inspect import importance
from evaluation.protocols import (
    DATASET,
    MIN_FACES,
    SIZES,
    SOURCE,
    Experiment,
    datasets_of,
    experiments_of,
    few_shot,
    permuted_labels,
    slug,
)
from evaluation.robustness import curves, degraded_faces
from evaluation.systems import ABLATION, MASC, ZERO_SHOT, Fitted, System
from features.columns import select
from models.checkpoint import Checkpoint
from training.detector import Settings

Protocol = Literal[
    "given", "together", "identity-disjoint", "manipulations", "left-out", "reference"
]
SEEDS = 3  # draws of every few-shot size
GPU = torch.cuda.is_available()


@dataclass(frozen=True)
class Config(Settings):
    """What to evaluate. Without a checkpoint, the options of train.py say how MASC is fitted."""

    features: tuple[Path, ...] = ()
    """Dumps (default: the newest)."""
    checkpoint: Path | None = None
    """A folder that train.py wrote, measured as it is and fitted again (default: the newest)."""
    no_checkpoint: bool = False
    """Fit with the options of train.py below; measure no checkpoint."""
    name: str | None = None
    """Name of the report, a folder in outputs/reports (default: the datasets)."""
    out: Path | None = None
    """The report's folder itself, instead of --name."""
    overwrite: bool = False
    """Begin anew, whatever report is there."""
    card: Path | None = None
    """A Markdown file whose figures are replaced."""
    protocols: tuple[Protocol, ...] = get_args(Protocol)
    """Which faces train and which test; those that the dumps do not allow are left out."""
    ablate: Literal["families", "subsets", "none"] = "families"
    """Families: with and without each family of experts; subsets: every subset of them."""
    few_shot: bool = True
    """Skip the runs with few training faces (100, 300, 1000, 3000)."""
    permutations: int = 10
    """Fits on permuted training labels, as a sanity check."""
    networks: tuple[str, ...] = ()
    """Networks on pixels: mesoinception4, ... or all that are fitted here; and published detectors
    as they are: gend, gend_pe, gend_dinov3, community_forensics, community_forensics_224, sahu65."""
    weights_dir: Path | None = None
    """Published weights of networks; nothing is downloaded (or MASC_WEIGHTS)."""
    full_size: bool = False
    """Networks as on a GPU, though there is none (days)."""
    robustness: tuple[str, ...] = ()
    """Families of degradations: jpeg, resize, ..., one level of them (jpeg:5), or all."""
    limit: int | None = None
    """Degraded test pictures per dataset, evenly spaced (default: all)."""
    data_root: tuple[str, ...] = ()
    """DATASET=DIR: where pictures lie that have moved."""
    replicates: int = 1000
    """Bootstrap draws for the intervals."""
    device: str = "cuda" if GPU else "cpu"
    """For networks and degraded dumps."""

    def check(self) -> None:
        if self.checkpoint and self.no_checkpoint:
            raise ValueError("--checkpoint and --no-checkpoint exclude each other")
        least = {"permutations": 0, "replicates": 2, "limit": 1}
        for name, smallest in least.items():
            if getattr(self, name) is not None and getattr(self, name) < smallest:
                raise ValueError(f"--{name} is at least {smallest}")
        if wrong := [pair for pair in self.data_root if not all(pair.partition("=")[::2])]:
            raise ValueError(f"--data-root takes DATASET=DIR, not {', '.join(wrong)}")
        conditions(self.degradations)
        self.network_names()

    @property
    def degradations(self) -> tuple[str, ...]:
        return tuple(FAMILIES) if "all" in self.robustness else self.robustness

    @property
    def quick(self) -> bool:
        return not GPU and not self.full_size

    @property
    def roots(self) -> dict[str, Path]:
        """Dataset -> folder of its pictures, where that has moved."""
        pairs = (pair.partition("=")[::2] for pair in self.data_root)
        return {name: Path(folder) for name, folder in pairs}

    def network_names(self) -> tuple[str, ...]:
        if not self.networks:
            return ()
        from evaluation.pixel_baselines import NETWORKS
        from evaluation.published import PUBLISHED

        known = (*NETWORKS, *PUBLISHED)
        if unknown := [name for name in self.networks if name not in {*known, "all"}]:
            raise ValueError(
                f"unknown network {', '.join(unknown)}; the networks are {', '.join(known)}"
            )
        groups = (NETWORKS if name == "all" else (name,) for name in self.networks)
        return tuple(dict.fromkeys(chain(*groups)))


Plan = list[tuple[Experiment, list[System]]]
# (experiment, system, fitted) -> rows of metrics.csv
Measure = Callable[[Experiment, System, Fitted], list[dict]]


def planned(
    config: Config,
    faces: FeatureDataset,
    dumps: Sequence[Dump],
    checkpoint: Checkpoint | None,
    networks: Path,
) -> Plan:
    """Every experiment with its systems. Raises: ValueError where dumps and options do not fit.

    Args:
        checkpoint: measured as it is, beside the refits.
        networks: folder of fitted networks.
    """
    check_datasets(config, dumps)
    if config.networks or config.robustness:
        check_pictures_of(config, dumps)
    outputs, names = dumps[0].meta["outputs"], datasets_of(faces)
    columns = systems.columns_of(faces, outputs)
    select(columns, config.drop, config.only)  # unknown groups are reported before any fit
    families = None
    if config.ablate == "subsets":
        families = systems.families_of(systems.usable_outputs(faces, outputs, config.drop))
    masc = systems.detector(MASC, systems.ENSEMBLE, outputs, config)
    less = systems.ablations(outputs, config, config.ablate, families)
    others = systems.baselines(outputs, config)
    beside = systems.for_left_out(outputs, config)
    pixels = network_systems(config, dumps, networks)
    required = not people_in(config, faces)
    experiments = experiments_of(faces, config.protocols, required)
    plan: Plan = []
    for experiment in experiments:
        own = experiment.in_dataset is not None
        joint = own and experiment.name not in names
        fitted = [masc, *others]
        if own:
            fitted = [masc, *less, *others, *([] if joint else pixels)]
        elif experiment.runs[0].protocol == "identity-disjoint":
            kept = [x for x in less if x.kind == ZERO_SHOT or config.ablate == "subsets"]
            fitted = [masc, *kept, *others]
        elif experiment.runs[0].protocol in (SOURCE, DATASET):
            fitted = [masc, *beside]
        if checkpoint is not None and own and (joint or len(names) == 1):
            name = f"{MASC}, checkpoint {config.checkpoint.name}"
            as_it_is = System(name, systems.ENSEMBLE, lambda *_: systems.of_checkpoint(checkpoint))
            fitted.insert(0, as_it_is)
        plan.append((experiment, fitted))
    permuted = systems.permuted_baseline(outputs, config)
    for experiment in (experiment for experiment in experiments if experiment.name in names):
        for size, seed in product(SIZES, range(SEEDS)) if config.few_shot else ():
            if smaller := few_shot(experiment, size, seed):
                plan.append((smaller, [masc, *others]))
        for seed in range(config.permutations):
            if checked := permuted_labels(experiment, seed):
                plan.append((checked, [permuted]))
    check_names(plan)
    return plan


def people_in(config: Config, faces: FeatureDataset) -> list[str]:
    """Datasets of the protocol `reference`: their test faces can be held against photographs."""
    if "reference" not in config.protocols:
        return []
    return datasets_with_people(faces.split("test").rows, MIN_FACES)


def check_datasets(config: Config, dumps: Sequence[Dump]) -> None:
    found: dict[str, Path] = {}
    for dump in dumps:
        name = dump.meta["dataset"]
        if name in found:
            raise ValueError(
                f"{found[name]} and {dump.path} are both of a dataset called {name}; evaluate "
                "them one after the other, "
                "or preprocess one from a folder of another name"
            )
        found[name] = dump.path
    if strange := sorted(set(config.roots) - set(found)):
        raise ValueError(
            f"--data-root names {', '.join(strange)}; the dumps are of {', '.join(found)}"
        )


def check_names(plan: Plan) -> None:
    """Refuse two experiments, runs or systems that would be written to one place."""
    places: dict[str, str] = {}
    for experiment, fitted in plan:
        named = [(f"experiment {experiment.name}", experiment.name)]
        for run, system in product(experiment.runs, fitted):
            named.append((f"{run.id}/{slug(system.name)}", f"{run.title} ({system.name})"))
        for place, title in named:
            if other := places.get(place.lower()):
                raise ValueError(
                    f"two parts of the report would be called {place}: {other!r} and {title!r}; rename a dataset (its "
                    "dump's `dataset`, from the folder's name) or a method so that their letters and digits differ"
                )
            places[place.lower()] = title


def root_of(config: Config, dump: Dump) -> Path:
    return Path(config.roots.get(dump.meta["dataset"], dump.meta["data_root"]))


def check_pictures_of(config: Config, dumps: Sequence[Dump]) -> None:
    """Raises: ValueError where pictures are not those any more in which the faces were found."""
    for dump in dumps:
        advice = "Preprocess them anew, or name the folder of the old ones with --data-root."
        check_pictures(dump, root_of(config, dump), advice)


def network_systems(config: Config, dumps: Sequence[Dump], folder: Path) -> list[System]:
    if not config.networks:
        return []
    from evaluation.pixel_baselines import PixelCutter, network_system
    from evaluation.published import PUBLISHED, published_system

    roots = {dump.meta["dataset"]: root_of(config, dump) for dump in dumps}
    cutter, weights = PixelCutter(roots), config.weights_dir
    about = (config.device, config.fpr, config.seed, config.quick, weights)
    return [
        published_system(name, roots, config.device, config.fpr, weights)
        if name in PUBLISHED
        else network_system(name, cutter, folder, *about)
        for name in config.network_names()
    ]


def degraded_tests(
    config: Config, dump: Dump, limit: int | None
) -> tuple[FeatureDataset, dict[Condition, FeatureDataset]]:
    """The test faces of a dump, and the same in every condition; made here, or read again."""
    name, settings = dump.meta["dataset"], {"device": config.device}
    wanted = conditions(config.degradations)
    with tqdm(wanted, desc=f"{name}, degraded", unit=" conditions") as bar:
        return degraded_faces(dump, root_of(config, dump), bar, limit, settings)


def measure(config: Config, dumps: Sequence[Dump]) -> Measure:
    """What needs a fitted system: number of columns, permutation importance, robustness.

    Degraded dumps are made here, before anything is fitted: problems are reported at once.
    """
    degraded = {
        dump.meta["dataset"]: degraded_tests(config, dump, config.limit)
        for dump in dumps
        if config.degradations
    }

    def rows_of(experiment: Experiment, system: System, fitted: Fitted) -> list[dict]:
        rows: list[dict] = []
        run, name = experiment.in_dataset, experiment.name
        if run is None:
            return rows
        if fitted.checkpoint is not None:
            rows.append({"metric": "columns", "value": len(fitted.checkpoint.info["features"])})
        if system.name == MASC and fitted.checkpoint is not None:
            for test, faces in run.tests.items():
                found = importance(fitted.checkpoint, faces, config.seed)
                rows += [{"test": test, **row} for row in found]
        wanted = system.degraded and system.kind != ABLATION
        if wanted and name in run.tests and name in degraded:
            found = curves(*degraded[name], fitted.p_fake)
            rows += [{"test": name, **row} for row in found]
        return [{"run": run.id, **row} for row in rows]

    return rows_of
