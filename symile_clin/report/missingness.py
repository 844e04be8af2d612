"""What samples lack: shares by split, and which parts of a modality are missing together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from symile_clin.evaluation import style
from symile_clin.modalities.base import Modality
from symile_clin.schema import SPLIT, SPLITS, present_column

#: Fewer samples do not tell what goes together.
FEWEST_SAMPLES: Final = 10
_SHARES: Final = LinearSegmentedColormap.from_list("shares", ["#ffffff", style.LIGHT_BLUE, style.BLUE, "#00334f"])
_CORRELATIONS: Final = LinearSegmentedColormap.from_list(
    "correlations", ["#7a3600", style.VERMILION, "#ffffff", style.BLUE, "#00334f"]
)


def presence(samples: pd.DataFrame, modalities: Mapping[str, Modality]) -> pd.DataFrame:
    """Share of samples that have each modality, in each split that has samples."""
    return pd.DataFrame(
        {
            "modality": list(modalities),
            **{
                split: [float(part[present_column(name)].mean()) for name in modalities]
                for split, part in _parts(samples).items()
            },
        }
    )


def observed_shares(samples: pd.DataFrame, observed: pd.DataFrame) -> pd.DataFrame:
    """Share of samples that have each part of a modality, (parts, splits), most frequent parts first.

    Args:
        observed: (n, parts) bool, by `Modality.observed`.
    """
    shares = {split: observed.loc[part.index].mean() for split, part in _parts(samples).items()}
    order = observed.mean().sort_values(ascending=False, kind="stable").index
    return pd.DataFrame(shares).loc[order]


def missing_together(observed: pd.DataFrame) -> pd.DataFrame:
    """Correlation of the indicators that parts are missing, (m, m), parts that are missing alike next to each other.

    Parts that no sample or every sample lacks have no correlation, and are left out.
    """
    missing = ~observed
    varying = missing.columns[missing.nunique() > 1]
    if len(varying) < 2 or len(observed) < FEWEST_SAMPLES:
        return pd.DataFrame()
    found = np.corrcoef(missing[varying].to_numpy(dtype=np.float64), rowvar=False)
    correlations = pd.DataFrame(np.clip(found, -1, 1), index=varying, columns=varying)
    order = clustered(1 - correlations.to_numpy())
    return correlations.iloc[order, order]


def clustered(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """(m,) an order in which near ones stand together: the leaves of a tree of average linkage.

    Args:
        distances: (m, m), symmetric.
    """
    leaves = [[place] for place in range(len(distances))]
    between = distances.astype(np.float64)
    np.fill_diagonal(between, np.inf)
    sizes = np.ones(len(distances))
    for _ in range(len(distances) - 1):
        one, other = sorted(int(place) for place in np.unravel_index(np.argmin(between), between.shape))
        leaves[one] = _joined(leaves[one], leaves[other], distances)
        merged = (sizes[one] * between[one] + sizes[other] * between[other]) / (sizes[one] + sizes[other])
        sizes[one] += sizes[other]
        between[one] = between[:, one] = merged
        between[one, one] = np.inf
        between[other] = between[:, other] = np.inf
    return np.array(max(leaves, key=len), dtype=np.int64)


def _joined(left: list[int], right: list[int], distances: NDArray[np.float64]) -> list[int]:
    """Two branches side by side, turned so that the nearest of their ends meet."""
    turned = [(one, other) for one in (left, left[::-1]) for other in (right, right[::-1])]
    first, second = min(turned, key=lambda ends: float(distances[ends[0][-1], ends[1][0]]))
    return first + second


def draw_shares(shares: pd.DataFrame) -> bytes:
    """`observed_shares` as a heat map: a line for each split, a column for each part. SVG."""
    written = BytesIO()
    with style.figure(written, width=max(5.0, 1.6 + 0.2 * len(shares)), height=2.9, form="svg") as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares.to_numpy().T, cmap=_SHARES, vmin=0, vmax=1, aspect="auto", interpolation="none")
        axes.set_xticks(range(len(shares)), [str(name) for name in shares.index], rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(shares.columns)), [str(name) for name in shares.columns])
        _finish(figure, axes, image, "share observed")
    return written.getvalue()


def draw_together(correlations: pd.DataFrame) -> bytes:
    """`missing_together` as a heat map. SVG."""
    written = BytesIO()
    names: Sequence[str] = [str(name) for name in correlations.index]
    side = max(4.0, 2.2 + 0.15 * len(names))
    with style.figure(written, width=side + 1.0, height=side, form="svg") as figure:
        axes = figure.add_subplot()
        image = axes.imshow(
            correlations.to_numpy(), cmap=_CORRELATIONS, vmin=-1, vmax=1, aspect="auto", interpolation="none"
        )
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        _finish(figure, axes, image, "correlation of being missing")
    return written.getvalue()


def _finish(figure: Figure, axes: Axes, image: AxesImage, label: str) -> None:
    axes.grid(visible=False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015)
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _parts(samples: pd.DataFrame) -> dict[str, pd.DataFrame]:
    found = {split: samples[samples[SPLIT] == split] for split in SPLITS}
    return {split: part for split, part in found.items() if len(part)}
