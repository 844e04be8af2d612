"""Where runs are recorded. MLflow is imported when a run is started, never before."""

from symile_clin.tracking.base import NullTracker, Status, Tracker
from symile_clin.tracking.mlflow import MlflowTracker, add_metrics, start_run

__all__ = ["MlflowTracker", "NullTracker", "Status", "Tracker", "add_metrics", "start_run"]
