"""One line each, exit codes that scripts can rely on, and safe passage between processes."""

import pickle

import pytest

from symile_clin import errors


def test_message_is_found_expected_remedy_in_one_line() -> None:
    error = errors.SourceError("no labevents.csv", expected="hosp/labevents.csv.gz", remedy="Check --mimic-iv")
    assert str(error) == "no labevents.csv. Expected hosp/labevents.csv.gz. Check --mimic-iv."


def test_a_remedy_that_asks_keeps_its_question_mark() -> None:
    assert str(errors.NotFoundError("no preset 'dmo'", remedy="Did you mean 'demo'?")).endswith("'demo'?")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.NotFoundError, 2),
        (errors.SourceError, 3),
        (errors.CohortError, 3),
        (errors.MismatchError, 3),
        (errors.BusyError, 1),
        (errors.TrainingError, 1),
        (errors.TrackingError, 1),
    ],
)
def test_exit_codes(kind: type[errors.SymileClinError], code: int) -> None:
    assert kind("x").exit_code == code


def test_an_error_raised_in_a_worker_arrives_whole() -> None:
    sent = errors.CohortError("empty", expected="samples", remedy="Widen the window")
    arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301  what multiprocessing itself does
    assert type(arrived) is errors.CohortError
    assert str(arrived) == str(sent)
    assert arrived.remedy == "Widen the window"


def test_what_a_disk_refused_a_worker_is_known_to_who_started_it() -> None:
    refused = errors.Refused("a.npy", "No space left on device", is_full=True)
    sent = errors.DiskError("full", expected="room", remedy="Free some", refused=refused)
    arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301  what multiprocessing itself does
    assert (str(arrived), arrived.refused) == (str(sent), refused)


def test_a_training_that_was_stopped_leaves_as_if_the_signal_had_ended_it() -> None:
    sent = errors.StoppedError("stopped", signal=15, remedy="Go on")
    arrived = pickle.loads(pickle.dumps(sent))  # noqa: S301  what multiprocessing itself does
    assert [(error.exit_code, error.signal, str(error)) for error in (sent, arrived)] == [
        (143, 15, "stopped. Go on.")
    ] * 2
