"""Pictures stacked for a GPU: resized and cut there as OpenCV and `align` do on a CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.alignment import TEMPLATE, align, align_stack
from data.detection import letterbox, placement, window
from data.stack import LARGEST, STEP, Stack, fits
from features.regions import ALIGNED, Crop

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CROPS = (ALIGNED, Crop.of_box(1.25, 160), Crop.of_box(1.2, 256), Crop.of_box(160 / 146, 160, False))


@pytest.fixture(scope="module")
def pictures(astronaut: np.ndarray) -> list[np.ndarray]:
    """Of several sizes; the face is enlarged, as it is, and shrunk."""
    face = astronaut[:240, 120:330]
    scaled = [cv2.resize(face, None, fx=f, fy=f, interpolation=cv2.INTER_AREA) for f in (0.4, 1, 3)]
    return [*scaled, face[:, ::-1].copy()]


@pytest.fixture(scope="module")
def landmarks(pictures) -> np.ndarray:
    """Roughly on the face; turned for the last one."""
    points = (TEMPLATE - 56) * 1.1 + (105, 112)
    found = np.stack([points * 0.4, points, points * 3, points])
    centre = found[3].mean(0)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    found[3] = (found[3] - centre) @ turn.T + centre
    return found


def close(one: np.ndarray, other: np.ndarray, share: float = 2e-3) -> None:
    """Whole numbers that differ by rounding, here and there."""
    apart = np.abs(one.astype(int) - other.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() < share, (apart.max(), (apart > 0).mean())


@pytest.mark.parametrize("device", DEVICES)
def test_a_stack_holds_the_pictures_and_repeats_their_borders(pictures, device):
    stack = Stack.of(pictures).to(torch.device(device))
    assert len(stack) == 4 and stack.device.type == device
    assert stack.pixels.shape == (4, 768, 640, 3) and not any(x % STEP for x in (768, 640))
    for pixels, image, (h, w) in zip(stack.pixels.cpu(), pictures, stack.shapes, strict=True):
        assert (h, w) == image.shape[:2] and np.array_equal(pixels[:h, :w], image)
        assert (pixels[:h, w:] == pixels[:h, w - 1 : w]).all()
        assert (pixels[h:] == pixels[h - 1]).all()
    some = stack.select([2, 0])
    assert torch.equal(some.pixels, stack.pixels[[2, 0]])
    assert some.shapes.tolist() == stack.shapes[[2, 0]].tolist()


def test_what_cannot_be_stacked():
    large = np.zeros((16, LARGEST + 1, 3), np.uint8)
    assert fits([large[:, :LARGEST]]) and not fits([large]) and not fits([])
    with pytest.raises(ValueError, match="at most"):
        Stack.of([large])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [37, 60, 120, 240, 333])
def test_resized_is_opencvs(astronaut, device, size):
    image = astronaut[:240, :240]
    stack = Stack.of([image]).to(torch.device(device))
    part, to = (stack.tensor(np.array([values])) for values in ([0, 0, 240, 240], [size, size]))
    pixels = stack.pixels.permute(0, 3, 1, 2).float()
    found = stack.resized(pixels, part, to, size)[0].permute(1, 2, 0).cpu().numpy()
    method = cv2.INTER_AREA if size < 240 else cv2.INTER_LINEAR
    expected = cv2.resize(image, (size, size), interpolation=method)
    close(found, expected, 0.2 if size > 240 else 2e-3)  # OpenCV rounds weights to enlarge


@pytest.mark.parametrize("device", DEVICES)
def test_letterboxes_and_windows(pictures, device):
    stack = Stack.of(pictures).to(torch.device(device))
    pixels = stack.pixels.permute(0, 3, 1, 2).float()
    places = np.array([placement(*shape, 224, 0.1) for shape in stack.shapes])
    shapes = stack.shapes[:, ::-1]
    whole = np.concatenate([0 * shapes, shapes], axis=1)
    numbers = [stack.tensor(x) for x in (whole, places[:, 2:])]
    found = stack.resized(pixels, *numbers, 224, stack.tensor(places[:, :2]))
    for one, image in zip(found.permute(0, 2, 3, 1).cpu().numpy(), pictures, strict=True):
        close(one, letterbox(image, 224, 0.1), 0.2)
    corners, side = np.array([[-30, 20], [60, -10], [400, 300], [150, 200]]), 130
    part = np.concatenate([corners, corners + side], axis=1)
    numbers = [stack.tensor(x) for x in (part, np.full((4, 2), 48))]
    nowhere, shapes = (stack.tensor(x) for x in (np.zeros((4, 2)), shapes))
    found = stack.resized(pixels, *numbers, 48, nowhere, shapes)
    for one, image, corner in zip(found.permute(0, 2, 3, 1), pictures, corners, strict=True):
        close(one.cpu().numpy(), window(image, *corner, side))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("crop", CROPS)
def test_crops_are_those_of_a_cpu(pictures, landmarks, crop, device):
    stack = Stack.of(pictures).to(torch.device(device))
    for rows in ([0, 1, 1, 2, 3], [0]):  # some shrunk; enlarged: sampled without shrinking
        rows = np.array(rows)
        found = align_stack(stack, rows, landmarks[rows], crop)
        assert found.device.type == device and found.dtype == torch.uint8
        expected = align(pictures, rows, landmarks[rows], crop)
        close(found.cpu().numpy(), expected.numpy())
    assert align_stack(stack, rows[:0], landmarks[:0], crop).shape == (0, 4, crop.px, crop.px)
