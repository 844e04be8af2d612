"""Keys of a feature modality in a cohort spec, and of its encoder in a training config. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from symile_clin.modalities.base import EncoderOptions, RoomOptions

SUFFIXES = (".npy", ".parquet")
ID_SUFFIXES = (".npy", ".csv", ".parquet")


class FeatureOptions(RoomOptions):
    """Where the vectors are, and which sample each belongs to.

    Attributes:
        path: a `.npy` of shape (rows, width), or a `.parquet` with a vector in each row.
        key: what a sample finds its vector by: sample_id, subject_id, hadm_id, a column of another modality such as the
            id of an image, a column of the index table, or "index_row", its place in that table.
        ids: for a `.npy`, the file of as many keys: `.npy`, `.csv` or `.parquet`.
        id: the column of keys in a `.parquet` or in `ids`; named as `key` if left out.
        column: of a `.parquet`: the column of vectors. Left out, it is the only column of lists of fractions or, where
            there is none, every column of fractions but the key, in the file's order.
        standardize: store each number less its mean in train, over its standard deviation there.
        width: how many numbers a vector has; taken from the file.
        dtype: how they are stored where they are not standardised; as in the file, float64 as float32.
    """

    path: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)] = "sample_id"
    ids: str | None = None
    id: str | None = None
    column: str | None = None
    standardize: bool = True
    width: PositiveInt | None = None
    dtype: Literal["float16", "float32"] | None = None

    @model_validator(mode="after")
    def _fits_the_kind_of_file(self) -> FeatureOptions:
        if not self.path.endswith(SUFFIXES):
            raise ValueError(f"'path' ends in neither of {', '.join(SUFFIXES)}")
        if self.ids is not None and not self.ids.endswith(ID_SUFFIXES):
            raise ValueError(f"'ids' ends in none of {', '.join(ID_SUFFIXES)}")
        if self.path.endswith(".parquet") and self.ids is not None:
            raise ValueError("'ids' goes with a .npy; a .parquet has its keys in a column, which 'id' names")
        if self.path.endswith(".npy") and self.column is not None:
            raise ValueError("'column' goes with a .parquet")
        by_place = self.key == "index_row"
        if by_place and (self.ids is not None or self.id is not None):
            raise ValueError("'key: index_row' takes row by row; leave out 'ids' and 'id', or name another key")
        if self.path.endswith(".npy") and self.ids is None and not by_place:
            raise ValueError(
                "a .npy does not say whose rows these are: give 'ids', the file of their keys, or write "
                "'key: index_row' if row i belongs to row i of the index table"
            )
        return self


class EncoderSettings(EncoderOptions):
    """From a vector to an embedding.

    Attributes:
        arch: "linear", one layer; "mlp", with hidden ones.
        hidden: widths of the hidden layers of "mlp".
        dropout: share of the vector's numbers that are left out in training.
    """

    arch: Literal["linear", "mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field(default=(512,), min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
