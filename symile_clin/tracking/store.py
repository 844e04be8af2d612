"""Where MLflow keeps runs: which stores are allowed, how one is opened, where its artifacts lie.

A local store is an SQLite file with the folder `mlartifacts` beside it, as an MLflow server started there would lay
it out. Artifacts are filed under `mlflow-artifacts:/...`, so no path of this machine is recorded and the two can be
moved together.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from symile_clin import files
from symile_clin.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Environment of this process and of the UI's server; what the user has set stands. Telemetry is off from the package's
#: __init__ on, for MONAI imports MLflow, too.
QUIET_MLFLOW: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
#: How long a server may keep the work waiting: MLflow by itself tries for minutes. A try of 10 s and two more.
PATIENCE: Mapping[str, str] = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
#: Beside the database; where an MLflow server started there looks by itself.
ARTIFACTS_FOLDER = "mlartifacts"
_ARTIFACTS_SCHEME = "mlflow-artifacts:/"
_LOCAL_SCHEMES = ("", "file", "mlflow-artifacts")


def database_of(uri: str, *, allow_remote: bool = False) -> Path | None:
    """The SQLite file of a local store; None of a remote one.

    Raises:
        TrackingError: neither, or a remote store where that is not allowed.
    """
    scheme, found, place = uri.partition("://")
    if scheme == "sqlite" and len(place) > 1:
        return Path(place.removeprefix("/").partition("?")[0])
    if not found or scheme in ("sqlite", "file"):
        raise TrackingError(f"MLflow cannot keep runs in {uri!r}", expected="a database such as sqlite:///mlflow.db")
    if not allow_remote:
        raise TrackingError(
            f"a tracking store at {scheme}:// may be on another machine",
            expected="a local one such as sqlite:///mlflow.db",
            remedy="MIMIC's data use agreement forbids sharing the data and what is derived from them; "
            "if the place is yours, say --allow-remote-tracking",
        )
    return None


def refuse_remote_artifacts(database: Path) -> None:
    """Refuse a local database whose experiments keep their files elsewhere: nothing may leave this machine unasked.

    Raises:
        TrackingError: one does.
    """
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    except sqlite3.Error:  # new, damaged or another's: whoever opens it says so
        return
    for name, location in found:
        place = urlsplit(location or "")
        if place.scheme not in _LOCAL_SCHEMES or place.netloc not in ("", "localhost"):
            raise TrackingError(
                f"files of experiment '{name}' in {database} go to {place.scheme}://, which may be on another machine",
                expected="a store that keeps them here",
                remedy="Name another store with --tracking-uri; if that place is yours, say --allow-remote-tracking",
            )


@contextmanager
def opened(uri: str, database: Path | None) -> Iterator[MlflowClient]:
    """A client of the store; a local one under its lock, for processes that open a new one race in its migrations."""
    for key, value in {**QUIET_MLFLOW, **PATIENCE}.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's dependencies deprecate each other
        from mlflow import MlflowClient
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        logging.getLogger("alembic").setLevel(logging.WARNING)
        # its errors come to us as exceptions; the log repeats them as pages of traceback, with what was to be stored
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        if database is None:
            yield MlflowClient(uri)
            return
        with files.lock(database.with_name(f".{database.name}.lock"), wait=True):
            if database.exists():
                probe(database)
            else:
                # else MLflow's "Default" experiment records where we are
                SqlAlchemyStore(_wherever_we_go(uri, database), _ARTIFACTS_SCHEME)
            yield MlflowClient(_wherever_we_go(uri, database))


def _wherever_we_go(uri: str, database: Path) -> str:
    """The local store's address from the root on: MLflow keeps connections by address, another folder's too."""
    place = str(database.absolute())
    if any(sign in place for sign in "?#%"):  # which addresses take for signs of their own
        return uri
    _, has_options, options = uri.partition("?")
    return f"sqlite:///{place}{has_options}{options}"


def probe(database: Path) -> None:
    """Fail at once where the file is no database: MLflow would retry for 100 seconds.

    Raises:
        TrackingError: what SQLite says.
    """
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise TrackingError(
            f"the tracking store {database} cannot be opened: {error}", remedy="Move it away or use --tracking-uri"
        ) from None


def experiment_id(client: MlflowClient, name: str, database: Path | None) -> str:
    """The experiment of that name, made if it is not there."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None if database is None else f"{_ARTIFACTS_SCHEME}{name}"
    return str(client.create_experiment(name, artifact_location=location))


def local_artifacts(artifact_uri: str, database: Path | None) -> Path | None:
    """The folder behind a run's `artifact_uri` in a local store; None where only MLflow can reach it."""
    if database is None or not artifact_uri.startswith(_ARTIFACTS_SCHEME):
        return None
    return database.parent / ARTIFACTS_FOLDER / artifact_uri.removeprefix(_ARTIFACTS_SCHEME).lstrip("/")
