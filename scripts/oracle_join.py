"""A cohort's joins done again by loops over the CSV files, for some of its patients. Shares no code with the package.

    python scripts/oracle_join.py COHORT --tables DIR [--patients 600]

DIR holds mimic-iv/, mimic-cxr-jpg/ and mimic-iv-ecg/. Only tables are looked at, so the cohort must be one of
`symile_mimic` with --tables-only, or of sources in which no file is missing or broken. Ends with 1 if anything differs.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pandas as pd

HOUR = timedelta(hours=1)


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV file, gzipped or plain."""
    packed = path.with_name(path.name + ".gz")
    with gzip.open(packed, "rt", newline="") if packed.exists() else path.open(newline="") as file:
        yield from csv.DictReader(file)


def expected(tables: Path, subjects: set[str], labelled: set[str], items: set[str]) -> dict[int, dict[str, Any]]:
    """hadm_id -> what the paper's rules choose, for the admissions of some patients."""
    hosp, cxr = tables / "mimic-iv/hosp", tables / "mimic-cxr-jpg"
    patients = {row["subject_id"]: row for row in rows(hosp / "patients.csv") if row["subject_id"] in subjects}
    images, records, labs = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in rows(cxr / "mimic-cxr-2.0.0-metadata.csv"):
        if row["subject_id"] in subjects and row["ViewPosition"] in ("AP", "PA"):
            clock = row["StudyTime"].split(".")[0].zfill(6)
            time = datetime.strptime(row["StudyDate"] + clock, "%Y%m%d%H%M%S")
            images[row["subject_id"]].append((time, int(row["study_id"]), row["dicom_id"]))
    for row in rows(tables / "mimic-iv-ecg/record_list.csv"):
        if row["subject_id"] in subjects:
            records[row["subject_id"]].append((datetime.fromisoformat(row["ecg_time"]), int(row["study_id"])))
    for row in rows(hosp / "labevents.csv"):
        if row["subject_id"] in subjects and row["itemid"] in items and row["valuenum"]:
            event = (datetime.fromisoformat(row["charttime"]), int(row["labevent_id"]), float(row["valuenum"]))
            labs[row["subject_id"]].append((row["itemid"], event))
    found = {}
    for row in rows(hosp / "admissions.csv"):
        subject = row["subject_id"]
        if subject not in subjects:
            continue
        admitted, patient = datetime.fromisoformat(row["admittime"]), patients[subject]
        image = min((one for one in images[subject] if 24 * HOUR < one[0] - admitted <= 72 * HOUR), default=None)
        record = min((one for one in records[subject] if abs(one[0] - admitted) <= 24 * HOUR), default=None)
        values: dict[str, Any] = {}
        for item, event in sorted(labs[subject], reverse=True):  # the earliest comes last, and stays
            if abs(event[0] - admitted) <= 24 * HOUR:
                values[f"lab_{item}"] = event[2]
        if image and record and values and str(image[1]) in labelled:
            age = int(patient["anchor_age"]) + admitted.year - int(patient["anchor_year"])
            found[int(row["hadm_id"])] = {"cxr_dicom_id": image[2], "ecg_study_id": record[1], "age": age, **values}
    return found


@click.command(help=__doc__)
@click.argument("cohort", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tables", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--patients", default=600, show_default=True, help="Half of them of the cohort, half of all.")
def main(cohort: Path, tables: Path, patients: int) -> None:
    """Compare and print."""
    samples = pd.read_parquet(cohort / "samples.parquet")
    drawing = random.Random(0)
    everyone = sorted({row["subject_id"] for row in rows(tables / "mimic-iv/hosp/admissions.csv")})
    own = sorted(set(samples["subject_id"].astype(str)))
    subjects = {
        *drawing.sample(own, min(patients // 2, len(own))),
        *drawing.sample(everyone, min(patients, len(everyone)) // 2),
    }
    lab_columns = [name for name in map(str, samples) if name.startswith("lab_") and not name.endswith("_percentile")]
    labelled = {row["study_id"] for row in rows(tables / "mimic-cxr-jpg/mimic-cxr-2.0.0-chexpert.csv")}
    wanted = expected(tables, subjects, labelled, {name.removeprefix("lab_") for name in lab_columns})
    built = samples[samples["subject_id"].astype(str).isin(subjects)].set_index("hadm_id")
    wrong = set(built.index) ^ set(wanted)
    values = 0
    for hadm_id in set(built.index) & set(wanted):
        row = built.loc[hadm_id]
        same = {
            name: row[name] for name in ("cxr_dicom_id", "ecg_study_id", "age", *lab_columns) if pd.notna(row[name])
        }
        values += len(wanted[hadm_id])
        if same != wanted[hadm_id]:
            wrong.add(hadm_id)
    print(f"{len(wanted):,} admissions and {values:,} values of {len(subjects):,} patients: {len(wrong):,} differ.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
