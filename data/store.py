"""Writing a dump (data/dump.py): the faces first, then one file per expert output.

Two passes over shards, fixed ranges of the samples. The first ends with index.csv and failures.csv,
the second with the .npy files of the experts that the dump lacked, missing.csv and meta.json. Files
are written under a temporary name and renamed: a run that is killed and started again repeats at
most one shard and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from data.cutting import KnownFaces
from data.dump import (
    COLUMNS,
    EARLIER,
    FAILURE_COLUMNS,
    FORMAT,
    LANDMARKS,
    MISSING_COLUMNS,
    NO_FACE,
    Dump,
    read_dump,
    read_missing,
    read_rows,
)
from data.dump_folder import DumpFolder, read_shard
from data.files import read_csv, replacing, write_csv, write_json
from data.pictures import FILE as PICTURES
from data.pictures import Print, digest_of, write_prints
from data.samples import Sample
from data.splits import fill_groups_and_splits

NOT_FINITE = "outputs that are not finite, or beyond the range of float16"
SPOILED = 0.05  # of the faces with changed or unreadable pictures: not the dataset of the dump

Shards = list[tuple[int, list[Sample]]]  # numbers of shards and their pictures


class DumpWriter(DumpFolder):
    """Writes a dump shard by shard, and continues where an earlier run with these settings stopped.

    A context, which locks the dump. Arguments: as of `DumpFolder`.
    """

    # The first pass.

    @property
    def faces_found(self) -> bool:
        return (self.out / "index.csv").is_file()

    def pending_faces(self) -> Shards:
        """(number, samples) of each shard whose faces are not on disk yet."""
        if self.faces_found:
            return []
        return [(n, self._samples_of(n)) for n in self._numbers if not self._shard(n).exists()]

    def write_faces(
        self,
        number: int,
        rows: Sequence[dict],
        failures: Sequence[tuple[str, str]],
        files: Sequence[Print] = (),
    ) -> None:
        """Write one shard.

        Args:
            failures: (path, reason) of every sample without a row.
            files: the files in which the samples were.
        """
        expected = sorted(sample.path for sample in self._samples_of(number))
        if sorted({row["path"] for row in rows} | {path for path, _ in failures}) != expected:
            raise ValueError(f"shard {number}: every sample must be in the rows or in the failures")
        lines = [[kind(row[name]) for name, kind in COLUMNS.items()] for row in rows]
        shard = {"rows": lines, "failures": sorted(failures), "files": files}
        with replacing(self._shard(number)) as file:
            file.write(json.dumps(shard).encode())

    def finish_faces(self) -> None:
        """Write index.csv and failures.csv, with a group and a split for every face."""
        if self.faces_found:
            return
        self._check_whole(self.pending_faces())
        hashes = {row["path"]: row["phash"] for row in self._rows()}
        kept = [sample for sample in self.samples if sample.path in hashes]
        kept = fill_groups_and_splits(kept, [hashes[sample.path] for sample in kept])
        chosen = {s.path: {"group": s.group, "split": s.split} for s in kept}
        rows = (row | chosen[row["path"]] for row in self._rows())
        lines = ([repr(v) if name in LANDMARKS else v for name, v in r.items()] for r in rows)
        write_csv(self.out / "failures.csv", FAILURE_COLUMNS, self._face_notes("failures"))
        write_prints(self.out / PICTURES, self._prints())
        write_csv(self.out / "index.csv", list(COLUMNS), lines)

    def _face_notes(self, name: str) -> Iterator[list]:
        for number in self._numbers:
            yield from read_shard(self._shard(number))[name]

    def _rows(self) -> Iterator[dict]:
        """Of an earlier version's shards, too, which did not keep people."""
        for row in self._face_notes("rows"):
            names = EARLIER if len(row) == len(EARLIER) else COLUMNS
            found = dict(zip(names, row, strict=True))
            yield {name: found.get(name, "") for name in COLUMNS}

    def _check_whole(self, pending: Shards) -> None:
        if pending:
            raise ValueError(f"{self.out}: {len(pending)} shards are missing")

    # The second pass.

    @cached_property
    def faces(self) -> KnownFaces:
        return KnownFaces(read_rows(self.out / "index.csv"), self.pictures.changed)

    def _with_faces(self, number: int) -> list[Sample]:
        return [sample for sample in self._samples_of(number) if sample.path in self.faces.of]

    @cached_property
    def _shards_with_faces(self) -> Shards:
        return [(n, samples) for n in self._numbers if (samples := self._with_faces(n))]

    def pending(self) -> Shards:
        """(number, samples with a face) of each shard that lacks an output of a new expert."""
        if self.complete:
            return []
        return [
            (number, samples)
            for number, samples in self._shards_with_faces
            if not all(self._shard(number, expert).exists() for expert in self.new)
        ]

    def write_outputs(
        self,
        number: int,
        which: np.ndarray,
        arrays: Mapping[str, np.ndarray],
        failures: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Write the outputs of all new experts for one shard.

        Args:
            which: (K,) rows of index.csv.
            arrays: `<expert>.<output>` -> (K, R, D); none where K is 0.
            failures: (path, reason) of the pictures whose faces have no output.
        """
        which, reasons = np.asarray(which, dtype=int), dict(failures)
        rows = [row for s in self._with_faces(number) for row in self.faces.of[s.path]]
        lost = [row for path in reasons for row in self.faces.of[path]]
        if sorted([*which.tolist(), *lost]) != rows:
            raise ValueError(f"shard {number}: these are not the faces of {self.out / 'index.csv'}")
        for expert in self.new:
            tensors, broken = {}, np.isin(rows, lost)
            for name in (name for name in arrays if name.startswith(f"{expert}.")):
                if len(arrays[name]) != len(which):
                    raise ValueError(
                        f"shard {number}: {len(arrays[name])} rows of {name}, not {len(which)}"
                    )
                tensors[name] = np.full((len(rows), *arrays[name].shape[1:]), np.nan, "<f2")
                with np.errstate(over="ignore"):
                    tensors[name][which - rows[0]] = arrays[name]
                broken |= ~np.isfinite(tensors[name]).all((1, 2))
            keys = [self.faces.key(rows[i]) for i in np.flatnonzero(broken)]
            missing = [(*key, expert, reasons.get(key[0], NOT_FINITE)) for key in keys]
            with replacing(self._shard(number, expert)) as file:
                file.write(save(tensors, metadata={"missing": json.dumps(missing)}))

    def finish(self, meta: Mapping) -> Dump:
        """Put the outputs of the new experts beside those that are there.

        meta: that of all experts; the format, the settings and the counts are added.
        """
        if self.complete:
            return read_dump(self.out)
        self._check_whole(self.pending())
        missing = self._missing()
        self._merge(len(meta["regions"]), meta["outputs"])
        write_csv(self.out / "missing.csv", MISSING_COLUMNS, sorted(missing))
        counts = self.meta.get("counts") or self._counts()
        self.meta = {"format": FORMAT, **meta, "config": self.config, "counts": counts}
        if prints := self._prints():
            self.meta["pictures"] = digest_of(prints)
        write_json(self.out / "meta.json", self.meta)
        self._tidy()
        return read_dump(self.out)

    def _missing(self) -> list[tuple[str, int, str, str]]:
        """What missing.csv has to hold."""
        found, faces, shards = [], {}, set()
        for number, _ in self._shards_with_faces:
            for path in (self._shard(number, expert) for expert in self.new):
                with safe_open(path, framework="numpy") as shard:
                    missing = [tuple(entry) for entry in json.loads(shard.metadata()["missing"])]
                found += missing
                if spoiled := {e[:2]: e[3] for e in missing if e[3] != NOT_FINITE}:
                    faces |= spoiled
                    shards.add(path)
        if len(faces) > SPOILED * len(self.faces):
            for path in shards:
                path.unlink()
            (image, _), reason = next(iter(faces.items()))
            raise ValueError(
                f"{self.out}: {len(faces)} of {len(self.faces)} faces have no usable picture any "
                f"more ({image}: {reason}). Put the pictures back and run the same command again, "
                "or use --overwrite"
            )
        kept = read_missing(self.out / "missing.csv") if self.meta else []
        return found + [entry for entry in kept if entry[2] in self.meta["weights"]]

    def _merge(self, regions: int, outputs: Mapping[str, Mapping]) -> None:
        """Write the arrays from the shards. To a memory map, a full disk would be a bus error."""
        for name, output in outputs.items():
            expert = name.partition(".")[0]
            if expert not in self.new:
                continue
            with replacing(self.out / f"{name}.npy") as file:
                shape = (len(self.faces), regions, output["size"])
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for number, samples in self._shards_with_faces:
                    shape = (sum(len(self.faces.of[s.path]) for s in samples), *shape[1:])
                    array = np.full(shape, np.nan, "<f2")  # all pictures of the shard were lost
                    with safe_open(self._shard(number, expert), framework="numpy") as shard:
                        if name in {*shard.keys()}:
                            array = shard.get_tensor(name)
                    if array.shape != shape:
                        raise ValueError(f"{name}: shape {array.shape}, expected {shape}")
                    file.write(array.tobytes())

    def _counts(self) -> dict[str, int]:
        failures = read_csv(self.out / "failures.csv", FAILURE_COLUMNS)
        no_face = sum(reason == NO_FACE for _, reason in failures)
        labels = Counter(self.faces.rows["label"].tolist())
        counts = {"images": len(self.samples), "kept": len(self.faces.of), "faces": len(self.faces)}
        counts |= {"real": labels[0], "fake": labels[1], "no_face": no_face}
        return {**counts, "unreadable": len(failures) - no_face}
