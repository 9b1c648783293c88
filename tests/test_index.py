"""An index.csv by any name, and what its groups and paths mean."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.samples import Sample
from tests.test_tables import PAIRS, SAMPLES, dataset, lines

GROUPS = {
    "numbers": (["1", "1.0", "1.", "1,0", "1.00"], {"1"}),
    "negative numbers": (["-1", "-1.0"], {"-1"}),
    "names that are no numbers": (["007", "7", "1e5", "v1.0"], {"007", "7", "1e5", "v1.0"}),
    "large numbers": (["1", "1.000"], {"1", "1.000"}),  # or a thousand
    "forms of Unicode": ([unicodedata.normalize(form, "김é") for form in ("NFC", "NFD")], {"김é"}),
    "nothing": (
        ["", "none", "-", "Unknown", "?", "n/a", "N.A.", "NULL", "NaN", "--", "없음"],
        {""},
    ),
}


@pytest.mark.parametrize("column", ["group", "video", "method"])
@pytest.mark.parametrize("name", GROUPS)
def test_one_group_however_it_is_written(tmp_path: Path, name: str, column: str) -> None:
    cells, groups = GROUPS[name]
    rows = "".join(f'{i}.jpg,0,"{cell}"\n' for i, cell in enumerate(cells))
    root = dataset(
        tmp_path, f"path,label,{column}\n{rows}", *(f"{i}.jpg" for i in range(len(cells)))
    )
    assert {getattr(sample, column) for sample in find_samples(root)} == groups


@pytest.mark.parametrize("row", ["{root}/{p},{l}", "'{root}/{p}',{l}", "{root}//{p},{l}"])
def test_absolute_paths_below_the_folder(tmp_path: Path, monkeypatch, row: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to("set")
    monkeypatch.chdir(tmp_path)
    for written in (tmp_path / "set", tmp_path / "link"):
        text = "path,label\n" + "".join(
            row.format(root=written, p=p, l=label) + "\n"
            for p, label in [*PAIRS, ("real/gone.jpg", 0)]
        )
        dataset(tmp_path / "set", text)
        for root in (written, Path(written.name)):
            assert find_samples(root) == sorted(
                [*SAMPLES, Sample("real/gone.jpg", 0)], key=lambda sample: sample.path
            )


@pytest.mark.parametrize("name", ["Index.csv", "index.CSV", "INDEX.CSV"])
def test_the_name_of_the_index_in_any_case(tmp_path: Path, name: str) -> None:
    (dataset(tmp_path, lines() + "c.jpg,1\n", "c.jpg", *dict(PAIRS)) / "index.csv").rename(
        tmp_path / name
    )
    found = Sample("c.jpg", 1)
    assert found in find_samples(tmp_path), "not what is in real/ and fake/ alone"
    assert found in find_samples(tmp_path, layout="plain")
    (tmp_path / "index.Csv").write_text(lines())
    with pytest.raises(ValueError, match="which is the index"):
        find_samples(tmp_path)
    (tmp_path / "index.csv").write_text(lines())
    assert find_samples(tmp_path) == SAMPLES


@pytest.mark.parametrize("name", ["index.tsv", "Index.xlsx", "index.csv.txt", "index.csv.gz"])
def test_other_tables_are_named(tmp_path: Path, name: str, caplog) -> None:
    (dataset(tmp_path / "set", lines()) / "index.csv").rename(tmp_path / "set" / name)
    assert [sample.path for sample in find_samples(tmp_path / "set")] == sorted(dict(PAIRS))
    assert f"not called index.csv, so it is not read as one (such as {name})" in caplog.text
    (tmp_path / "set" / name).rename(tmp_path / name)
    with pytest.raises(ValueError, match=f"\n{name} is not called index.csv"):
        find_samples(tmp_path)


def test_a_kind_stands_before_the_method_of_a_fake(tmp_path: Path) -> None:
    rows = "a.jpg,1,SimSwap,face swaps\nb.jpg,1,,edits\nc.jpg,1,GPEN,\nd.jpg,0,,face swaps\n"
    names = [f"{name}.jpg" for name in "abcd"]
    root = dataset(tmp_path, f"path,label,method,kind\n{rows}", *names)
    found = [sample.method for sample in find_samples(root)]
    assert found == ["face swaps: SimSwap", "edits", "GPEN", ""]
