"""Which systems are tried in which experiments, and what else is found out while a fitted one is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

from data.degrade import FAMILIES, conditions
from data.dump import Dump
from data.feature_dataset import FeatureDataset
from evaluation import systems
from evaluation.inspect import importance
from evaluation.protocols import (
    SIZES,
    Experiment,
    datasets_of,
    experiments_of,
    few_shot,
    sanity,
    slug,
)
from evaluation.robustness import curves, degraded_faces
from evaluation.systems import MASC, Fitted, System, without_fakes
from features.columns import raw_features, select
from features.expectations import expected_names
from models.checkpoint import Checkpoint
from training.detector import Settings as Training

PROTOCOLS = ("given", "together", "people", "methods")
PERMUTATIONS = 10
SEEDS = 3  # draws of every few-shot size


@dataclass(frozen=True)
class Config:
    """What to evaluate.

    features: dumps. training: settings of MASC and of the thresholds. checkpoint: a detector that is measured as it is, beside
    the refits. protocols: of evaluation/protocols.py. networks: of evaluation/pixel_baselines.py. families: of data/degrade.py.
    limit: degraded test pictures per dataset at most. roots: dataset -> folder of its pictures, where that has moved.
    """

    features: tuple[Path, ...]
    training: Training = field(default_factory=Training)
    checkpoint: Path | None = None
    protocols: tuple[str, ...] = PROTOCOLS
    ablations: bool = True
    few_shot: bool = True
    permutations: int = PERMUTATIONS
    networks: tuple[str, ...] = ()
    quick: bool = not torch.cuda.is_available()
    families: tuple[str, ...] = ()
    limit: int | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    weights_dir: Path | None = None
    replicates: int = 1000
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


Plan = list[tuple[Experiment, list[System]]]


def planned(
    config: Config,
    faces: FeatureDataset,
    dumps: Sequence[Dump],
    checkpoint: Checkpoint | None,
    networks: Path,
) -> Plan:
    """Every experiment with its systems. networks: where fitted ones are kept. Raises: ValueError where nothing can be tried."""
    outputs, training = dumps[0].meta["outputs"], config.training
    raw = raw_features({name: value[:1] for name, value in faces.arrays.items()}, outputs).names
    select(
        [*raw, *expected_names(outputs)], training.drop, training.only
    )  # said before anything takes long
    masc = systems.consistency(MASC, "masc", outputs, training)
    others = systems.baselines(outputs, training)
    less = systems.ablations(outputs, training) if config.ablations else []
    pixels = looking(config, dumps, networks)
    plan: Plan = []
    found = experiments_of(faces, config.protocols)
    for experiment in found:
        protocol = experiment.runs[0].protocol
        fitted = [masc, *others]
        if protocol == "in-dataset":
            fitted = [masc, *less, *others, *(pixels if experiment.name != "together" else ())]
        elif protocol == "identity-disjoint":
            fitted = [masc, *(system for system in less if without_fakes(system.name)), *others]
        alone = len(datasets_of(faces)) == 1 and protocol == "in-dataset"
        if checkpoint is not None and (experiment.name == "together" or alone):
            name = f"{MASC} as it is ({config.checkpoint.name})"
            fitted.insert(0, System(name, "masc", lambda *_: systems.of_checkpoint(checkpoint)))
        plan.append((experiment, fitted))
    given = [experiment for experiment in found if experiment.name in datasets_of(faces)]
    for experiment in given:
        plan += growth(experiment, [masc, *others]) if config.few_shot else []
        checked = sanity(experiment) if config.permutations else None
        if checked:
            taught = systems.consistency(
                MASC, "masc", outputs, replace(training, forgery_weight=0.0)
            )
            plan.append(
                (checked, [systems.permuted(taught, seed) for seed in range(config.permutations)])
            )
    check_names(plan)
    return plan


def check_datasets(config: Config, dumps: Sequence[Dump]) -> None:
    """Raises: ValueError where two dumps are of datasets of one name, or --data-root names one that no dump has."""
    found: dict[str, Path] = {}
    for dump in dumps:
        name = dump.meta["dataset"]
        if name in found:
            raise ValueError(
                f"{found[name]} and {dump.path} are both of a dataset called {name}, and their faces could not be told apart; "
                "evaluate them one after the other, or preprocess one from a folder of another name"
            )
        found[name] = dump.path
    if strange := sorted(set(config.roots) - set(found)):
        raise ValueError(
            f"--data-root names {', '.join(strange)}; the dumps are of {', '.join(found)}"
        )


def check_names(plan: Plan) -> None:
    """Raises: ValueError where two experiments, runs or systems would be written to one place."""
    places: dict[str, str] = {}
    for experiment, fitted in plan:
        wanted = {f"experiment {experiment.name}": experiment.name}
        for run in experiment.runs:
            wanted |= {
                f"{run.id}/{slug(system.name)}": f"{run.title} ({system.name})" for system in fitted
            }
        for place, title in wanted.items():
            if place.lower() in places:
                raise ValueError(
                    f"two parts of the report would be called {place}: {places[place.lower()]!r} and {title!r}; rename a dataset "
                    "(its dump's `dataset`, from the folder's name) or a method so that their letters and digits differ"
                )
            places[place.lower()] = title


def growth(experiment: Experiment, fitted: Sequence[System]) -> Plan:
    """The in-dataset run with few training faces, each size drawn SEEDS times."""
    plan: Plan = []
    for size in SIZES:
        for seed in range(SEEDS):
            smaller = few_shot(experiment, size, seed)
            if smaller is not None and smaller.runs:
                plan.append((smaller, list(fitted)))
    return plan


def networks_of(names: Sequence[str]) -> tuple[str, ...]:
    """`all`, or some of evaluation/pixel_baselines.py. Raises: ValueError for an unknown one."""
    if not names:
        return ()
    from evaluation.pixel_baselines import NETWORKS

    if unknown := [name for name in names if name not in {*NETWORKS, "all"}]:
        raise ValueError(
            f"unknown network {', '.join(unknown)}; the networks are {', '.join(NETWORKS)}"
        )
    return tuple(NETWORKS) if "all" in names else tuple(names)


def families_of(names: Sequence[str]) -> tuple[str, ...]:
    """`all`, or some of data/degrade.py. Raises: ValueError for an unknown one."""
    families = tuple(FAMILIES) if "all" in names else tuple(names)
    conditions(families)
    return families


def root_of(config: Config, dump: Dump) -> Path:
    return Path(config.roots.get(dump.meta["dataset"], dump.meta["data_root"]))


def looking(config: Config, dumps: Sequence[Dump], folder: Path) -> list[System]:
    """The networks that look at pixels. Imported late: without them, no network needs to be built."""
    if not config.networks:
        return []
    from evaluation.pixel_baselines import PixelCutter, network_system

    cut = PixelCutter({dump.meta["dataset"]: root_of(config, dump) for dump in dumps})
    settings = (
        config.device,
        config.training.fpr,
        config.training.seed,
        config.quick,
        config.weights_dir,
    )
    return [network_system(name, cut, folder, *settings) for name in config.networks]


def also(config: Config, dumps: Sequence[Dump]) -> Callable[[Experiment, System, Fitted], dict]:
    """What is found out while a system is in memory: what MASC leans on, and the curves of robustness.

    Degraded dumps are made here, before anything is fitted: what is wrong with the pictures is told at once.
    Raises: as evaluation.robustness.degraded_dump.
    """
    wanted = conditions(config.families)
    degraded = {}
    for dump in dumps if wanted else ():
        name, settings = dump.meta["dataset"], {"device": config.device}
        with tqdm(wanted, desc=f"{name}, degraded", unit=" conditions") as bar:
            degraded[name] = degraded_faces(
                dump, root_of(config, dump), bar, config.limit, settings
            )

    def find(experiment: Experiment, system: System, fitted: Fitted) -> dict:
        found: dict = {}
        run = next((run for run in experiment.runs if run.protocol == "in-dataset"), None)
        if run is None:
            return found
        if system.name == MASC and fitted.checkpoint is not None:
            found["importance"] = [
                {"run": run.id, "dataset": name, **entry}
                for name, test in run.tests.items()
                for entry in importance(fitted.checkpoint, test, config.training.seed)
            ]
        if fitted.checkpoint is not None:
            found["columns"] = len(fitted.checkpoint.info["features"])
        told = system.kind != "ablation" or without_fakes(system.name)
        if told and experiment.name in run.tests and experiment.name in degraded:
            clean, of = degraded[experiment.name]
            found["robustness"] = curves(clean, of, {system.name: fitted.p_fake}, experiment.name)
        return found

    return find
