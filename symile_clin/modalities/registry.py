"""Which rooms there are. Only the pipeline imports this; everything else is handed modalities."""

from __future__ import annotations

from collections.abc import Mapping

from symile_clin.modalities.base import Modality
from symile_clin.modalities.cxr import CXR
from symile_clin.modalities.ecg import ECG
from symile_clin.modalities.labs import Labs

ROOMS: Mapping[str, type[Modality]] = {room.room: room for room in (CXR, ECG, Labs)}
