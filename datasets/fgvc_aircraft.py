"""FGVC-Aircraft: 10,000 photographs of 100 aircraft variants, with the official split.

Source: Maji et al., "Fine-Grained Visual Classification of Aircraft", 2013.
"""

from pathlib import Path

from dassl.data.annotations import read_lines, read_pairs
from dassl.data.dataset import DATASETS, SPLITS, Dataset, data_folder
from dassl.data.splits import datums, labels_of

TEMPLATE = "a photo of a {}, a type of aircraft."


@DATASETS.register("FGVCAircraft")
def fgvc_aircraft(root: Path) -> Dataset:
    """Return the data set in `root/fgvc_aircraft`; its labels are the lines of variants.txt."""
    folder = data_folder(root, "fgvc_aircraft")
    variants = tuple(read_lines(folder / "variants.txt"))
    splits = {}
    for split in SPLITS:
        pairs = read_pairs(folder / f"images_variant_{split}.txt")  # "0034309 707-320"
        labels = labels_of([variant for _, variant in pairs], variants, folder / "variants.txt")
        splits[split] = datums("fgvc_aircraft/images", [f"{image}.jpg" for image, _ in pairs], labels)
    return Dataset("FGVCAircraft", root, **splits, classnames=variants, template=TEMPLATE)
