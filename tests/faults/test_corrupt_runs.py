"""Damaged cohort files, checkpoints and run files: every command that reads one ends with one line, never a traceback.

What a damaged file could pass for (a changed weight, a changed rank) is told by the digests and checksums that the
program itself writes; what it cannot be told by is asserted as such at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from symile_clin.cli import run
from symile_clin.errors import SymileClinError
from symile_clin.pipeline import evaluation
from symile_clin.progress import Quiet
from tests.faults.corrupt_images import good_jpeg
from tests.faults.kinds import FAULTS, FORMATS
from tests.faults.test_corrupt_files import KINDS
from tests.faults.test_corrupt_tables import SETTINGS, TABLES
from tests.report.evaluated import evaluated_run

Damage = Callable[[bytes], bytes]
CHECKPOINT: Final = "runs/one/checkpoints/best"
LAST: Final = "runs/cut/checkpoints/last"
RESULTS: Final = "runs/one/eval/val"
COHORT: Final = "data/cohorts/tiny"
EVAL: Final = ("eval", "one", "--split", "val", "--bootstrap", "10", "--no-tracking", "--device", "cpu")
RESUME: Final = ("train", "--resume", "--name", "cut", "--no-tracking", "--device", "cpu")
TENSOR: Final = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
COMPARE: Final = ("compare", "one", "other", "--split", "val", "--no-tracking")
REPORT: Final = ("report", "one", "--split", "val")


def _flip(at: float) -> Damage:
    def change(data: bytes) -> bytes:
        place = int(len(data) * at)
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return change


WHOLE: Final[dict[str, Damage]] = {
    "truncated, empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "zero-filled": lambda data: bytes(len(data)),
    "zero-filled, the end": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "wrong type": lambda _: good_jpeg(),
}
#: A header of 1 TB, and a tensor of 4 TB.
BOMBS: Final[dict[str, Damage]] = {
    "bomb, a header": lambda _: (1 << 40).to_bytes(8, "little") + TENSOR,
    "bomb, a tensor": lambda _: len(TENSOR).to_bytes(8, "little") + TENSOR,
}
FLIPPED: Final[dict[str, Damage]] = {"flipped byte": _flip(0.7)}
JSON: Final[dict[str, Damage]] = {
    "swapped": lambda _: b'{"stage": "cohort"}',
    "a list": lambda _: b"[1, 2]",
    "null": lambda _: b"null",
}
#: File, command that reads it, and what is done to it.
FILES: Final[list[tuple[str, tuple[str, ...], dict[str, Damage]]]] = [
    (f"{CHECKPOINT}/model.safetensors", EVAL, WHOLE | FLIPPED | BOMBS),
    (f"{LAST}/model.safetensors", RESUME, WHOLE | FLIPPED),
    (f"{LAST}/training.pt", RESUME, WHOLE | FLIPPED | {"flipped byte, early": _flip(0.1)}),
    ("runs/cut/started.json", RESUME, WHOLE | JSON),
    ("runs/cut/config.yaml", RESUME, WHOLE | {"a list": lambda _: b"- a\n"}),
    ("runs/one/manifest.json", EVAL, WHOLE | JSON),
    ("runs/one/config.yaml", EVAL, WHOLE | {"a list": lambda _: b"- a\n"}),
    (f"{RESULTS}/ranks.parquet", COMPARE, WHOLE | {f"flipped byte {at}": _flip(at) for at in (0.05, 0.1, 0.4)}),
    (f"{RESULTS}/evaluation.json", COMPARE, WHOLE | JSON),
    (f"{RESULTS}/metrics.json", COMPARE, WHOLE | FLIPPED | {"a list": lambda _: b"[1, 2]"}),
    (f"{RESULTS}/embeddings.npz", REPORT, WHOLE | FLIPPED),
    (f"{COHORT}/manifest.json", EVAL, WHOLE),
    (f"{COHORT}/samples.parquet", EVAL, WHOLE),
    (f"{COHORT}/candidates/val.parquet", EVAL, WHOLE),
    (f"{COHORT}/arrays/red/percentile.npy", EVAL, {name: WHOLE[name] for name in WHOLE if "the end" not in name}),
    (f"{COHORT}/state/red.json", ("export", "one"), WHOLE | {"null": lambda _: b"null"}),
]
CASES: Final = [(file, command, how, damage) for file, command, ways in FILES for how, damage in ways.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with an evaluated run, its like, and one that was cut short after a checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        evaluated_run(root)
        shutil.copytree("runs/one", "runs/other")
        shutil.copytree("runs/one", "runs/cut")
        Path("runs/cut/manifest.json").unlink()
        yield root


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[2]}")
def test_a_damaged_file_ends_the_command_that_reads_it_with_one_line(
    folder: Path, case: tuple[str, tuple[str, ...], str, Damage], capsys: pytest.CaptureFixture[str]
) -> None:
    file, command, _, damage = case
    path = folder / file
    whole = path.read_bytes()
    # hard links would carry the damage to the other checkpoint
    path.unlink()
    path.write_bytes(damage(whole))
    try:
        code = run([*command, "--quiet"])
    finally:
        path.write_bytes(whole)
        (folder / "runs/cut/manifest.json").unlink(missing_ok=True)  # where the run was gone on with after all
    said = capsys.readouterr().err.strip().splitlines()
    assert code in (2, 3), said
    assert len(said) == 1
    assert said[0].startswith("symile-clin: ")
    assert "not foreseen" not in said[0]
    assert path.name in said[0] or str(path.parent.relative_to(folder)) in said[0] or "config" in said[0], said


def test_every_format_and_every_fault_that_is_promised_has_a_kind() -> None:
    kinds = [(kind.form, kind.fault) for kind in KINDS] + [(form, fault) for form, fault, *_ in TABLES]
    kinds += [("YAML", fault) for fault, *_ in SETTINGS]
    kinds += [("checkpoint", how.partition(",")[0]) for file, _, how, _ in CASES if "checkpoints" in file]
    assert {form for form, _ in kinds} == set(FORMATS)
    assert {fault for _, fault in kinds} >= set(FAULTS)
    for form in FORMATS:
        assert {"truncated", "zero-filled", "flipped byte", "wrong type"} <= {f for one, f in kinds if one == form}
    assert len(set(kinds)) >= 24


def test_weights_with_one_other_number_are_refused_though_they_are_a_whole_file(folder: Path) -> None:
    path = folder / CHECKPOINT / "model.safetensors"
    whole = path.read_bytes()
    weights = load_file(path)
    name = next(name for name, value in weights.items() if value.ndim == 2)
    weights[name] = weights[name].copy()
    weights[name][0, 0] += np.float32(1e-3)
    path.unlink()
    save_file(weights, path)
    try:
        with pytest.raises(SymileClinError, match=r"model\.safetensors is not what was written there") as caught:
            evaluation.evaluate(run="one", split="val", device="cpu", tracking_uri=None, progress=Quiet())
        assert caught.value.exit_code == 3
    finally:
        path.write_bytes(whole)
