"""What a detector finds of what it was not trained on: the same head again, without a kind or a source.

Each kind of fake and each dataset is left out of training once, and scored by the head that has not
seen it. From these scores follow the table `kinds` of a checkpoint, where `nothing found` begins,
and a calibration of p_fake that holds for faces unlike those of training. No test face is read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from tqdm import tqdm

from data.feature_dataset import FeatureDataset
from evaluation.metrics import auc, interval, threshold_at_fpr
from features.pipeline import FeaturePipeline
from models.heads import Head, calibrate
from training.detector import Settings, head_on

LOG = logging.getLogger("masc")
FOLDS = 12  # refits for kinds, at most: with more kinds, several are left out together
FEW = 20  # real validation faces of a dataset; with fewer, groups that train are left out, too
TURNS = 3  # a third of them at a time
REPLICATES = 200  # of the bootstrap
MISSED = 0.25  # of the fakes of a kind left out, on average: so many may get `nothing found`
TIMES = 2  # real faces get it so many times as often as such fakes, or it would mean nothing
LEVELS = np.arange(1, 20) / 20  # shares of real validation faces that may get it


@dataclass(frozen=True)
class Scored:
    """Faces of one kind or dataset, and p_fake by a head fitted without it.

    left_out: "method", "dataset", or "" where the head has seen others of the kind. real: p_fake of
    the validation faces that the threshold was set on; fresh: whether the real faces are no such.
    """

    kind: str
    left_out: str
    label: np.ndarray  # (N,)
    p_fake: np.ndarray  # (N,)
    group: np.ndarray  # (N,)
    threshold: float
    real: np.ndarray
    fresh: bool

    def below(self, label: int) -> np.ndarray:
        """Share of the faces of a label that would get `nothing found`, at each of LEVELS."""
        edges = [clear_below(self.real, level, self.threshold) for level in LEVELS]
        return (self.p_fake[self.label == label] < np.array(edges)[:, None]).mean(1)

    def row(self, level: float) -> dict:
        """An entry of a checkpoint's `kinds`. level: as of `Record`."""
        fakes, reals = (self.p_fake[self.label == label] for label in (1, 0))
        edge = clear_below(self.real, level, self.threshold)
        both, alarms = len(fakes) and len(reals), self.fresh and len(reals)
        data = (self.label, self.p_fake, self.group) if both else ((), (), ())
        return {
            "kind": self.kind,
            "left_out": self.left_out,
            "fakes": len(fakes),
            "reals": len(reals),
            "auc": interval(auc, *data, REPLICATES),
            "found": int((fakes >= self.threshold).sum()),
            "nothing_found": int((fakes < edge).sum()),
            "false_alarms": int((reals >= self.threshold).sum()) if alarms else None,
        }


def clear_below(real: np.ndarray, level: float, threshold: float) -> float:
    """p_fake below which a share of at most `level` of real validation faces lies; 0 for none."""
    if not level:
        return 0.0
    ordered = np.sort(real)
    return float(min(ordered[int(level * len(ordered))], threshold))


@dataclass(frozen=True)
class LeftOut:
    """What follows for the detector itself.

    level: share of real validation faces that get `nothing found`, 0 none; fakes, reals: shares of
    left-out faces that would get it, means over the rows; a, b: the logit of p_fake becomes a times
    it plus b.
    """

    rows: list[dict]
    level: float
    fakes: float
    reals: float
    a: float = 1.0
    b: float = 0.0

    @classmethod
    def of(cls, parts: Sequence[Scored]) -> LeftOut:
        level, *shares = level_of(parts)
        rows = [part.row(level) for part in parts]
        return cls(rows, level, *shares, *_calibration(parts))

    @property
    def calibrated_on(self) -> str:
        """Of which faces `a` and `b` are, as an addition to a sentence; "" where they do nothing."""
        return ", then kinds and datasets left out" * ((self.a, self.b) != (1.0, 0.0))

    def carried(self, real: np.ndarray, threshold: float) -> dict:
        """What a checkpoint carries. real: p_fake of its real validation faces."""
        edge = clear_below(real, self.level, threshold)
        clear = {"p_fake": edge, "level": self.level, "fakes": self.fakes, "reals": self.reals}
        return {"kinds": self.rows, "nothing_found": clear}


def level_of(parts: Sequence[Scored]) -> tuple[float, float, float]:
    """The highest of LEVELS at which `nothing found` means something; shares of fakes and reals."""
    with_fakes = [part.below(1) for part in parts if (part.label == 1).any()]
    reals = [part for part in parts if (part.label == 0).any()]
    reals = [part.below(0) for part in reals if part.fresh] or [part.below(0) for part in reals]
    if not with_fakes or not reals:
        return 0.0, 0.0, 0.0
    missed, clear = np.mean(with_fakes, 0), np.mean(reals, 0)
    fits = np.flatnonzero((missed <= MISSED) & (clear >= TIMES * missed) & (clear > 0))
    if not len(fits):
        return 0.0, 0.0, 0.0
    return float(LEVELS[fits[-1]]), float(missed[fits[-1]]), float(clear[fits[-1]])


def _calibration(parts: Sequence[Scored]) -> tuple[float, float]:
    """Platt's a and b on the logits of what was left out; each label of each part counts alike."""
    parts = [x for x in parts if x.left_out and {0, 1} <= set(x.label.tolist())]
    if not parts:
        return 1.0, 0.0
    weights = [1 / np.bincount(part.label)[part.label] for part in parts]
    p_fake = np.concatenate([part.p_fake for part in parts]).clip(1e-9, 1 - 1e-9)
    labels = np.concatenate([part.label for part in parts])
    return calibrate(logit(p_fake), labels, np.concatenate(weights))


def kinds_of(faces: FeatureDataset) -> np.ndarray:
    """(N,) the kind of each fake: its method, or what stands in it before a colon; else ""."""
    methods = faces.rows["method"].astype(str).tolist()
    kinds = np.array([method.partition(": ")[0] for method in methods], dtype=object)
    return np.where(faces.rows["label"] == 1, kinds, "")


def measure(
    train: FeatureDataset, val: FeatureDataset, outputs: dict, settings: Settings
) -> LeftOut | None:
    """Leave out every kind of fake, then every dataset; None without fakes.

    Where nothing can be left out, the validation faces of a head that has seen all are measured.
    """
    if not (train.rows["label"].any() or val.rows["label"].any()):
        return None
    bench = Bench.of(train, val, outputs, settings)
    parts = [*_without_kinds(bench), *_without_datasets(bench)]
    return LeftOut.of(parts or [*_on_validation(bench)])


@dataclass
class Bench:
    """Training and validation faces with their columns, (N, F); a head is fitted on some of them."""

    train: FeatureDataset
    val: FeatureDataset
    outputs: dict
    settings: Settings
    pipeline: FeaturePipeline
    x: np.ndarray
    x_val: np.ndarray

    @classmethod
    def of(
        cls, train: FeatureDataset, val: FeatureDataset, outputs: dict, settings: Settings
    ) -> Bench:
        """Raises: ValueError: as of `FeaturePipeline.fit`."""
        chosen = (settings.drop, settings.only, settings.seed)
        real, group = train.rows["label"] == 0, train.rows["group"]
        columns, pipeline = FeaturePipeline.fit(train.arrays, outputs, real, group, *chosen)
        values = columns.values, pipeline.transform(val.arrays).values
        known = [~np.isnan(x).all(1) for x in values]
        faces = [part.select(rows) for part, rows in zip((train, val), known, strict=True)]
        values = [x[rows] for x, rows in zip(values, known, strict=True)]
        return cls(*faces, outputs, settings, pipeline, *values)

    def head(self, keep: np.ndarray, keep_val: np.ndarray) -> tuple[Head, np.ndarray]:
        """A head without the other faces, and p_fake of the real validation faces kept, (K,).

        keep, keep_val: bool. Raises: ValueError: too few faces are left.
        """
        y, y_val = self.train.rows["label"][keep], self.val.rows["label"][keep_val]
        train = (self.x[keep], y, self.train.rows["group"][keep])
        head = head_on(self.pipeline, self.settings, train, (self.x_val[keep_val], y_val))
        reals = self.x_val[keep_val][y_val == 0]
        if not len(reals):
            raise ValueError("no real validation face is left")
        return head, head.p_fake(reals)


class Unseen(dict):
    """Dataset -> `whole` with experts that were trained without it, where there are such."""

    def __init__(self, whole: Bench) -> None:
        self.whole = whole

    def __missing__(self, dataset: str) -> Bench:
        parts = [part.unseen(dataset) for part in (self.whole.train, self.whole.val)]
        same = parts[0] is self.whole.train
        rest = self.whole.outputs, self.whole.settings
        return self.setdefault(dataset, self.whole if same else Bench.of(*parts, *rest))


@dataclass(frozen=True)
class Heads:
    """Each was fitted without the groups of one turn. Faces without a turn get the mean."""

    of: dict[int, tuple[Head, np.ndarray]]  # turn -> head, and p_fake of real validation faces

    @classmethod
    def fit(cls, bench: Bench, turn: np.ndarray, keep: np.ndarray, keep_val: np.ndarray) -> Heads:
        """turn: (N,) of `bench.train`, -1 for none. Raises: ValueError: too few faces are left."""
        turns = np.unique(turn[turn >= 0]).tolist() or [0]
        return cls({each: bench.head(keep & (turn != each), keep_val) for each in turns})

    @property
    def real(self) -> np.ndarray:
        return np.mean([real for _, real in self.of.values()], axis=0)

    def p_fake(self, x: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """x: (N, F); turn: (N,)."""
        by_turn = {each: head.p_fake(x) for each, (head, _) in self.of.items()}
        mean = np.mean([*by_turn.values()], axis=0)
        return np.select([turn == each for each in by_turn], [*by_turn.values()], mean)


def _without_kinds(whole: Bench) -> Iterator[Scored]:
    train, val = whole.train, whole.val
    kinds, kinds_val = kinds_of(train), kinds_of(val)
    names, turn = sorted({*kinds, *kinds_val} - {""}), _turns(train, val)
    unseen = Unseen(whole)
    folds = [names[i::FOLDS] for i in range(min(FOLDS, len(names)))]
    if whole.settings.one_class and names:  # no fake trains: one head has seen none of them
        folds = [names]
    for fold in tqdm(folds, unit="kind", desc="without a kind", disable=None, leave=False):
        out, out_val = np.isin(kinds, fold), np.isin(kinds_val, fold)
        try:
            homes = {*train.rows["dataset"][out], *val.rows["dataset"][out_val]}
            bench = unseen[homes.pop()] if len(homes) == 1 else whole
            heads = Heads.fit(bench, turn, ~out, ~out_val)
        except ValueError as error:
            LOG.info(f"left out    not {', '.join(fold)}: {error}")
            continue
        for name in fold:
            of, of_val = kinds == name, kinds_val == name
            home = [*train.rows["dataset"][of], *val.rows["dataset"][of_val]]
            of |= (turn >= 0) & (train.rows["label"] == 0) & np.isin(train.rows["dataset"], home)
            of_val |= (val.rows["label"] == 0) & np.isin(val.rows["dataset"], home)
            none = np.full(of_val.sum(), -1)
            x = np.concatenate([bench.x[of], bench.x_val[of_val]])
            turns = np.append(np.where(kinds[of] == "", turn[of], -1), none)
            p_fake = heads.p_fake(x, turns)
            parts = ((train, of), (val, of_val))
            yield _scored(name, "method", parts, p_fake, heads.real, whole.settings, fresh=False)


def _turns(train: FeatureDataset, val: FeatureDataset) -> np.ndarray:
    """(N,) of `train`: when the group of a face is left out, -1 for never.

    A fake is compared with real faces of its own source: those of others differ in other ways, too.
    Where few of these validate, those that train are left out, with the fakes of their groups.
    """
    turn, rng = np.full(len(train), -1), np.random.default_rng(0)
    group, real = train.rows["group"].astype(str), train.rows["label"] == 0
    for name in sorted({*train.rows["dataset"]}):
        own = train.rows["dataset"] == name
        known = (val.rows["label"] == 0) & (val.rows["dataset"] == name)
        groups = np.unique(group[own & real])
        if known.sum() >= FEW or len(groups) < TURNS:
            continue
        for each, at in zip(groups, rng.permutation(np.arange(len(groups)) % TURNS), strict=True):
            turn[own & (group == each)] = at
    return turn


def _without_datasets(bench: Bench) -> Iterator[Scored]:
    """The columns are fitted anew: they are relations within real faces."""
    train, val = bench.train, bench.val
    names = sorted({*train.rows["dataset"], *val.rows["dataset"]})
    names = names if len(names) > 1 else []
    for name in tqdm(names, unit="set", desc="without a dataset", disable=None, leave=False):
        out, out_val = train.rows["dataset"] == name, val.rows["dataset"] == name
        try:
            seen = [part.unseen(name) for part in (train, val)]
            rest = (seen[0].select(~out), seen[1].select(~out_val), bench.outputs, bench.settings)
            less = Bench.of(*rest)
            head, real = less.head(*(np.full(len(part), True) for part in (less.train, less.val)))
        except ValueError as error:
            LOG.info(f"left out    not {name}: {error}")
            continue
        parts, columns = [], []
        for faces in (seen[0].select(out), seen[1].select(out_val)):
            x = less.pipeline.transform(faces.arrays).values
            known = ~np.isnan(x).all(1)
            parts.append((faces, known))
            columns.append(x[known])
        p_fake = head.p_fake(np.concatenate(columns))
        yield _scored(name, "dataset", parts, p_fake, real, bench.settings, fresh=True)


def _on_validation(bench: Bench) -> Iterator[Scored]:
    """By kind, or by dataset where no kind is known."""
    val, kinds = bench.val, kinds_of(bench.val)
    head, real = bench.head(*(np.full(len(part), True) for part in (bench.train, val)))
    kinds = np.where(kinds == "", val.rows["dataset"], kinds)
    for name in sorted(set(kinds[val.rows["label"] == 1])):
        rows = (val.rows["label"] == 0) | (kinds == name)
        p_fake = head.p_fake(bench.x_val[rows])
        yield _scored(name, "", [(val, rows)], p_fake, real, bench.settings, fresh=False)


def _scored(
    kind: str,
    left_out: str,
    parts: Sequence[tuple[FeatureDataset, np.ndarray]],
    p_fake: np.ndarray,
    real: np.ndarray,
    settings: Settings,
    fresh: bool,
) -> Scored:
    """parts: faces and which of them; p_fake: of these."""
    label, group = (
        np.concatenate([faces.rows[name][rows] for faces, rows in parts])
        for name in ("label", "group")
    )
    threshold = threshold_at_fpr(real, settings.fpr)
    return Scored(kind, left_out, label, p_fake, group, threshold, real, fresh)
