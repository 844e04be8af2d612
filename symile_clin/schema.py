"""Names that more than one room relies on: columns, files and directories. No modality is named here.

A modality's own columns are found through `Modality.columns`; their names live in its room.
"""

from __future__ import annotations

from typing import Final, Literal

# --- columns of samples.parquet, in order; each modality's columns follow ---
ROW: Final = "row"  #: index of the sample into every array
SAMPLE_ID: Final = "sample_id"  #: key of a sample, unique in its cohort
SPLIT: Final = "split"
SUBJECT_ID: Final = "subject_id"
HADM_ID: Final = "hadm_id"  #: may be null or repeated in cohorts that are not by admission
INDEX_TIME: Final = "index_time"
AGE: Final = "age"
GENDER: Final = "gender"
RACE: Final = "race"
ADMISSION_TYPE: Final = "admission_type"
ANCHOR_YEAR_GROUP: Final = "anchor_year_group"
NOT_CHECKED: Final = "not checked"  #: of a source's files, where a build looked into tables only
AGE_BAND: Final = "age_band"  #: no column: the ten-year band of `age`, where groups of samples are named
SAMPLE_COLUMNS: Final = (
    ROW, SAMPLE_ID, SPLIT, SUBJECT_ID, HADM_ID, INDEX_TIME, AGE, GENDER, RACE, ADMISSION_TYPE, ANCHOR_YEAR_GROUP,
)  # fmt: skip


def present_column(modality: str) -> str:
    """Name of the boolean column that says whether a sample has the modality."""
    return f"{modality}_present"


# --- columns of a room's events ---
EVENT_TIME: Final = "event_time"
EVENT_ID: Final = "event_id"  #: breaks ties in time; unique within a modality and key
KEY: Final = "key"  #: one event is taken per sample and key (itemid for labs); constant elsewhere
RANK: Final = "rank"  #: of an event in the window of its sample and key, from 1

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

# --- cohort directory ---
MANIFEST: Final = "manifest.json"
RELEASES: Final = "releases"  #: of the manifest's inputs: which release each source is
SAMPLES: Final = "samples.parquet"
ATTRITION: Final = "attrition.csv"
ATTRITION_SAMPLES: Final = "attrition.parquet"  #: patient-level: step and reason of every index event that left
EVENTS: Final = "events.csv"  #: what became of every event of every modality
QUARANTINE: Final = "quarantine.parquet"
INPUTS: Final = "inputs.parquet"  #: patient-level: every file that was read into arrays, and its digest
TIES: Final = "ties.parquet"  #: patient-level: what events at the very time of a chosen one would have given
TRUTH: Final = "truth.parquet"  #: planted factors; synthetic cohorts only
STATE_DIR: Final = "state"
ARRAYS_DIR: Final = "arrays"
CANDIDATES_DIR: Final = "candidates"
FIGURES_DIR: Final = "figures"

# --- columns of candidates/<split>.parquet ---
QUERY_ROW: Final = "query_row"
CANDIDATE_ROWS: Final = "candidate_rows"  #: the positive first
SAME_SUBJECT: Final = "same_subject"

# --- run directory ---
CONFIG: Final = "config.yaml"
METRICS_LOG: Final = "metrics.jsonl"
CHECKPOINTS_DIR: Final = "checkpoints"
BEST: Final = "best"
LAST: Final = "last"
EVAL_DIR: Final = "eval"
INFORMATION_DIR: Final = "information"
PROBES_DIR: Final = "probes"
AUDIT_DIR: Final = "audit"
INDEX_DIR: Final = "index"
RANKS: Final = "ranks.parquet"  #: patient-level: where every query's truth stood
RETRIEVAL: Final = "retrieval.csv"  #: every metric of every way of asking
EVALUATION: Final = "evaluation.json"  #: what was evaluated, on what
SUBGROUPS: Final = "subgroups.csv"
REPORT: Final = "report.html"
METRICS: Final = "metrics.json"
EMBEDDINGS: Final = "embeddings.npz"

# --- defaults, relative to the working directory ---
COHORTS_ROOT: Final = "data/cohorts"
SYNTHETIC_ROOT: Final = "data/synthetic"
RUNS_ROOT: Final = "runs"
COMPARISONS_ROOT: Final = "comparisons"
TRACKING_URI: Final = "sqlite:///mlflow.db"
