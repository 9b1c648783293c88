"""The trace network: its answers, its files, its training on a handful of faces."""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from data.dump import landmarks_of, read_dump
from data.faces import align
from data.forging import ALIGNED_PX, PseudoFakes
from data.images import read_image
from features.regions import REGIONS
from models.lite0 import lite0_weights
from models.resynthesis import reconstruct
from models.tensors import WeightsError, write_half
from models.trace_net import TraceExpert, TraceNet, as_seen, load_trace_net, region_shares
from preprocessing_pipeline import Config as PreprocessConfig
from preprocessing_pipeline import main as preprocess
from scripts.train_trace_net import (
    Config,
    Losses,
    Pairs,
    begin,
    folded,
    learning_rate,
    real_faces,
    total,
    train,
)
from tests.test_forge import hopper  # noqa: F401 (a fixture)
from tests.test_forging import faces  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    write_half(TraceNet(), path, {"trained": "not at all"})
    return path


def pictures(count: int = 2) -> torch.Tensor:
    found = np.random.default_rng(0).integers(0, 256, (count, 4, 160, 160), dtype=np.uint8)
    found[:, 3] = 255
    return torch.from_numpy(found)


def test_it_answers_for_every_region(weights: Path) -> None:
    said = TraceExpert(weights).frozen("cpu")(pictures())
    assert {name: tuple(value.shape) for name, value in said.items()} == {
        "source": (2, len(REGIONS), 32),
        "altered": (2, len(REGIONS), 1),
    }
    assert torch.allclose(said["source"].norm(dim=-1), torch.ones(2, len(REGIONS)), atol=1e-5)
    net, seen = load_trace_net(weights).eval(), pictures()[:, :3]
    with torch.inference_mode():
        whole = torch.stack(
            [net(as_seen(images))["whole"] for images in (seen, seen.flip(-1))]
        ).mean(0)
    assert torch.allclose(
        said["altered"][:, 0, 0], whole, atol=1e-5
    )  # of the whole face, what is said of it as such
    black = pictures(1)
    black[:, 3] = 0  # all of it outside the photograph: nothing of it is seen
    grey = black.clone()
    grey[:, :3] = 7
    expert = TraceExpert(weights).frozen("cpu")
    assert torch.equal(expert(black)["altered"], expert(grey)["altered"])


def test_a_mirror_image_is_judged_alike_with_left_and_right_exchanged(weights: Path) -> None:
    expert, images = TraceExpert(weights).frozen("cpu"), pictures()
    left, right, full = (REGIONS.index(name) for name in ("left", "right", "full"))
    for name, said in expert(images).items():
        mirrored = expert(images.flip(-1))[name]
        assert torch.allclose(said[:, left], mirrored[:, right], atol=1e-4)
        assert torch.allclose(said[:, full], mirrored[:, full], atol=1e-4)
        assert not torch.allclose(said[:, left], said[:, right], atol=1e-4)


def test_faces_are_judged_alike_alone_in_a_batch_and_nearly_so_in_bfloat16(weights: Path) -> None:
    images = pictures(5)
    together = TraceExpert(weights).frozen("cpu")(images)
    alone = [TraceExpert(weights).frozen("cpu")(images[i : i + 1]) for i in range(5)]
    rough = TraceExpert(weights, bf16=True).frozen("cpu")(images)
    for name, value in together.items():
        assert value.dtype == rough[name].dtype == torch.float32 and value.isfinite().all()
        assert torch.allclose(torch.cat([one[name] for one in alone]), value, atol=1e-4)
        assert torch.allclose(rough[name], value, atol=0.05) and not torch.equal(rough[name], value)


def test_regions_are_where_they_should_be() -> None:
    shares = region_shares()
    assert torch.allclose(shares.sum((1, 2)), torch.ones(len(REGIONS)))
    middle = [
        (torch.arange(20) * shares[i].sum(axis)).sum()
        for i, axis in enumerate_regions("upper", "lower", axis=1)
    ]
    assert middle[0] + 5 < middle[1]
    middle = [
        (torch.arange(20) * shares[i].sum(axis)).sum()
        for i, axis in enumerate_regions("left", "right", axis=0)
    ]
    assert middle[0] + 5 < middle[1]
    assert (shares[REGIONS.index("inner")] * shares[REGIONS.index("outer")]).sum() < 1e-3


def enumerate_regions(*names: str, axis: int) -> list[tuple[int, int]]:
    return [(REGIONS.index(name), axis) for name in names]


def test_files_that_are_not_its_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_trace_net(tmp_path / "none.safetensors")
    (tmp_path / "odd.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"odd\.safetensors: damaged"):
        load_trace_net(tmp_path / "odd.safetensors")


def test_losses_fall_for_right_answers() -> None:
    shares = torch.zeros(4, 20, 20)
    shares[1::2, 6:14, 6:14] = 1
    regions, losses = region_shares(), Losses()
    touched = torch.einsum("nhw,rhw->nr", shares, regions) > 0.06
    source = torch.zeros(4, 32, 20, 20)
    source[:, 0], source[:, 1] = 1 - shares, shares
    right = {
        "whole": torch.tensor([-5.0, 5, -5, 5]),
        "parts": torch.where(touched, 5.0, -5.0),
        "cells": shares * 10 - 5,
        "cell_source": source,
    }
    wrong = {name: -value for name, value in right.items()} | {
        "cell_source": torch.ones_like(source) / 32**0.5
    }
    good, bad = (losses(said, shares, regions) for said in (right, wrong))
    assert (
        all(good[name] < 0.2 < bad[name] for name in good if name != "origins")
        and good["origins"] < bad["origins"]
    )


def test_a_region_that_is_hardly_touched_does_not_count() -> None:
    shares = torch.zeros(2, 20, 20)
    shares[1, 6:14, 6:14], shares[1, 0, 0] = 0.03, 1  # 3% of the inner face
    regions, losses = region_shares(), Losses()
    said = {"whole": torch.zeros(2), "parts": torch.zeros(2, len(REGIONS)), "cells": shares * 0}
    said["cell_source"] = torch.ones(2, 32, 20, 20) / 32**0.5
    before = losses(said, shares, regions)["parts"]
    said["parts"][1, REGIONS.index("inner")] = 9
    assert losses(said, shares, regions)["parts"] == before
    said["parts"][0, REGIONS.index("inner")] = 9  # of the real face
    assert losses(said, shares, regions)["parts"] > before


def test_every_loss_counts_and_the_rate_rises_holds_and_falls() -> None:
    parts = {name: torch.tensor(1.0) for name in ("whole", "parts", "cells", "origins")}
    assert total(parts) == 2.5 and total({**parts, "whole": torch.tensor(2.0)}) == 3.5
    rates = [
        learning_rate(Config(steps=1000, lr=1.0), step) for step in (0, 99, 300, 549, 775, 999)
    ]
    assert rates == pytest.approx([0.01, 1, 1, 1, 0.5, 0], abs=1e-3)


def test_pairs_alternate_and_repeat_for_a_seed(faces) -> None:  # noqa: F811
    first, again, other = (next(iter(Pairs(PseudoFakes(faces), 2, seed))) for seed in (1, 1, 2))
    assert first[0].shape == (4, 3, 160, 160) and first[1].shape == (4, 20, 20)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert (first[1][0::2] == 0).all() and (first[1][1::2].amax((1, 2)) > 0.1).all()


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_training_goes_on_and_writes_what_it_is(faces, tmp_path: Path, capsys) -> None:  # noqa: F811
    config = Config(steps=2, pairs=1)
    path = train(faces, config, tmp_path / "run", torch.device("cpu"), 0)
    expert = TraceExpert(path).frozen("cpu")
    assert torch.isfinite(expert(pictures())["altered"]).all()
    assert "resuming" not in capsys.readouterr().out
    train(faces, config, tmp_path / "run", torch.device("cpu"), 0)
    assert "resuming after step 2 of 2" in capsys.readouterr().out
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["step"] == "2" and float(rows[0]["whole"]) > 0
    with pytest.raises(ValueError, match="holds a run with"):
        train(faces, Config(steps=3, pairs=1), tmp_path / "run", torch.device("cpu"), 0)


def test_training_starts_from_imagenet_or_from_a_trace_network(faces, tmp_path: Path) -> None:  # noqa: F811
    net, found = begin(), lite0_weights()
    assert all(
        torch.equal(value, found[f"blocks.{key}"]) for key, value in net.blocks.state_dict().items()
    )
    assert torch.equal(net.stem[0].weight, found["conv_stem.weight"])
    assert torch.equal(net.stem[1].running_var, found["bn1.running_var"])
    write_half(net, tmp_path / "own.safetensors", {})
    assert torch.equal(
        begin(str(tmp_path / "own.safetensors")).verdict.weight, net.verdict.weight.half().float()
    )
    still = Config(steps=1, pairs=1, lr=0.0, start=str(tmp_path / "own.safetensors"))
    trained = load_trace_net(train(faces, still, tmp_path / "run", torch.device("cpu"), 0))
    assert torch.allclose(trained.verdict.weight, net.verdict.weight, atol=2e-3)
    with pytest.raises(ValueError, match="holds a run with"):
        train(faces, Config(steps=1, pairs=1, lr=0.0), tmp_path / "run", torch.device("cpu"), 0)
    torch.save({"one": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other.pth"):
        begin(str(tmp_path / "other.pth"))


@pytest.mark.usefixtures("one_thread")
def test_an_autoencoder_learns_to_redraw(faces) -> None:  # noqa: F811
    before = faces.redrawn
    apart = [np.abs(reconstruct(before, steps).astype(float) - before).mean() for steps in (1, 25)]
    assert apart[1] < apart[0] / 1.5 and reconstruct(before, 1).shape == before.shape


@pytest.fixture
def pictures_on_disk(astronaut, tmp_path: Path) -> Path:
    """A dump of two real faces and a fake that train, and a real one that tests; the second real picture is damaged."""
    root = tmp_path / "faces"
    root.mkdir()
    lines = ["path,label,split"]
    for i, (label, split) in enumerate(
        (("real", "train"), ("real", "train"), ("fake", "train"), ("real", "test"))
    ):
        crop = cv2.convertScaleAbs(astronaut[:300, 60:360], alpha=1 - 0.1 * i)
        cv2.imwrite(str(root / f"{i}.png"), crop[..., ::-1])
        lines.append(f"{i}.png,{label},{split}")
    (root / "index.csv").write_text("\n".join(lines))
    out = preprocess(PreprocessConfig(root, out=tmp_path / "dump", experts=("lite",), device="cpu"))
    (root / "1.png").write_bytes(b"no longer a picture")
    return out


def test_only_real_training_faces_are_taken(pictures_on_disk: Path) -> None:
    """The claim that no deepfake is seen, and no test face, hangs on this."""
    dump = read_dump(pictures_on_disk)
    root = Path(dump.meta["data_root"])
    images, points, failed = real_faces(dump, root, 0, 1)
    assert len(images) == len(points) == 1 and len(failed) == 1 and "1.png" in failed[0]
    row = dump.rows["path"].tolist().index("0.png")
    assert (
        images[0]
        == align(
            [read_image(root / "0.png")], np.array([0]), landmarks_of(dump.rows)[[row]], ALIGNED_PX
        )[0]
        .permute(1, 2, 0)
        .numpy()
    ).all()
    dump.rows["label"][:], dump.rows["split"][:] = 0, ""  # a set without fakes serves whole
    assert len(real_faces(dump, root, 0, 1)[0]) == 3 and len(real_faces(dump, root, 1, 1)[0]) == 1


def test_mistakes_at_the_command_line_are_one_line(pictures_on_disk: Path, tmp_path: Path) -> None:
    for options, said in (
        (["--features", str(tmp_path / "none")], "none: no dump there"),
        (["--features", str(pictures_on_disk)], "fewer than two real training faces"),
        (["--features", str(tmp_path / "none"), "--start", str(tmp_path / "gone")], "gone"),
    ):
        command = [
            sys.executable,
            "-m",
            "scripts.train_trace_net",
            *options,
            "--out",
            str(tmp_path / "out"),
        ]
        found = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent.parent
        )
        assert found.returncode == 1 and said in found.stderr and "Traceback" not in found.stderr


def test_batch_normalisation_stays_as_it_came_and_the_average_follows(
    faces,  # noqa: F811
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    before = begin().state_dict()
    path = train(faces, Config(steps=3, pairs=1, lr=1e-2), tmp_path / "run", torch.device("cpu"), 0)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    after, last = state["average"], state["net"]
    written = load_trace_net(path).state_dict()
    assert all(
        torch.equal(written[name], value.half().float())
        for name, value in after.items()
        if "num_" not in name
    )
    running = [name for name in before if "running" in name]
    assert running and all(torch.equal(before[name], last[name]) for name in running)
    moved = [(after[name] - last[name]).abs().max() for name in after if name.endswith("weight")]
    assert all(gap > 0 for gap in moved) and torch.stack(moved).max() < 0.1
    assert not torch.equal(before["verdict.weight"], last["verdict.weight"])


def test_a_folded_normalisation_changes_neither_answers_nor_gradients() -> None:
    torch.manual_seed(0)
    net, images = begin(), as_seen(pictures(2)[:, :3])
    net.drop.p = 0.0
    found = []
    for predictions in (net.train(), folded(net)):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        net.zero_grad()
        said = predictions(images)
        (
            said["whole"].sum() + said["cells"].square().mean() + said["source"][:, 1, 0].sum()
        ).backward()
        gradients = {
            name: value.grad for name, value in net.named_parameters() if value.grad is not None
        }
        found.append({name: value.detach() for name, value in said.items()} | gradients)
    plain, quick = found
    assert plain.keys() == quick.keys() and sum("bn" in name for name in plain) > 90
    for name, value in plain.items():
        assert (value - quick[name]).norm() <= 3e-3 * value.norm(), (
            name
        )  # rounding crosses some kinks of ReLU6
    net.drop.p = 0.5
    predictions = folded(net.eval())
    assert not torch.equal(
        predictions(images)["whole"], predictions(images)["whole"]
    )  # in training mode


@pytest.mark.usefixtures("one_thread")
def test_what_a_killed_training_had_learned_is_not_lost(faces, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    config, run = Config(steps=4, pairs=1), (tmp_path / "run", torch.device("cpu"), 0)
    batches = Pairs.__iter__
    monkeypatch.setattr("scripts.train_trace_net.SAVE_EVERY", 2)
    monkeypatch.setattr(Pairs, "__iter__", lambda self: islice(batches(self), 3))
    with pytest.raises(StopIteration):
        train(faces, config, *run)
    before = torch.load(run[0] / "state.pt", weights_only=True)
    assert before["step"] == 2
    monkeypatch.setattr(Pairs, "__iter__", batches)
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: None
    )  # so that what was loaded is what is left
    train(faces, config, *run)
    after = torch.load(run[0] / "state.pt", weights_only=True)
    assert after["step"] == 4 and all(
        torch.equal(after["net"][name], value) for name, value in before["net"].items()
    )
    moments = [state["optimizer"]["state"][0]["exp_avg"] for state in (before, after)]
    assert torch.equal(*moments)
