"""Training of the trace network: losses, batches, and runs of a few steps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from command_line import BAD_INPUT, run
from data.alignment import align
from data.dump import landmarks_of, read_dump
from data.images import read_image
from features.regions import REGIONS
from models.lite0 import lite0_weights
from models.tensors import WeightsError, write_half
from models.trace_net import TraceExpert, TraceNet, as_seen, load_trace_net, region_shares
from training import reconstruction, trace_net
from training.aligned_crops import WIDE_CROP, real_faces
from training.pseudo_fakes import PseudoFakes

pytestmark = pytest.mark.usefixtures("one_thread")


def small(**options) -> trace_net.Config:
    return trace_net.Config(features=(), pairs=1, device="cpu", workers=0, **options)


def test_real_training_faces_only(lit_dump: Path, tmp_path: Path, caplog) -> None:
    """No fake and no test face may enter the training."""
    known = read_dump(lit_dump)
    source = Path(known.meta["data_root"])
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "1.png").write_bytes(b"no longer a picture")
    with caplog.at_level("WARNING", "masc"):
        crops = real_faces([known], [tmp_path], 0, 1)
    assert len(crops) == 2 and "1 pictures left out" in caplog.text and "1.png" in caplog.text
    row = known.rows["path"].tolist().index("0.png")
    landmarks = landmarks_of(known.rows)[[row]]
    cut = align([read_image(source / "0.png")], np.array([0]), landmarks, WIDE_CROP)[0]
    assert (crops.images[0] == cut.permute(1, 2, 0).numpy()).all()
    known.rows["label"][:], known.rows["split"][:] = 0, "train"
    assert len(real_faces([known, known], [source, source], 0, 1)) == 10
    assert len(real_faces([known, known], [source, source], 2, 1)) == 4


def test_trace_command_line(lit_dump: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(trace_net, "initial", lambda path="": load_trace_net(path) if path else NET)
    for options, message in (
        (["--features", str(tmp_path / "none")], "none: no dump there"),
        (["--features", str(lit_dump), "--data-root", f"faces={tmp_path}"], "fewer than two real"),
        (["--features", str(lit_dump), "--start", str(tmp_path / "gone")], "gone"),
    ):
        assert run(trace_net.main, trace_net.Config, None, options) == BAD_INPUT
        assert message in capsys.readouterr().err
    monkeypatch.setattr(reconstruction, "BATCH", 2)
    options = ["--features", str(lit_dump), "--out", str(tmp_path), "--autoencoder-steps", "1"]
    options += ["--steps", "1", "--pairs", "1", "--workers", "1", "--device", "cpu"]
    assert run(trace_net.main, trace_net.Config, None, options) == 0
    assert (tmp_path / "trace_net.safetensors").is_file()


NET = TraceNet()


def test_losses_fall_for_right_predictions() -> None:
    shares = torch.zeros(4, 20, 20)
    shares[1::2, 6:14, 6:14] = 1
    touched = torch.einsum("nhw,rhw->nr", shares, region_shares()) > trace_net.MANIPULATED
    source = torch.zeros(4, 32, 20, 20)
    source[:, 0], source[:, 1] = 1 - shares, shares
    right = {
        "whole": torch.tensor([-5.0, 5, -5, 5]),
        "parts": torch.where(touched, 5.0, -5.0),
        "cells": shares * 10 - 5,
        "cell_source": source,
    }
    wrong = {name: -value for name, value in right.items()}
    wrong["cell_source"] = torch.ones_like(source) / 32**0.5
    losses = trace_net.Localisation(NET).losses
    good, bad = (losses(outputs, shares) for outputs in (right, wrong))
    assert set(good) == set(trace_net.WEIGHTS) and good["origins"] < bad["origins"]
    assert all(good[name] < 0.2 < bad[name] for name in good if name != "origins")


def test_hardly_touched_regions_do_not_count() -> None:
    inner = REGIONS.index("inner")
    shares = torch.zeros(2, 20, 20)
    shares[1, 6:14, 6:14], shares[1, 0, 0] = 0.03, 1  # 3% of the inner face
    losses = trace_net.Localisation(NET).losses
    outputs = {"whole": torch.zeros(2), "parts": torch.zeros(2, len(REGIONS)), "cells": shares * 0}
    outputs["cell_source"] = torch.ones(2, 32, 20, 20) / 32**0.5
    before = losses(outputs, shares)["parts"]
    outputs["parts"][1, inner] = 9
    assert losses(outputs, shares)["parts"] == before
    outputs["parts"][0, inner] = 9  # of the real face
    assert losses(outputs, shares)["parts"] > before


def test_pairs_alternate_and_repeat_for_a_seed(crops) -> None:
    fakes = PseudoFakes(crops)
    first, again, other = (trace_net.Pairs(fakes, 2, seed)[5] for seed in (1, 1, 2))
    assert first[0].shape == (4, 3, 160, 160) and first[1].shape == (4, 20, 20)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert (first[1][0::2] == 0).all() and (first[1][1::2].amax((1, 2)) > 0.1).all()


def test_trace_training_keeps_batch_statistics_and_writes_the_average(crops, tmp_path) -> None:
    before = trace_net.initial().state_dict()
    imagenet = lite0_weights()
    assert torch.equal(before["stem.0.weight"], imagenet["conv_stem.weight"])
    assert torch.equal(before["stem.1.running_var"], imagenet["bn1.running_var"])
    assert all(torch.equal(v, imagenet[k]) for k, v in before.items() if k.startswith("blocks."))
    path = trace_net.train(crops, small(steps=2, lr=1e-2, out=tmp_path))
    assert TraceExpert(path).frozen("cpu")(torch.zeros(1, 4, 160, 160, dtype=torch.uint8))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    last = {name.removeprefix("net."): value for name, value in state["task"].items()}
    average = {name.removeprefix("module."): value for name, value in state["average"].items()}
    running = [name for name in before if "running" in name]
    assert running and all(torch.equal(before[name], last[name]) for name in running)
    written = load_trace_net(path).state_dict()
    weights = [name for name in before if name.endswith("weight")]
    assert all(torch.equal(written[name], average[name].half().float()) for name in weights)
    gaps = torch.stack([(average[name] - last[name]).abs().max() for name in weights])
    assert (gaps > 0).all() and gaps.max() < 0.1
    assert not torch.equal(before["verdict.weight"], last["verdict.weight"])
    row = pd.read_csv(tmp_path / "log.csv").iloc[0]
    assert row["step"] == 2 and row["whole"] > 0 and 0 <= row["AUC on pseudo-fakes"] <= 1


def test_training_starts_from_a_trace_network(crops, tmp_path: Path) -> None:
    own, other = tmp_path / "own.safetensors", tmp_path / "other.pth"
    write_half(NET, own, {})
    still = small(steps=1, lr=0.0, start=str(own), out=tmp_path / "run")
    trained = load_trace_net(trace_net.train(crops, still))
    assert torch.allclose(trained.verdict.weight, NET.verdict.weight, atol=2e-3)
    torch.save({"one": torch.zeros(3)}, other)
    with pytest.raises(WeightsError, match="other.pth"):
        trace_net.initial(str(other))


def test_folded_normalisation_changes_neither_outputs_nor_gradients() -> None:
    torch.manual_seed(0)
    net = trace_net.initial()
    images = as_seen(torch.randint(256, (2, 3, 160, 160), dtype=torch.uint8))
    net.drop.p = 0.0
    found = []
    for predict in (net.train(), trace_net.folded(net)):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        net.zero_grad()
        outputs = predict(images)
        parts = (outputs["whole"], outputs["cells"].square() / 800, outputs["source"][:, 1, 0])
        sum(part.sum() for part in parts).backward()
        gradients = {k: v.grad for k, v in net.named_parameters() if v.grad is not None}
        found.append({k: v.detach() for k, v in outputs.items()} | gradients)
    plain, quick = found
    assert plain.keys() == quick.keys() and sum("bn" in name for name in plain) > 90
    for name, value in plain.items():  # rounding crosses some kinks of ReLU6
        assert (value - quick[name]).norm() <= 3e-3 * value.norm(), name
    net.drop.p = 0.5
    predict = trace_net.folded(net.eval())
    whole = [predict(images)["whole"] for _ in range(2)]
    assert not torch.equal(*whole)  # in training mode


def test_autoencoder_learns_to_reconstruct(crops, monkeypatch) -> None:
    monkeypatch.setattr(reconstruction, "BATCH", 4)
    faces = np.stack([cv2.resize(face, (64, 64)) for face in crops.reconstructed])
    errors = []
    for steps in (1, 25):
        decoded = reconstruction.reconstruct(faces, steps)
        assert decoded.shape == faces.shape and decoded.dtype == np.uint8
        errors.append(np.abs(decoded.astype(float) - faces).mean())
    assert errors[1] < errors[0] / 1.5
