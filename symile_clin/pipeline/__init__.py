"""The program's commands as functions: wiring only. `symile_clin.pipeline.<command>(**flat_kwargs)`.

A command is imported when it is asked for, so that building a cohort never loads torch. No module here is called like a
command: importing it would put the module in the function's place. What holds for all of them is in guarded.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symile_clin.pipeline.auditing import audit as audit
    from symile_clin.pipeline.cohorts import build_cohort as build_cohort
    from symile_clin.pipeline.comparison import compare as compare
    from symile_clin.pipeline.delivering import sync_tracking as sync_tracking
    from symile_clin.pipeline.describe import describe_cohort as describe_cohort
    from symile_clin.pipeline.difference import diff_cohorts as diff_cohorts
    from symile_clin.pipeline.embeddings import embed as embed
    from symile_clin.pipeline.evaluation import evaluate as evaluate
    from symile_clin.pipeline.experiment import xor as xor
    from symile_clin.pipeline.exporting import export_run as export_run
    from symile_clin.pipeline.information import measure_information as measure_information
    from symile_clin.pipeline.plan import plan_cohort as plan_cohort
    from symile_clin.pipeline.preflight import check_cohort as check_cohort
    from symile_clin.pipeline.probing import probe as probe
    from symile_clin.pipeline.release import export_cohort as export_cohort
    from symile_clin.pipeline.release import import_cohort as import_cohort
    from symile_clin.pipeline.reporting import report as report
    from symile_clin.pipeline.searching import index as index
    from symile_clin.pipeline.searching import search as search
    from symile_clin.pipeline.server import ui as ui
    from symile_clin.pipeline.session import demo as demo
    from symile_clin.pipeline.sql import cohort_sql as cohort_sql
    from symile_clin.pipeline.synthesis import synth as synth
    from symile_clin.pipeline.training import train as train
    from symile_clin.pipeline.verification import verify_cohort as verify_cohort

_HOME = {
    "audit": "auditing",
    "build_cohort": "cohorts",
    "check_cohort": "preflight",
    "compare": "comparison",
    "describe_cohort": "describe",
    "cohort_sql": "sql",
    "demo": "session",
    "diff_cohorts": "difference",
    "embed": "embeddings",
    "evaluate": "evaluation",
    "export_cohort": "release",
    "export_run": "exporting",
    "import_cohort": "release",
    "index": "searching",
    "measure_information": "information",
    "plan_cohort": "plan",
    "report": "reporting",
    "search": "searching",
    "probe": "probing",
    "sync_tracking": "delivering",
    "synth": "synthesis",
    "train": "training",
    "ui": "server",
    "verify_cohort": "verification",
    "xor": "experiment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'symile_clin.pipeline' has no attribute '{name}'")
    guarded = import_module("symile_clin.pipeline.guarded").guarded
    return guarded(getattr(import_module(f"symile_clin.pipeline.{_HOME[name]}"), name))
