"""Who is joined with whom, and who must not be."""

import numpy as np
import pytest

from features import people
from features.people import identity_groups, largest_share


def unit(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_faces_of_one_person_share_a_group():
    groups = identity_groups(unit(0, 10, 90, 180), ["a", "b", "c", "d"], np.ones(4, bool), threshold=0.9)
    assert groups == ["a", "a", "c", "d"]


def test_links_chain_and_given_groups_stay_together():
    embeddings = unit(0, 20, 40, 200, 140)
    groups = identity_groups(embeddings, ["c", "b", "a", "c", "d"], np.ones(5, bool), threshold=0.9)
    assert groups == ["a", "a", "a", "a", "d"]


def test_a_fake_goes_with_its_group_and_joins_nobody():
    embeddings = unit(0, 90, 90, 0)
    real = np.array([True, False, True, False])
    assert identity_groups(embeddings, ["a", "a", "b", "c"], real, threshold=0.9) == ["a", "a", "b", "c"]


def test_faces_without_a_group_stand_alone_and_lengths_do_not_matter():
    embeddings = unit(0, 0, 90, 180) * np.array([[1.0], [50.0], [1.0], [1.0]])
    groups = identity_groups(embeddings, ["", "", "", ""], np.ones(4, bool), threshold=0.9)
    assert groups[0] == groups[1] and len(set(groups)) == 3


def test_missing_embeddings_join_nobody():
    embeddings = unit(0, 0, 0, 0)
    embeddings[1], embeddings[2] = np.nan, 0
    assert identity_groups(embeddings, list("abcd"), np.ones(4, bool), threshold=0.9) == ["a", "b", "c", "a"]


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    look = rng.normal(size=(40, 32))
    embeddings = look[rng.integers(0, 40, 300)] + 0.3 * rng.normal(size=(300, 32))
    names = [f"{row:03d}" for row in range(300)]
    whole = identity_groups(embeddings, names, np.ones(300, bool), threshold=0.7)
    monkeypatch.setattr(people, "BLOCK", 7)
    assert identity_groups(embeddings, names, np.ones(300, bool), threshold=0.7) == whole
    assert len(set(whole)) == 40


def test_the_largest_share_betrays_chaining():
    assert largest_share(["a", "b", "a", "a"]) == pytest.approx(0.75)
