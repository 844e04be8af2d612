"""Modalities that a key links to samples: beside windows, and in cohorts without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from symile_clin.cohort.build import Assembled, assemble
from symile_clin.cohort.index import index_tables
from symile_clin.cohort.linking import count_linked
from symile_clin.cohort.spec import CohortSpec, load_spec
from symile_clin.cohort.workers import Workers
from symile_clin.errors import CohortError, ConfigError, SourceError, SymileClinError
from symile_clin.modalities.linked import Linked
from symile_clin.modalities.registry import ROOMS
from symile_clin.progress import Quiet
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree

HADMS = [20_000_001 + number for number in range(8)]
WINDOW = "{start: 0h, end: 1h, include_start: true, include_end: true}"
ALONE: dict[str, Any] = {
    "name": "alone",
    "index": {"event": "table", "path": "index.csv", "id": "pair"},
    "modalities": {
        "one": {"room": "features", "path": "one.npy", "key": "index_row"},
        "two": {"room": "features", "path": "two.parquet", "key": "item"},
    },
    "require": ["one", "two"],
    "splits": {"by": "subject", "train": 0.5, "val": 0.25, "test": "rest"},
    "candidates": {"target": "one", "n": 2},
    "preset": "features",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vectors(path: str, *, key: str = "hadm_id", **columns: Any) -> None:
    keys = columns.pop(key)
    rows = columns.pop("rows", [[float(number), 1.0] for number in range(len(keys))])
    pq.write_table(pa.table({key: keys, "vector": pa.array(rows, type=pa.list_(pa.float32())), **columns}), path)


def spec_of(raw: dict[str, Any], *overrides: str) -> CohortSpec:
    Path("spec.yaml").write_text(dump_yaml(apply_overrides(raw, overrides)))
    return load_spec("spec.yaml", (), ROOMS)


def assembled(spec: CohortSpec, roots: dict[str, Path] | None = None) -> Assembled:
    modalities = spec.make_modalities(ROOMS)
    tables = {table.name: table for one in modalities.values() for table in one.tables}
    number = len(list(Path().glob("cache*")))
    cache = ParquetCache(
        [*index_tables(spec.index), *tables.values()], roots=roots or {}, directory=Path(f"cache{number}"),
        progress=Quiet(),
    )  # fmt: skip
    with DuckDbCatalog(cache, threads=1) as catalog, Workers(1) as workers:
        return assemble(
            spec, modalities, catalog=catalog, work=Path(f"work{number}"), workers=workers, progress=Quiet()
        )


def tree() -> dict[str, Path]:
    """Eight complete admissions of as many patients."""
    tree = Tree(Path("tree"))
    for number, hadm in enumerate(HADMS):
        tree.complete(10_000_001 + number, hadm, ADMITTED + number * HOUR)
    return tree.write()


def beside(roots: dict[str, Path], *overrides: str, require: str = "[cxr, ecg, labs]") -> Assembled:
    given = ("modalities.notes={room: features, path: notes.parquet, key: hadm_id}", f"require={require}", *overrides)
    return assembled(spec_of(SPEC, *given), roots)


def has(built: Assembled) -> list[bool]:
    present: list[bool] = built.samples.sort_values("hadm_id")["notes_present"].tolist()
    return present


def events_of(built: Assembled, name: str, spec: CohortSpec) -> dict[str, int]:
    modality = spec.make_modalities(ROOMS)[name]
    assert isinstance(modality, Linked)
    counts = count_linked(modality, samples=built.samples, chosen=built.chosen[name], refused=built.attrition.refused)
    assert counts["events"].sum() == len(modality.rows())
    return dict(zip(counts["reason"], counts["events"], strict=True))


def test_vectors_are_found_by_admission_and_may_be_absent() -> None:
    vectors("notes.parquet", hadm_id=[HADMS[6], None, HADMS[1], 999, HADMS[3]])
    built = beside(tree())
    assert has(built) == [number in (1, 3, 6) for number in range(8)]
    keys = built.samples.sort_values("hadm_id")["notes_key"]
    assert keys.fillna("-").tolist() == [str(h) if n in (1, 3, 6) else "-" for n, h in enumerate(HADMS)]
    assert len(built.attrition.left()) == 0
    spec = load_spec("spec.yaml", (), ROOMS)
    assert events_of(built, "notes", spec) == {
        "in the cohort": 3, "of no sample of the cohort": 1, "not eligible: no hadm_id": 1,
    }  # fmt: skip


def test_a_sample_that_needs_a_vector_leaves_without_one() -> None:
    rows: list[Any] = [[0.0, 1.0], [float("nan"), 1.0], [2.0, 2.0]]
    vectors("notes.parquet", hadm_id=HADMS[:3], rows=rows)
    built = beside(tree(), require="[notes, labs]")
    assert built.samples["hadm_id"].tolist() == [HADMS[0], HADMS[2]]
    table = built.attrition.table()
    gone = {row.reason: row.samples for row in table.itertuples() if row.step == "notes"}
    assert gone == {"no row of its hadm_id": 5, "missing values": 1}
    assert built.attrition.quarantine()[["modality", "id", "reason"]].to_numpy().tolist() == [
        ["notes", str(HADMS[1]), "missing values"]
    ]
    spec = load_spec("spec.yaml", (), ROOMS)
    assert events_of(built, "notes", spec)["refused: missing values"] == 1


def test_a_vector_of_a_patient_is_that_of_each_sample() -> None:
    tree = Tree(Path("tree"))
    for number, hadm in enumerate(HADMS[:4]):
        tree.complete(10_000_001 + number // 2, hadm, ADMITTED + number % 2 * 900 * HOUR)
    vectors("notes.parquet", key="subject_id", subject_id=[10_000_002])
    built = beside(tree.write(), "modalities.notes.key=subject_id")
    assert has(built) == [False, False, True, True]


@pytest.mark.parametrize("require", ["[cxr, ecg, labs]", "{at_least: 4}"])
def test_the_key_may_be_the_id_of_another_modalitys_event(require: str) -> None:
    roots = tree()
    image = beside_images(roots)
    vectors("notes.parquet", key="cxr_dicom_id", cxr_dicom_id=[image[5], image[2], "another"])
    built = beside(roots, "modalities.notes.key=cxr_dicom_id", require=require)
    present = built.samples.set_index("hadm_id")["notes_present"]
    expected = {h: n in (2, 5) for n, h in enumerate(HADMS) if require[0] == "[" or n in (2, 5)}
    assert present.to_dict() == expected
    assert built.samples.loc[present.to_numpy(), "notes_key"].tolist() == [image[2], image[5]]


def beside_images(roots: dict[str, Path]) -> list[str]:
    images: list[str] = assembled(spec_of(SPEC), roots).samples.sort_values("hadm_id")["cxr_dicom_id"].tolist()
    return images


def test_at_least_counts_linked_modalities() -> None:
    vectors("notes.parquet", hadm_id=HADMS[:2])
    built = beside(tree(), require="{all: [cxr], at_least: 4}")
    assert built.samples["hadm_id"].tolist() == HADMS[:2]


def test_samples_of_every_event_take_the_vector_of_their_admission() -> None:
    vectors("notes.parquet", hadm_id=HADMS[:2])
    built = beside(tree(), "modalities.ecg.take=all")
    assert has(built) == [True, True] + [False] * 6
    assert "/" in built.samples["sample_id"].iloc[0]


@pytest.mark.parametrize(
    ("override", "match"),
    [
        (f"modalities.notes.window={WINDOW}", "'modalities.notes.window': leave it out"),
        ("modalities.notes.take=earliest", "'modalities.notes.take': leave it out, features are found by 'key'"),
        ("modalities.notes.key=hadmid", r"'modalities\.notes\.key': no column 'hadmid' \(did you mean 'hadm_id'\?\)"),
        ("modalities.notes.key=index_row", r"'modalities\.notes\.key'"),
        ("modalities.ecg={take: earliest}", r"'modalities\.ecg\.window' is missing"),
        ("index={event: admission}", "'time' is missing; it is one of admittime"),
        ("modalities.notes.path=none.parquet", r"no file none\.parquet"),
    ],
)  # fmt: skip
def test_specs_that_make_no_sense(override: str, match: str) -> None:
    vectors("notes.parquet", hadm_id=HADMS)
    with pytest.raises(ConfigError, match=match):
        spec_of(SPEC, "modalities.notes={room: features, path: notes.parquet, key: hadm_id}", override)


def test_no_sample_finds_a_vector() -> None:
    vectors("notes.parquet", hadm_id=[1, 2])
    with pytest.raises(CohortError, match=r"none of 8 samples has a hadm_id that is in notes\.parquet"):
        beside(tree())


# --- alone ---


def alone(index: str, *overrides: str, rows: int = 4) -> Assembled:
    Path("index.csv").write_text(index)
    np.save("one.npy", np.arange(2.0 * rows).reshape(rows, 2))
    vectors("two.parquet", key="item", item=["x", "y"])
    return assembled(spec_of(ALONE, *overrides))


def test_a_table_without_times_stands_alone() -> None:
    built = alone("pair,item,more\nd,x,1\nb,y,2\n007,x,3\na,none,4\n")
    samples = built.samples
    assert samples["sample_id"].tolist() == ["d", "b", "007"]  # in the table's order
    assert samples["subject_id"].tolist() == [1, 2, 3]  # each its own
    assert samples[["one_key", "two_key"]].to_numpy().tolist() == [["0", "x"], ["1", "y"], ["2", "x"]]
    assert samples[["hadm_id", "index_time", "age", "gender", "race"]].isna().all().all()
    assert not [column for column in samples.columns if "item" in column or "index_row" in column or "more" in column]
    assert built.attrition.table()["reason"].tolist() == ["", "no row of its item", ""]


def test_rows_are_counted_in_the_tables_order_whatever_order_samples_have() -> None:
    built = alone("subject_id,pair,item\n9,a,x\n3,b,x\n9,c,y\n1,d,y\n")
    assert dict(zip(built.samples["sample_id"], built.samples["one_key"], strict=True)) == {
        "a": "0", "b": "1", "c": "2", "d": "3",
    }  # fmt: skip
    assert built.samples["subject_id"].tolist() == [1, 3, 9, 9]


@pytest.mark.parametrize(
    ("index", "rows", "kind", "match"),
    [
        ("pair,item\na,x\nb,y\n", 3, CohortError, r"one\.npy has 3 rows.*index table has 2.*row i belongs to row i"),
        ("pair,item\na,x\na,y\n", 2, SourceError, "2 rows but 1 values of pair"),
        ("pair,thing\na,x\n", 1, SourceError, "has no column item"),
        ("pair,item,subject_id\na,x,1\nb,x,\n", 2, SourceError, "1 rows without subject_id or pair"),
        ("pair,item,subject_id\na,x,p1\n", 1, SourceError, "subject_id"),
        ("pair,item\n", 1, CohortError, "the cohort is empty"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(index: str, rows: int, kind: type[SymileClinError], match: str) -> None:
    with pytest.raises(kind, match=match):
        alone(index, rows=rows)


def test_a_table_without_times_has_no_windows() -> None:
    np.save("one.npy", np.ones((2, 2)))
    vectors("two.parquet", key="item", item=["x", "y"])
    with pytest.raises(ConfigError, match=r"'index\.time' is missing, from which the window of 'ecg' is measured"):
        spec_of(ALONE, f"modalities.ecg={{window: {WINDOW}, take: latest}}")


def test_a_table_with_times_links_by_its_columns_beside_windows() -> None:
    roots = tree()
    rows = [f"v{n},{10_000_001 + n},{hadm},{ADMITTED + n * HOUR},i{n}" for n, hadm in enumerate(HADMS)]
    Path("visits.csv").write_text("visit,subject_id,hadm_id,time,item\n" + "\n".join(reversed(rows)) + "\n")
    vectors("notes.parquet", key="item", item=["i3", "i5"])
    index = "index={event: table, path: visits.csv, id: visit, time: time}"
    built = beside(roots, index, "modalities.notes.key=item", require="[notes, ecg]")
    assert built.samples["sample_id"].tolist() == ["v3", "v5"]
    assert built.samples["gender"].tolist() == ["F", "F"]
    assert pd.api.types.is_integer_dtype(built.samples["hadm_id"].dtype)
