"""One Spark application for a build: quiet, private, and ended with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from symile_clin.errors import ConfigError
from symile_clin.sources.memory import memory_bytes
from symile_clin.sources.spill import spill_folder

INSTALL: Final = "Install the engine with `pip install 'symile-clin[spark]'`, and a JDK 17"
LOG: Final = "spark.log"
SECONDS_TO_END: Final = 30
#: Spark starts with no less.
LEAST_MEBIBYTES: Final = 512


@contextmanager
def spark_session(
    *, master: str | None = None, memory: str = "2GB", threads: int | None = None, directory: Path
) -> Iterator[Any]:
    """A Spark session of this process' own.

    Args:
        master: of the cluster; None runs Spark on this machine, whatever the environment or spark-defaults.conf name.
        memory: of the driver, which on this machine does all the work, e.g. "2GB".
        threads: on this machine; None takes one per core.
        directory: gets a private folder for all that Spark writes (on a cluster, for the driver's part); it is removed.

    Raises:
        ConfigError: there is no pyspark or no Java, the master cannot be reached, or this process runs Spark already.
    """
    try:
        with _without_words_on_pandas():
            from pyspark import SparkConf, SparkContext
            from pyspark.errors import PySparkException
            from pyspark.java_gateway import launch_gateway
            from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError("the engine pyspark is not installed", remedy=INSTALL) from None
    if SparkContext._active_spark_context is not None:
        raise ConfigError("this process runs Spark already", remedy="Build in a process of its own")
    local = master is None or master.startswith("local")
    cores = threads or len(os.sched_getaffinity(0))
    with spill_folder(directory) as private:
        conf = SparkConf(loadDefaults=False).setAll(
            _settings(master or f"local[{cores}]", local=local, memory=memory, private=private).items()
        )
        with (private / LOG).open("wb") as log:  # Java's own words are for nobody
            try:
                gateway = launch_gateway(conf, {"stdout": log, "stderr": log, "cwd": str(private)})
            except (PySparkException, OSError):
                raise ConfigError(f"Spark does not start{_last_words(private)}", remedy=INSTALL) from None
        try:
            try:
                with _without_words_on_pandas():
                    context = SparkContext(conf=conf, gateway=gateway)
            except Exception:  # py4j's, of which there are many
                raise ConfigError(
                    f"Spark does not start on {master or 'this machine'}{_last_words(private)}",
                    remedy="Look at --spark-master" if master else INSTALL,
                ) from None
            if local:  # its Python is this one, not the first in the PATH
                context.pythonExec = sys.executable
            context.setLogLevel("ERROR")
            with _without_words_on_pandas():
                session = SparkSession(context)
            try:
                yield session
            finally:
                session.stop()
        finally:
            gateway.shutdown()
            SparkContext._gateway = SparkContext._jvm = None
            _end(gateway.proc)


@contextmanager
def _without_words_on_pandas() -> Iterator[None]:
    """PySpark warns of its pandas conversions, wherever it first loads what has to do with them; none is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _settings(master: str, *, local: bool, memory: str, private: Path) -> dict[str, str]:
    settings = {
        "spark.master": master,
        "spark.app.name": "symile-clin",
        "spark.driver.memory": f"{max(memory_bytes(memory) >> 20, LEAST_MEBIBYTES)}m",
        "spark.driver.maxResultSize": "0",  # answers are as large as they are
        "spark.log.level": "ERROR",
        "spark.local.dir": str(private),
        "spark.sql.catalogImplementation": "in-memory",  # no metastore
        "spark.sql.warehouse.dir": str(private / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        # What does not fit a type is an error, as in DuckDB; null only where an expression says try_cast.
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        "spark.speculation": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={private} -Duser.timezone=UTC",
    }
    if local:  # nobody else needs to reach it
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "4",
        }
    return settings


def _last_words(private: Path) -> str:
    """Why Java says it failed, in one line."""
    lines = (private / LOG).read_text(errors="replace").splitlines()
    told = [line.strip() for line in lines if re.search(r"Exception|Error|JAVA|java", line)]
    return f": {told[0][:200]}" if told else ""


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Java ends by itself when its stdin is closed; see that it does."""
    if process is None:
        return
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
