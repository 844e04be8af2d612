"""Where runs are recorded. MLflow is imported when a run is started, never before."""

from symile_clin.tracking.base import Artifact, NullTracker, Status, Tracker
from symile_clin.tracking.mlflow import MlflowTracker, add_results, resume_run, start_run

__all__ = ["Artifact", "MlflowTracker", "NullTracker", "Status", "Tracker", "add_results", "resume_run", "start_run"]
