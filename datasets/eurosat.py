"""EuroSAT: 27,000 Sentinel-2 images (RGB, 64x64 pixels) of 10 kinds of land use.

Source: Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification",
2017. Split and class names: Zhou et al. (CoOp).
"""

from pathlib import Path

from dassl.data.dataset import DATASETS, Dataset, data_folder
from dassl.data.splits import Rows, SplitSource, field_split, folder_rows, three_way

CLASSNAMES = {"AnnualCrop": "Annual Crop Land", "HerbaceousVegetation": "Herbaceous Vegetation Land",
              "Highway": "Highway or Road", "Industrial": "Industrial Buildings", "Pasture": "Pasture Land",
              "PermanentCrop": "Permanent Crop Land", "Residential": "Residential Buildings", "SeaLake": "Sea or Lake"}


@DATASETS.register("EuroSAT")
def eurosat(root: Path, *, split: SplitSource = "published") -> Dataset:
    """Return the data set in `root/eurosat`."""
    splits, classnames = field_split(data_folder(root, "eurosat"), "EuroSAT", "2750", split, _draw)
    return Dataset("EuroSAT", root, **splits, classnames=classnames, template="a centered satellite photo of {}.")


def _draw(folder: Path) -> Rows:
    return three_way(folder_rows(folder / "2750", names=CLASSNAMES), "EuroSAT")
