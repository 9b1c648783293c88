"""Predicting one region's outputs from another's: the residual is a consistency feature.

Ridge regression (Hoerl & Kennedy, Technometrics 1970), fitted on real faces, predicts each output
at region B from all outputs at region A. Distributions are compared as centred log-ratios
(Aitchison, JRSS B 1982), and all outputs as principal components over real faces. A fit remembers
the people it was fitted on: `cross_fit` gives every face a residual from a fit without its group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from features.columns import EXPECTED, INDEX, FeatureTable, check_outputs, finite, predictable
from features.measures import FLOOR, Arrays, Outputs, cosine
from features.regions import PAIRS, REGIONS

DIRECTIONS = tuple(direction for pair in PAIRS for direction in (pair, pair[::-1]))
ARROWS = tuple(f"{start}>{end}" for start, end in DIRECTIONS)
# At most; a distribution over D classes has D - 1, a scalar 1.
COMPONENTS = {"embedding": 48, "vector": 16}
RIDGE = 30.0  # in real faces: as many imaginary ones with independent regions
MIN_REALS = 20  # faces; a fit on fewer is noise


def expected_names(outputs: Outputs) -> list[str]:
    """The columns of `Expectations.residuals`, in order."""
    return [
        f"{name}/{measure}/{arrow}"
        for arrow in ARROWS
        for name, output in predictable(outputs).items()
        for measure in (EXPECTED if output["kind"] == "embedding" else EXPECTED[:1])
    ]


def _linear(values: np.ndarray, kind: str) -> np.ndarray:
    """Centred log-ratios of distributions; float32, NaN where not finite."""
    values = finite(values)
    if kind != "distribution":
        return values
    logs = np.log(np.maximum(values, FLOOR))
    return logs - logs.mean(-1, keepdims=True)


def _storable(values: np.ndarray) -> np.ndarray:
    """Rounded to float16, as checkpoints hold it: a reloaded fit gives the same bits."""
    return values.astype(np.float16).astype(np.float32)


@dataclass
class Expectations:
    """A fit on real faces; all outputs' components stand side by side, P = sum of k."""

    outputs: dict[str, dict]
    means: dict[str, np.ndarray]  # output -> (D,)
    bases: dict[str, np.ndarray]  # output -> (D, k) principal components of unit variance
    centres: np.ndarray  # (R, P) mean components of each region
    maps: dict[str, np.ndarray] = field(default_factory=dict)  # "A>B" -> (P, P), from A to B
    # "A>B/output" -> (k, k), residuals to unit covariance on real faces
    whiten: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fit(cls, arrays: Arrays, outputs: Outputs, rows: np.ndarray) -> Expectations:
        """Fit on real faces, of which those with a missing output are left out.

        rows: (N,) bool or indices of the real faces. Raises: ValueError: fewer than MIN_REALS.
        """
        check_outputs(arrays, outputs)
        linear = {
            name: _linear(arrays[name][rows], output["kind"]) for name, output in outputs.items()
        }
        missing = {name: np.isnan(values).any((1, 2)) for name, values in linear.items()}
        whole = ~np.any(list(missing.values()), axis=0)
        if whole.sum() < MIN_REALS:
            lacking = [f"{rows.sum()} lack {name}" for name, rows in missing.items() if rows.any()]
            raise ValueError(
                f"{whole.sum()} real faces with all outputs ({', '.join(lacking) or 'none lacks any'})"
                f"; expectations need {MIN_REALS}: add real faces, or use --drop expected"
            )
        means, bases, parts = {}, {}, []
        for name, values in linear.items():
            flat, kind = values[whole].reshape(-1, values.shape[2]), outputs[name]["kind"]
            means[name], bases[name] = _components(flat, kind)
            parts.append((values[whole] - means[name]) @ bases[name])
        scores = np.concatenate(parts, axis=2)
        centres = _storable(scores.mean(0))
        fitted = cls({name: dict(x) for name, x in outputs.items()}, means, bases, centres)
        fitted._fit_maps(scores - centres)
        return fitted

    def _fit_maps(self, scores: np.ndarray) -> None:
        """scores: (N, R, P), centred in each region."""
        from sklearn.covariance import OAS

        count, _, size = scores.shape
        # Oracle approximating shrinkage: Chen et al., IEEE Trans. SP 2010.
        shrinkage = OAS(store_precision=False, assume_centered=True)
        for start in REGIONS:
            x = scores[:, INDEX[start]].astype(np.float64)
            gram = x.T @ x
            factor = linalg.cho_factor(gram + RIDGE * np.eye(size))
            # Residuals grow outside the fit: Akaike's final prediction error (1969), with the
            # effective degrees of freedom of ridge (Hastie et al., ESL, eq. 3.50).
            freedom = np.trace(linalg.cho_solve(factor, gram)) + 1
            widen = np.sqrt((count + freedom) / max(count - freedom, 0.1 * count))
            for end in (end for first, end in DIRECTIONS if first == start):
                y, arrow = scores[:, INDEX[end]].astype(np.float64), f"{start}>{end}"
                self.maps[arrow] = _storable(linalg.cho_solve(factor, x.T @ y))
                residuals = (y - x @ self.maps[arrow]) * widen
                for name, columns in self._columns():
                    shrinkage.fit(residuals[:, columns])
                    values, vectors = np.linalg.eigh(shrinkage.covariance_)
                    scale = np.sqrt(np.maximum(values, 1e-6))
                    self.whiten[f"{arrow}/{name}"] = _storable(vectors / scale)

    def _columns(self) -> Iterator[tuple[str, slice]]:
        start = 0
        for name, basis in self.bases.items():
            yield name, slice(start, start + basis.shape[1])
            start += basis.shape[1]

    def residuals(self, arrays: Arrays) -> FeatureTable:
        """How far each face departs from its prediction, for every direction and output.

        `lite.age/expected/upper>lower` is the root mean square of the whitened residual, about 1 on
        unseen real faces; `lite.identity/expected_cos/upper>lower` the cosine of prediction and
        output, both relative to the mean real face. A missing output is NaN in its own columns, and
        counts as the mean real face's in the prediction of others.
        """
        check_outputs(arrays, self.outputs)
        parts = [
            (_linear(arrays[name], output["kind"]) - self.means[name]) @ self.bases[name]
            for name, output in self.outputs.items()
        ]
        scores = np.concatenate(parts, axis=2) - self.centres  # (N, R, P)
        filled, columns = np.nan_to_num(scores), []
        for (start, end), arrow in zip(DIRECTIONS, ARROWS, strict=True):
            found = scores[:, INDEX[end]]
            expected = filled[:, INDEX[start]] @ self.maps[arrow]
            for name, span in self._columns():
                white = (found[:, span] - expected[:, span]) @ self.whiten[f"{arrow}/{name}"]
                columns.append(np.sqrt((white**2).mean(1)))
                if self.outputs[name]["kind"] == "embedding":
                    columns.append(cosine(expected[:, span], found[:, span]))
        values = np.stack(columns, axis=1).astype(np.float32)
        return FeatureTable(expected_names(self.outputs), values)

    def state(self) -> dict[str, np.ndarray]:
        state = {"centres": self.centres}
        for table in ("means", "bases", "maps", "whiten"):
            state |= {f"{table}/{key}": value for key, value in getattr(self, table).items()}
        return {key: value.astype(np.float16) for key, value in state.items()}

    @classmethod
    def from_state(cls, outputs: Outputs, state: Arrays) -> Expectations:
        """What `state` came from. Raises: ValueError where it does not belong to `outputs`."""
        # The order of the outputs is the order of the columns of every map.
        keys = {"means": outputs, "bases": outputs, "maps": ARROWS}
        keys["whiten"] = [f"{arrow}/{name}" for arrow in ARROWS for name in outputs]
        wanted = {f"{table}/{key}" for table, entries in keys.items() for key in entries}
        if set(state) != wanted | {"centres"}:
            raise ValueError("expectations of other outputs or regions; train again")
        tables = {
            table: {key: state[f"{table}/{key}"].astype(np.float32) for key in entries}
            for table, entries in keys.items()
        }
        centres = state["centres"].astype(np.float32)
        return cls({name: dict(x) for name, x in outputs.items()}, centres=centres, **tables)


def _components(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and principal directions (D, k) of values (M, D), scaled to unit variance."""
    mean, size = _storable(values.mean(0)), values.shape[1]
    centred = values - mean
    variances, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred / len(values))
    wanted = min(COMPONENTS.get(kind, size), size - 1 if kind == "distribution" else size)
    # Directions without variance (fewer faces than components) would be noise.
    kept = max(1, min(wanted, int((variances > 1e-6 * variances[-1]).sum())))
    scale = np.sqrt(np.maximum(variances[-kept:], 1e-8))
    return mean, _storable((vectors[:, -kept:] / scale)[:, ::-1])


def _folds(groups: np.ndarray, real: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(N,) int: groups to folds in turn, those with most real faces first."""
    unique, codes = np.unique(groups, return_inverse=True)
    reals = np.bincount(codes, weights=real)
    order = np.random.default_rng(seed).permutation(len(unique))
    order = order[np.argsort(-reals[order], kind="stable")]
    fold_of = np.empty(len(unique), dtype=int)
    fold_of[order] = np.arange(len(unique)) % folds
    return fold_of[codes]


def cross_fit(
    arrays: Arrays,
    outputs: Outputs,
    real: np.ndarray,
    groups: Sequence[str],
    folds: int = 5,
    seed: int = 0,
) -> tuple[FeatureTable, Expectations]:
    """Residuals of all faces, each from a fit without its group, and the fit on all real faces.

    real: (N,) bool; groups: N names. Raises: ValueError: too few real faces or groups of them.
    """
    groups, real, outputs = np.asarray(groups), np.asarray(real, dtype=bool), predictable(outputs)
    people = len(np.unique(groups[real]))
    if people < 2:
        raise ValueError(
            f"the real training faces are of {people} group(s), and at least 2 are needed: add "
            "others, or say in the column `group` of index.csv what belongs together (empty where "
            "nothing does) and make the dump again; with many validation faces, --drop expected "
            "does without"
        )
    fitted = Expectations.fit(arrays, outputs, real)
    fold = _folds(groups, real, min(folds, people), seed)
    names = expected_names(outputs)
    values = np.empty((len(fold), len(names)), dtype=np.float32)
    for number in np.unique(fold):
        rows = fold == number
        without = Expectations.fit(arrays, outputs, real & ~rows)
        values[rows] = without.residuals({name: arrays[name][rows] for name in outputs}).values
    return FeatureTable(names, values), fitted
