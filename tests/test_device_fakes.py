"""Pseudo-fakes made in batches: as those of the CPU, repeatable, and never waited for."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from data import degrade
from models.trace_net import CROP
from training import augment, device_augment, device_fakes, face_masks
from training import device_images as images
from training.aligned_crops import FACE_WIDTH, WIDE_CROP, AlignedCrops
from training.device_fakes import KINDS, DeviceFakes, Faces
from training.device_images import Draws
from training.device_masks import depth, fit, inverse, outline, soft_mask, transform
from training.pseudo_fakes import KINDS as ON_CPU
from training.pseudo_fakes import PseudoFakes, colour_transfer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SIDE = WIDE_CROP.px


def draws(seed: int = 0) -> Draws:
    return Draws(seed, 0, CPU)


def batch(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(pictures)[..., :3]).permute(0, 3, 1, 2).float()


def gap(found: Tensor, wanted: list[np.ndarray]) -> float:
    """Mean absolute difference in grey levels."""
    return float((found - batch(wanted)).abs().mean())


def test_pairs_alternate_and_repeat_for_a_seed(crops: AlignedCrops) -> None:
    fakes = PseudoFakes(crops)
    made = [
        DeviceFakes(fakes, 4, seed, CPU)[step] for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    ]
    faces, shares = made[0]
    assert faces.shape == (8, 3, 160, 160) and faces.dtype == torch.uint8
    assert shares.shape == (8, 20, 20) and shares.dtype == torch.float32
    assert all(torch.equal(*both) for both in zip(*made[:2], strict=True))
    assert not any(torch.equal(faces, other) for other, _ in made[2:])
    assert (shares[0::2] == 0).all() and (shares[1::2].amax((1, 2)) > 0.1).all()
    assert shares.max() <= 1


def test_several_steps_may_be_made_together(crops: AlignedCrops) -> None:
    made = DeviceFakes(PseudoFakes(crops), 2, 0, CPU, together=5)
    faces, shares = made.batch(3)
    assert len(faces) == len(shares) == 8
    for step in (6, 7, 6):
        part = slice(4 * (step % 2), 4 * (step % 2) + 4)
        assert torch.equal(made[step][0], faces[part]) and torch.equal(made[step][1], shares[part])
    assert not torch.equal(made[8][0], made[6][0])


def test_nothing_but_the_mask_distinguishes_a_pair(crops: AlignedCrops) -> None:
    """Without a channel, the real picture is seen through the window, and the fake around it."""
    made, (first, second) = DeviceFakes(PseudoFakes(crops), 6, 0, CPU), (draws(1), draws(1))
    rows, pair, mask = made.make(0, draws())
    alpha = made.faces.alpha(rows)
    faces, shares = made.seen(pair, alpha, mask, first)
    back = device_augment.random_windows(6, second)
    there = (pair[:, 0] * (alpha > 0)).permute(0, 2, 3, 1).byte().numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    windows = [
        cv2.warpAffine(image, view, (CROP.px,) * 2, flags=flags)
        for image, view in zip(there, back.double().numpy(), strict=True)
    ]
    assert gap(faces[0::2].float(), windows) < 0.3
    change = (faces[1::2].int() - faces[0::2].int()).abs().amax(1).float()
    change = change.unflatten(2, (20, 8)).unflatten(1, (20, 8)).amax((2, 4))  # of cells
    assert (change[shares[1::2] == 0] == 0).all() and (change[shares[1::2] > 0.5] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_change_faces_as_on_the_cpu(kind: str, crops: AlignedCrops) -> None:
    """The share of a face that is replaced, softness of the edge, change of the inside, and of the
    outside, which is the real picture's."""
    assert list(KINDS) == list(ON_CPU)
    count, rng, faces = 24, np.random.default_rng(0), Faces(crops, CPU)
    rows = faces.sample(draws(), count)
    real, fake, mask, failed = KINDS[kind](faces, rows, draws(1))
    assert real.shape == fake.shape == (count, 3, SIDE, SIDE) and failed.sum() < 4
    assert (real == real.round()).all() and (fake == fake.round()).all()
    assert mask.min() >= 0 and mask.max() <= 1
    assert ((fake - real) * (mask == 0) == 0).all()
    found = [mask.mean(), ((mask > 0.05) & (mask < 0.95)).float().mean()]
    found.append(((fake - real).abs() * mask).mean() / mask.mean())
    found.append((real - faces.rgb(rows)).abs().mean())
    made = []
    while len(made) < 60:
        index = crops.sample(rng)
        pair = ON_CPU[kind][1](crops, index, rng)
        if pair is not None:
            share, real = pair[2], pair[0].astype(float)
            change = np.abs(pair[1] - real).mean(-1)
            outer = np.abs(real - crops.images[index, ..., :3]).mean()
            soft = ((share > 0.05) & (share < 0.95)).mean()
            made.append((share.mean(), soft, (change * share).mean(), outer))
    area, edge, change, outer = np.mean(made, axis=0)
    assert [float(x) for x in found[:2]] == pytest.approx([area, edge], rel=0.4)
    assert 0.5 < found[2] / (change / area) < 2 and 0.5 < found[3] / outer < 2


def test_every_step_has_the_kinds_in_their_shares(crops: AlignedCrops, monkeypatch) -> None:
    """Those that would change too little are left out, or another one comes twice."""
    counts: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def counted(kind: str):
        def made(faces: Faces, rows: Tensor, _: Draws) -> device_fakes.Fake:
            counts[kind].append(len(rows))
            marks = torch.full((len(rows), 1, 2, 2), float(list(KINDS).index(kind)))
            faces = marks.expand(-1, 3, -1, -1)
            return faces, faces, marks, torch.full((len(rows),), kind in failing)

        return made

    failing: set[str] = set()
    monkeypatch.setattr(device_fakes, "KINDS", {kind: counted(kind) for kind in KINDS})
    made = DeviceFakes(PseudoFakes(crops), 16, 0, CPU)
    for step in range(50):
        rows, _, marks = made.make(step, draws(step))
        assert len(rows) == len(marks) == 16
    total = 16 + device_fakes.FEWEST
    for kind, (share, _) in ON_CPU.items():
        assert np.mean(counts[kind]) == pytest.approx(share * total, abs=0.25)
        assert max(counts[kind]) - min(counts[kind]) <= 1
    failing |= set(KINDS) - {"reconstruction"}
    assert (made.make(0, draws())[2] == 3).all()


def test_donors_are_similar_faces_of_all_datasets(crops: AlignedCrops) -> None:
    faces, first = Faces(crops, CPU), torch.zeros(200, dtype=torch.long)
    donors = faces.donors(first, draws())
    assert (donors != 0).all() and (donors == 1).float().mean() > 0.5
    mixed = Faces(replace(crops, sources=np.array(list("abab"))), CPU)  # now in the order 0 2 1 3
    assert 0.1 < (mixed.donors(first, draws()) == 2).float().mean() < 0.5
    assert torch.equal(mixed.images[1], Faces(crops, CPU).images[2])
    uneven = Faces(replace(crops, sources=np.array(list("abbb"))), CPU)
    assert (uneven.donors(first, draws()) != 0).all()
    assert 0.3 < (uneven.sample(draws(), 1000) == 0).float().mean() < 0.45


def test_outlines_are_those_of_the_cpu(crops: AlignedCrops) -> None:
    marks = torch.from_numpy(crops.landmarks).float()
    places = images.pixels(SIDE, CPU).expand(4, -1, -1, -1)
    stretch = np.array([0.9, 1.1])
    for part, name in enumerate(face_masks.OUTLINES):
        points = outline(
            torch.full((4,), part), marks, torch.from_numpy(np.tile(stretch, (4, 1))).float()
        )
        wanted = [face_masks.outline(name, each, stretch) for each in crops.landmarks]
        assert np.abs(points[:, : len(wanted[0])].numpy() - np.stack(wanted)).max() < 0.01
        inside = np.stack([face_masks.hull_mask(each, (SIDE, SIDE)) > 0 for each in wanted])
        found = (depth(points, places)[:, 0] > -0.5).numpy()
        assert (found != inside).sum() < 0.05 * inside.sum(), name


def test_masks_are_soft_and_lie_on_the_face(crops: AlignedCrops) -> None:
    marks = torch.from_numpy(crops.landmarks).float().repeat(10, 1, 1)
    masks, middles = soft_mask(marks, draws(), SIDE)[:, 0], marks.mean(1)
    assert masks.shape == (40, SIDE, SIDE) and masks.min() >= 0
    assert masks.amax((1, 2)) == pytest.approx(np.ones(40), abs=1e-4)
    assert ((masks > 0.05) & (masks < 0.95)).flatten(1).any(1).all()
    inside = (masks > 0.5).float()[..., None]
    centres = (images.pixels(SIDE, CPU) * inside).sum((1, 2)) / inside.sum((1, 2))
    assert (centres - middles).norm(dim=1).max() < 0.5 * FACE_WIDTH


def test_maps_are_least_squares_ones(crops: AlignedCrops) -> None:
    source, target = (torch.from_numpy(crops.landmarks[rows]).float() for rows in ([0, 2], [2, 0]))
    maps = fit(source, target)
    wanted = [face_masks.fit(*each) for each in zip(source.numpy(), target.numpy(), strict=True)]
    assert np.abs(maps.numpy() - np.stack(wanted)).max() < 0.01
    assert torch.allclose(transform(inverse(maps), transform(maps, source)), source, atol=0.01)


def test_operations_are_those_of_opencv(crops: AlignedCrops) -> None:
    pictures = [np.ascontiguousarray(image[..., :3]) for image in crops.images]
    x = batch(pictures)
    for quality in (20, 50, 97):
        found = images.jpeg(x, torch.full((4,), quality))
        wanted = [degrade.jpeg(picture, quality) for picture in pictures]
        assert gap(found, wanted) < 0.5
    for sigma in (0.3, 1.5, 3.0):
        found = images.blur(x, torch.full((4,), sigma))
        assert gap(found, [degrade.blur(picture, sigma) for picture in pictures]) < 0.1
    assert torch.equal(images.blur(x, torch.zeros(4)), x)
    sizes = torch.tensor([SIDE / 1.2, SIDE / 2, SIDE / 3.3, SIDE]).round()
    wanted = [degrade.downscale(p, SIDE / n) for p, n in zip(pictures, sizes.tolist(), strict=True)]
    assert gap(images.downscale(x, sizes), wanted) < 0.15
    assert torch.equal(images.downscale(x, sizes)[3], x[3])
    mask = np.zeros((SIDE, SIDE), bool)
    mask[60:160, 60:150] = True
    found = images.colour_transfer(x, x.flip(0), torch.from_numpy(mask).expand(4, 1, -1, -1))
    both = list(zip(pictures, pictures[::-1], strict=True))
    assert gap(found, [colour_transfer(*each, mask) for each in both]) < 0.4
    strength = torch.tensor([0.0, 0.5, 1.0, 2.0])
    found = images.detail_transfer(
        x, x.flip(0), torch.from_numpy(mask).expand(4, 1, -1, -1), strength
    )
    wanted = [
        augment.detail_transfer(*each, mask, level)
        for each, level in zip(both, strength.tolist(), strict=True)
    ]
    assert gap(found, wanted) < 0.01 and torch.equal(found[0], x[0])


def test_small_pictures_are_compressed_as_they_are(crops: AlignedCrops) -> None:
    pictures, size = [image[..., :3] for image in crops.images], 150
    small = [cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]
    wanted = [cv2.resize(degrade.jpeg(p, 40), (SIDE, SIDE)) for p in small]
    sizes = torch.full((4,), float(size))
    x = images.whole(images.separable(batch(pictures), images.area(sizes, SIDE)))
    x = images.jpeg(x, torch.full((4,), 40))
    assert gap(images.separable(x, images.linear(sizes, SIDE)), wanted) < 0.5


def test_the_channel_is_the_same_for_both_and_as_bad_as_on_the_cpu(monkeypatch) -> None:
    side, count = 32, 1000  # small and many
    monkeypatch.setattr(device_augment, "SIDE", side)
    grey = np.full((side, side, 3), 128, np.uint8)
    fine = np.uint8(np.indices((side, side)).sum(0)[..., None].repeat(3, 2) // 3 % 2 * 120 + 60)
    for picture, levels in ((grey, (0.5, 3, 8)), (fine, (3, 10, 25, 50))):
        pairs = batch([picture])[:, None].expand(count, 2, -1, -1, -1)
        seen = device_augment.transmit(pairs, draws())
        assert torch.equal(seen[:, 0], seen[:, 1]) and seen.min() >= 0 and seen.max() <= 255
        found = seen[:, 0].std((2, 3)).mean(1).numpy()
        rngs = [np.random.default_rng(seed) for seed in range(count)]
        wanted = np.array([augment.transmit(picture, rng).std((0, 1)).mean() for rng in rngs])
        for level in levels:
            assert (found > level).mean() == pytest.approx((wanted > level).mean(), abs=0.06)


def test_random_windows_lie_around_the_crop(crops: AlignedCrops) -> None:
    views = inverse(device_augment.random_windows(300, draws()))
    points = transform(views, torch.from_numpy(crops.landmarks[:1]).float().expand(300, -1, -1))
    flipped = points[:, 0, 0] > points[:, 1, 0]
    mirror = points * torch.tensor([-1, 1]) + torch.tensor([CROP.px - 1, 0])
    points = torch.where(flipped[:, None, None], mirror, points).numpy()
    scale = CROP.px / CROP.width * WIDE_CROP.width / SIDE
    wanted = (crops.landmarks[0] - (SIDE - 1) / 2) * scale + (CROP.px - 1) / 2
    assert 110 < flipped.sum() < 190 and np.abs(points.mean(0) - wanted).max() < 0.02 * CROP.px
    assert 0.5 < points.std(0).min() < points.std(0).max() < 0.08 * CROP.px


def test_the_host_never_waits_for_the_device(crops: AlignedCrops, monkeypatch) -> None:
    """On tensors without values every wait would be an error, as would be one on another device."""
    monkeypatch.setattr(images.Draws, "__init__", without_generator)
    for cached in (images.constant, images._cosines, device_fakes._resizes):
        cached.cache_clear()
    with FakeTensorMode():
        made = DeviceFakes(PseudoFakes(crops), 16, 0, torch.device("cuda"))
        faces, shares = made[0]
        assert faces.device.type == shares.device.type == "cuda" and faces.shape[0] == 32
        with pytest.raises(DataDependentOutputException):
            bool(shares.sum() > 0)
    for cached in (images.constant, images._cosines, device_fakes._resizes):
        cached.cache_clear()


def without_generator(self: Draws, seed: int, step: int, device: torch.device) -> None:
    """There is none of CUDA without CUDA."""
    self.device, self.generator = device, None
