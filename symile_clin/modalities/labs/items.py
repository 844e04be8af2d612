"""The 50 laboratory items of the Symile paper, as d_labitems calls them, with plausible adult values.

The itemids and labels are the paper's (its published code and data, section 5.3). Units and reference ranges are those
MIMIC-IV prints; centre and spread are of hospital admissions, plausible rather than measured, and only the synthetic
patients use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Panel = Literal["chemistry", "minerals", "count", "differential", "absolute", "clotting", "liver", "albumin",
                "muscle", "gas", "lactate", "indices", "rdw_sd", "granulocytes"]  # fmt: skip

#: Share of admissions in which a panel is ordered; about 35 of the 50 items on average. "absolute" comes with a
#: differential only.
PANELS: Final[dict[Panel, float]] = {
    "chemistry": 0.97, "minerals": 0.90, "count": 0.97, "differential": 0.80, "absolute": 0.55, "clotting": 0.78,
    "liver": 0.60, "albumin": 0.38, "muscle": 0.25, "gas": 0.42, "lactate": 0.48, "indices": 0.50, "rdw_sd": 0.55,
    "granulocytes": 0.50,
}  # fmt: skip


@dataclass(frozen=True)
class LabItem:
    """One item.

    Attributes:
        itemid: key in d_labitems and labevents.
        label: its name there.
        fluid: Blood for all of these.
        category: Blood Gas, Chemistry or Hematology.
        panel: what it is ordered with, and so missing with.
        unit: valueuom; empty for ratios and indices.
        male, female: centre of the values, the median where `skewed`.
        sd: spread, of the logarithm where `skewed`.
        skewed: log-normal rather than normal.
        lower, upper: reference range.
        decimals: digits after the point.
    """

    itemid: int
    label: str
    category: str
    panel: Panel
    unit: str
    male: float
    female: float
    sd: float
    skewed: bool
    lower: float
    upper: float
    decimals: int
    fluid: str = "Blood"

    @property
    def title(self) -> str:
        """The label as a person reads it: three indices of the serum have one letter."""
        return _LETTERS.get(self.label, self.label)


_LETTERS: Final = {"H": "Haemolysis index", "I": "Icterus index", "L": "Lipaemia index"}
_BG, _CH, _HE = "Blood Gas", "Chemistry", "Hematology"

SYMILE_ITEMS: Final[tuple[LabItem, ...]] = (
    # arterial and venous blood gases
    LabItem(50802, "Base Excess", _BG, "gas", "mEq/L", 0, 0, 4, False, -2, 2, 0),
    LabItem(50804, "Calculated Total CO2", _BG, "gas", "mEq/L", 25, 25, 4.5, False, 21, 30, 0),
    LabItem(50813, "Lactate", _BG, "lactate", "mmol/L", 1.7, 1.7, 0.45, True, 0.5, 2.0, 1),
    LabItem(50818, "pCO2", _BG, "gas", "mm Hg", 41, 41, 0.20, True, 35, 45, 0),
    LabItem(50820, "pH", _BG, "gas", "units", 7.38, 7.38, 0.07, False, 7.35, 7.45, 2),
    LabItem(50821, "pO2", _BG, "gas", "mm Hg", 85, 85, 0.60, True, 85, 105, 0),
    # liver
    LabItem(50861, "Alanine Aminotransferase (ALT)", _CH, "liver", "IU/L", 26, 21, 0.75, True, 0, 40, 0),
    LabItem(50862, "Albumin", _CH, "albumin", "g/dL", 3.5, 3.5, 0.6, False, 3.5, 5.2, 1),
    LabItem(50863, "Alkaline Phosphatase", _CH, "liver", "IU/L", 85, 85, 0.45, True, 35, 130, 0),
    LabItem(50868, "Anion Gap", _CH, "chemistry", "mEq/L", 14, 14, 3, False, 8, 20, 0),
    LabItem(50878, "Asparate Aminotransferase (AST)", _CH, "liver", "IU/L", 30, 27, 0.70, True, 0, 40, 0),  # sic
    # basic chemistry
    LabItem(50882, "Bicarbonate", _CH, "chemistry", "mEq/L", 24.5, 24.5, 3.6, False, 22, 32, 0),
    LabItem(50885, "Bilirubin, Total", _CH, "liver", "mg/dL", 0.6, 0.5, 0.75, True, 0, 1.5, 1),
    LabItem(50893, "Calcium, Total", _CH, "minerals", "mg/dL", 8.7, 8.7, 0.65, False, 8.4, 10.3, 1),
    LabItem(50902, "Chloride", _CH, "chemistry", "mEq/L", 103, 103, 5, False, 96, 108, 0),
    LabItem(50910, "Creatine Kinase (CK)", _CH, "muscle", "IU/L", 120, 80, 0.90, True, 26, 308, 0),
    LabItem(50912, "Creatinine", _CH, "chemistry", "mg/dL", 0.95, 0.80, 0.27, True, 0.4, 1.2, 1),
    LabItem(50931, "Glucose", _CH, "chemistry", "mg/dL", 122, 122, 0.32, True, 70, 105, 0),
    LabItem(50934, "H", _CH, "indices", "", 8, 8, 1.0, True, 0, 40, 0),  # haemolysis index
    LabItem(50947, "I", _CH, "indices", "", 2, 2, 0.7, True, 0, 5, 0),  # icterus index
    LabItem(50960, "Magnesium", _CH, "minerals", "mg/dL", 1.95, 1.95, 0.28, False, 1.6, 2.6, 1),
    LabItem(50970, "Phosphate", _CH, "minerals", "mg/dL", 3.4, 3.4, 0.75, False, 2.7, 4.5, 1),
    LabItem(50971, "Potassium", _CH, "chemistry", "mEq/L", 4.1, 4.1, 0.50, False, 3.3, 5.1, 1),
    LabItem(50983, "Sodium", _CH, "chemistry", "mEq/L", 138, 138, 4.3, False, 133, 145, 0),
    LabItem(51006, "Urea Nitrogen", _CH, "chemistry", "mg/dL", 17, 16, 0.36, True, 6, 20, 0),
    # white cells
    LabItem(51133, "Absolute Lymphocyte Count", _HE, "absolute", "K/uL", 1.4, 1.4, 0.4, True, 1.2, 3.7, 2),
    LabItem(51146, "Basophils", _HE, "differential", "%", 0.4, 0.4, 0.55, True, 0, 1, 1),
    LabItem(51200, "Eosinophils", _HE, "differential", "%", 1.2, 1.2, 0.90, True, 1, 7, 1),
    # red cells
    LabItem(51221, "Hematocrit", _HE, "count", "%", 40.5, 37.0, 4.0, False, 34, 51, 1),
    LabItem(51222, "Hemoglobin", _HE, "count", "g/dL", 13.4, 12.2, 1.35, False, 11.2, 17.5, 1),
    LabItem(51237, "INR(PT)", _HE, "clotting", "", 1.2, 1.2, 0.26, True, 0.9, 1.1, 1),
    LabItem(51244, "Lymphocytes", _HE, "differential", "%", 17, 17, 0.38, True, 19, 53, 1),
    LabItem(51248, "MCH", _HE, "count", "pg", 30, 29.7, 2.1, False, 26, 32, 1),
    LabItem(51249, "MCHC", _HE, "count", "g/dL", 33.0, 32.7, 1.1, False, 32, 37, 1),
    LabItem(51250, "MCV", _HE, "count", "fL", 91, 91, 5.8, False, 82, 98, 0),
    LabItem(51254, "Monocytes", _HE, "differential", "%", 7, 7, 0.40, True, 5, 13, 1),
    LabItem(51256, "Neutrophils", _HE, "differential", "%", 72, 72, 9, False, 34, 71, 1),
    LabItem(51265, "Platelet Count", _HE, "count", "K/uL", 205, 225, 0.38, True, 150, 400, 0),
    # clotting
    LabItem(51274, "PT", _HE, "clotting", "sec", 13.2, 13.2, 0.24, True, 9.4, 12.5, 1),
    LabItem(51275, "PTT", _HE, "clotting", "sec", 31, 31, 0.26, True, 25, 36.5, 1),
    LabItem(51277, "RDW", _HE, "count", "%", 13.9, 13.9, 0.085, True, 10.5, 15.5, 1),
    LabItem(51279, "Red Blood Cells", _HE, "count", "m/uL", 4.45, 4.1, 0.5, False, 3.9, 6.1, 2),
    LabItem(51301, "White Blood Cells", _HE, "count", "K/uL", 8.3, 8.3, 0.30, True, 4, 11, 1),
    LabItem(51678, "L", _CH, "indices", "", 10, 10, 0.6, True, 0, 50, 0),  # lipaemia index
    LabItem(52069, "Absolute Basophil Count", _HE, "absolute", "K/uL", 0.03, 0.03, 0.6, True, 0.01, 0.08, 2),
    LabItem(52073, "Absolute Eosinophil Count", _HE, "absolute", "K/uL", 0.10, 0.10, 0.9, True, 0.04, 0.54, 2),
    LabItem(52074, "Absolute Monocyte Count", _HE, "absolute", "K/uL", 0.58, 0.58, 0.45, True, 0.2, 0.8, 2),
    LabItem(52075, "Absolute Neutrophil Count", _HE, "absolute", "K/uL", 5.9, 5.9, 0.45, True, 1.6, 6.1, 2),
    LabItem(52135, "Immature Granulocytes", _HE, "granulocytes", "%", 0.5, 0.5, 0.55, True, 0, 0.6, 1),
    LabItem(52172, "RDW-SD", _HE, "rdw_sd", "fL", 46, 46, 0.10, True, 35.1, 46.3, 1),
)
