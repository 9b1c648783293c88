"""A face with features has a score, whatever else is in its outputs."""

import warnings

import numpy as np
import pytest

from inference.scorer import Scorer
from models.checkpoint import LITE, Checkpoint

ODD = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 0, 65504, -1, 1e20]


@pytest.fixture(scope="module")
def scorer():
    return Scorer(Checkpoint.load(LITE))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("share", [0.001, 0.1, 1])
def test_infinite_and_huge_outputs_are_missing_ones(scorer, kind, share):
    """As in a dump, which holds float16; and without a warning of numpy."""
    rng = np.random.default_rng(0)
    arrays, stored = {}, {}
    for name, output in scorer.pipeline.outputs.items():
        values = rng.random((4, 8, output["size"]))
        odd = rng.random(values.shape) < share
        values[odd] = rng.choice(ODD, odd.sum())
        with warnings.catch_warnings(action="ignore"):
            arrays[name], stored[name] = values.astype(kind), values.astype(np.float16)
    with warnings.catch_warnings(action="error"):
        features, p_fake = scorer.score(arrays)
    assert np.array_equal(np.isnan(p_fake), np.isnan(features).all(1))
    assert not np.isinf(features).any()
    assert np.array_equal(np.isnan(features), np.isnan(scorer.score(stored)[0]))


def test_a_head_whose_scores_are_not_finite_is_refused(scorer):
    found = Checkpoint.load(LITE)
    found.arrays["head.model.b1"] = np.float32(np.nan)
    with pytest.raises(
        ValueError, match=r"checkpoint\.json: the mlp head gives scores that are not"
    ):
        Scorer(found)
