"""Weight files read without running anything that is in them, and loaded so that nothing is left to chance."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.tensors import MissingWeightsError, WeightsError, load_strictly, read_tensors

HTML = b"<!DOCTYPE html><html>Quota exceeded</html>"
TENSORS = {"body.weight": torch.arange(6.0).reshape(2, 3), "body.bias": torch.ones(2)}


def refused(error, told, function, *arguments):
    """That it raises `error`, whose message begins with the first part of `told` and contains the others."""
    with pytest.raises(error) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.startswith(told[0]) and [part for part in told if part not in message] == []


def test_three_formats_are_read_and_damage_is_refused(tmp_path):
    net = nn.ModuleDict({"body": nn.Linear(3, 2)})
    net.load_state_dict(TENSORS)
    save_file(TENSORS, tmp_path / "a.safetensors")
    torch.save(TENSORS, tmp_path / "b.pt")
    torch.save(net.state_dict(), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert (tmp_path / "b.pt").read_bytes()[:2] == b"PK" != (tmp_path / "c.pt").read_bytes()[:2]
    for path in sorted(tmp_path.glob("?.*")):
        found, whole = read_tensors(path), path.read_bytes()
        assert set(found) == set(TENSORS) and all(
            torch.equal(found[key], TENSORS[key]) for key in TENSORS
        ), path
        for content in (
            *(whole[: len(whole) * tenth // 10] for tenth in range(10)),
            bytes(range(1, 256)) * 99,
            b"\n" * 50,
        ):
            path.write_bytes(content)
            with pytest.raises(
                WeightsError, match=f"^{path}: (damaged|refused)"
            ) as caught:  # refused: a name was cut
                read_tensors(path)
            assert "weights_only" not in str(caught.value), "torch's advice to load it unsafely"
        path.write_bytes(HTML)
        refused(WeightsError, [f"{path}: a web page"], read_tensors, path)
    refused(
        MissingWeightsError, [f"{tmp_path / 'd.pt'}: no such file"], read_tensors, tmp_path / "d.pt"
    )


class Touch(str):
    """A path, where a file is made when this is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch '{self}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_not_run(tmp_path, zipped):
    path, marker = tmp_path / "x.pt", tmp_path / "marker"
    torch.save({**TENSORS, "extra": Touch(marker)}, path, _use_new_zipfile_serialization=zipped)
    refused(
        WeightsError,
        [f"{path}: refused, because reading it would run code (posix.system)"],
        read_tensors,
        path,
    )
    assert not marker.exists()
    pickle.loads(pickle.dumps(Touch(marker)))
    assert marker.exists(), "the trap works"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_flat_dict_of_tensors_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    refused(WeightsError, (f"{path}: a TorchScript", "models/weights.py lists"), read_tensors, path)
    nested = ({"state_dict": TENSORS, "epoch": 3}, "'state_dict': dict, 'epoch': int")
    for content, found in (
        nested,
        ({1: torch.ones(2)}, "1: Tensor"),
        (torch.ones(2), "Tensor"),
        ({}, "dict"),
    ):
        torch.save(content, path)
        told = f"{path}: expected a flat dict of one or more tensors by name, found {found}"
        refused(WeightsError, [told], read_tensors, path)


def test_load_strictly_says_what_does_not_fit():
    path, net = Path("file.pt"), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    good = {key: value + 1 for key, value in net.state_dict().items()}
    load_strictly(net, good, path)
    assert all(torch.equal(value, good[key]) for key, value in net.state_dict().items())
    without = {key: value + 1 for key, value in good.items() if key != "0.bias"}
    more = {**without, "9.more": torch.ones(1)}
    for tensors, told, *optional in (
        ({**good, "0.weight": torch.ones(2, 4)}, "1 misshapen (0.weight: (2, 4), not (2, 3))"),
        ({}, "7 missing (0.weight, 0.bias, 1.weight)"),
        (more, "1 missing (0.bias); 1 unexpected (9.more)"),
        (more, "1 missing (0.bias)", lambda key: key.startswith("9.")),
        (more, "1 unexpected (9.more)", lambda key: key == "0.bias"),
        (
            {**good, "0.bias": torch.ones(3)},
            "1 misshapen (0.bias: (3,), not (2,))",
            lambda key: True,
        ),
    ):
        with pytest.raises(WeightsError) as caught:
            load_strictly(net, tensors, path, *optional)
        assert str(caught.value) == f"file.pt: does not fit Sequential: of 7 keys {told}"
        assert all(torch.equal(value, good[key]) for key, value in net.state_dict().items()), (
            "left as it was"
        )
    load_strictly(net, more, path, lambda key: key in ("0.bias", "9.more"))
    assert torch.equal(net[0].weight, without["0.weight"]) and torch.equal(
        net[0].bias, good["0.bias"]
    )


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.ones(2, 3, dtype=torch.bfloat16), ""),
        (torch.ones(2, 3, dtype=torch.float64), ""),
        (torch.ones(2, 3, dtype=torch.complex64), "1 mistyped (0.weight: torch.complex64, not"),
        (torch.ones(2, 3, dtype=torch.bool), "1 mistyped (0.weight: torch.bool, not"),
        (torch.ones(2, 3, dtype=torch.int8), "1 mistyped (0.weight: torch.int8, not"),
        (torch.full((2, 3), float("nan")), "not every number in 0.weight is finite"),
        (
            torch.full((2, 3), float("inf"), dtype=torch.bfloat16),
            "not every number in 0.weight is finite",
        ),
    ],
)
def test_other_kinds_of_numbers_are_converted_or_refused(tmp_path, suffix, value, told):
    path, net = tmp_path / f"x.{suffix}", nn.Sequential(nn.Linear(3, 2))
    tensors = {"0.weight": value, "0.bias": torch.ones(2)}
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    if told:
        with pytest.raises(WeightsError, match=f"^{path}: ") as caught:
            load_strictly(net, read_tensors(path), path)
        assert told in str(caught.value)
    else:
        load_strictly(net, read_tensors(path), path)
        assert net[0].weight.dtype == torch.float32 and (net[0].weight == 1).all()


def test_changed_bytes_of_a_file_are_read_or_refused(tmp_path):
    """Nothing but a WeightsError, whatever is changed; each changed file would also fail its SHA-256."""
    rng, net = np.random.default_rng(0), nn.Sequential(nn.Linear(3, 2))
    save_file(net.state_dict(), tmp_path / "x.safetensors")
    torch.save(net.state_dict(), tmp_path / "x.pt")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pt"):
        whole, wrong = path.read_bytes(), 0
        for _ in range(400):
            content = bytearray(whole)
            for _ in range(int(rng.integers(1, 6))):
                content[int(rng.integers(len(content)))] = rng.integers(256)
            path.write_bytes(content)
            try:
                load_strictly(net, read_tensors(path), path)
            except WeightsError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                wrong += 1
        assert wrong > 50
