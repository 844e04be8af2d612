"""A tiny Symile-MIMIC release, written from numbers as the published code orders and types them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Itemids in the order of the published constants, labs_means.json and the tables; here only some of them.
ITEMS = ("51221", "50912", "52135", "50802")
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
SPLIT_COLUMNS = (
    "subject_id", "hadm_id", "cxr_path", "Atelectasis", "Cardiomegaly", "Edema", "Lung Opacity", "No Finding",
    "Pleural Effusion", "ecg_path", *ITEMS,
)  # fmt: skip


@dataclass
class FakeRelease:
    """What was written.

    Attributes:
        table: symile_mimic_data.csv.
        splits: hadm_ids of train, val, test, in the release's order.
        lists: by split: query hadm_id -> hadm_ids of its negatives, in order.
        cxr, ecg, percentile: by hadm_id.
    """

    root: Path
    table: pd.DataFrame
    splits: dict[str, list[int]]
    lists: dict[str, dict[int, list[int]]]
    cxr: dict[int, NDArray[np.float32]]
    ecg: dict[int, NDArray[np.float32]]
    percentile: dict[int, NDArray[np.float32]]


def write_release(
    root: Path, *, admissions: int = 40, dropped: int = 3, side: int = 32, candidates: int = 5, seed: int = 0
) -> FakeRelease:
    """Write a release; two of three patients have one admission, the others two in the same split."""
    rng = np.random.default_rng(seed)
    table = _table(admissions, rng)
    order = [int(one) for one in rng.permutation(table["subject_id"].unique())]
    subjects = {
        "train": order[: len(order) // 2],
        "val": order[len(order) // 2 : 3 * len(order) // 4],
        "test": order[3 * len(order) // 4 :],
    }
    splits = {
        split: [int(one) for one in rng.permutation(table.loc[table["subject_id"].isin(chosen), "hadm_id"])]
        for split, chosen in subjects.items()
    }
    splits["train"] = splits["train"][dropped:]  # as if their patients were elsewhere
    means, rows = _percentiles(table, splits["train"])
    by_hadm = {
        "cxr": {int(h): rng.normal(size=(3, side, side)).astype(np.float32) for h in table["hadm_id"]},
        "ecg": {int(h): np.round(rng.uniform(-1, 1, (1, 5000, 12)), 3).astype(np.float32) for h in table["hadm_id"]},
    }
    sorted_items = sorted(ITEMS, key=lambda item: f"{item}_percentile")
    percentile, observed = {}, {}
    for _, row in rows.iterrows():
        values = [row[item] for item in sorted_items]
        filled = [means[f"{item}_percentile"] if np.isnan(value) else row[f"{item}_percentile"]
                  for item, value in zip(sorted_items, values, strict=True)]  # fmt: skip
        percentile[int(row["hadm_id"])] = np.array(filled, dtype=np.float32)
        observed[int(row["hadm_id"])] = np.array([not np.isnan(value) for value in values], dtype=np.int64)
    root.mkdir(parents=True)
    table.to_csv(root / "symile_mimic_data.csv", index=False)
    (root / "labs_means.json").write_text(json.dumps(means, indent=4))
    rows = rows.set_index("hadm_id", drop=False)
    percentile_columns = [f"{item}_percentile" for item in ITEMS]
    lists: dict[str, dict[int, list[int]]] = {}
    for split, name in (("train", "train"), ("val", "val"), ("val", "val_retrieval"), ("test", "test")):
        own = splits[split]
        hadm, label_hadm, label = own, own, [1] * len(own)
        if name in ("val_retrieval", "test"):
            lists[split] = {
                query: [int(one) for one in rng.choice([h for h in own if h != query], candidates - 1, replace=False)]
                for query in own
            }
            hadm = own + [one for query in own for one in lists[split][query]]
            label_hadm = own + [query for query in own for _ in lists[split][query]]
            label = [1] * len(own) + [0] * (len(hadm) - len(own))
        frame = rows.loc[hadm, [*SPLIT_COLUMNS, *percentile_columns]]
        if name != "train":
            frame = frame.assign(label_hadm_id=label_hadm, label=label)
        frame.to_csv(root / f"{name}.csv", index=False)
        arrays: dict[str, Any] = {stem: np.stack([values[h] for h in hadm]) for stem, values in by_hadm.items()}
        arrays["labs_percentiles"] = np.stack([percentile[h] for h in hadm])
        arrays["labs_missingness"] = np.stack([observed[h] for h in hadm])
        arrays["hadm_id"] = np.array(hadm, dtype=np.int64)
        if name in ("val_retrieval", "test"):
            arrays |= {"label_hadm_id": np.array(label_hadm), "label": np.array(label)}
        folder = root / "data_npy" / name
        folder.mkdir(parents=True)
        for stem, array in arrays.items():
            np.save(folder / f"{stem}_{name}.npy", array)
    write_sums(root)
    return FakeRelease(root, table, splits, lists, by_hadm["cxr"], by_hadm["ecg"], percentile)


def write_sums(root: Path) -> None:
    """SHA256SUMS.txt as PhysioNet writes it."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "SHA256SUMS.txt")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root)}" for path in paths]
    (root / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")


def _table(admissions: int, rng: np.random.Generator) -> pd.DataFrame:
    number = np.arange(admissions)
    subject = 10_000_000 + number // 3 * 2 + (number % 3 == 2)
    hadm = 20_000_000 + number
    time = pd.Timestamp("2150-01-01 10:00:00") + pd.to_timedelta(number * 100, unit="h")
    dicom = [f"{one:08x}-00000000-00000000-00000000-00000001" for one in number]
    study, ecg = 50_000_000 + number, 40_000_000 + number
    columns: dict[str, Any] = {
        "subject_id": subject, "hadm_id": hadm, "admittime": time, "dischtime": time + pd.Timedelta("9D"),
        "deathtime": None, "admission_type": "URGENT", "admission_location": "EMERGENCY ROOM",
        "discharge_location": "HOME", "race": "WHITE", "hospital_expire_flag": 0, "gender": "F", "anchor_age": 60,
        "anchor_year": 2149, "dod": None, "admittime_year": time.year, "age": 60 + time.year - 2149,
        "cxr_24_72_hr": dicom, "cxr_dicom_id": dicom, "cxr_study_id": study, "cxr_ViewPosition": "AP",
        "cxr_ViewCodeSequence_CodeMeaning": "antero-posterior", "cxr_StudyDateTime": time + pd.Timedelta("30h"),
        "cxr_path": [f"files/p10/p{s}/s{t}/{d}.jpg" for s, t, d in zip(subject, study, dicom, strict=True)],
        "study_id": study, **{finding: rng.choice([1.0, 0.0, -1.0, np.nan], admissions) for finding in FINDINGS},
        "ecg_adm": ecg, "ecg_study_id": ecg, "ecg_file_name": ecg, "ecg_time": time - pd.Timedelta("2h"),
        "ecg_path": [f"files/p1000/p{s}/s{e}/{e}" for s, e in zip(subject, ecg, strict=True)],
        **{item: np.where(rng.random(admissions) < 0.7, np.round(rng.normal(40, 5, admissions), 1), np.nan)
           for item in ITEMS[1:]},
        "labs_all_nan": 0,
    }  # fmt: skip
    table = pd.DataFrame(columns)
    table.insert(table.columns.get_loc(ITEMS[1]), ITEMS[0], np.round(rng.normal(40, 5, admissions), 1))  # type: ignore[arg-type]  # one place
    return table


def _percentiles(table: pd.DataFrame, train: Sequence[int]) -> tuple[dict[str, float], pd.DataFrame]:
    """Mean percentiles in train, and the table with percentiles, by counting."""
    rows = table.copy()
    fitted = rows["hadm_id"].isin(train)
    for item in ITEMS:
        seen = rows.loc[fitted & rows[item].notna(), item].to_numpy()
        share = [np.nan if np.isnan(value) else (seen <= value).sum() / len(seen) for value in rows[item]]
        rows[f"{item}_percentile"] = share
    return {f"{item}_percentile": float(rows.loc[fitted, f"{item}_percentile"].mean()) for item in ITEMS}, rows
