"""HFDataset: a data set of the Hugging Face hub, by the name of its repository.

    python train.py --config-file ... --root DATA DATASET.NAME HFDataset DATASET.HFDATASET.REPO owner/name

It is fetched once, to its own folder below the data root, and later read there without a network. Its tables are read as by
`Table`; a repository without tables is read as by `ImageFolder`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from dassl.data.class_lists import read_classnames
from dassl.data.collected import Setting
from dassl.data.dataset import DATASETS, Dataset, named_file
from dassl.data.draws import draw_of, shares
from dassl.data.hub import MAIN, Repository, fetched, files_of
from dassl.utils.errors import ConfigError
from dassl.utils.registry import AtLeast, AtMost, Given

from .image_folder import image_folder
from .table import Columns, from_tables


@DATASETS.register("HFDataset")
def hf_dataset(
    root: Path, *, repo: str = "", revision: str = MAIN, subset: str = "", image: str = "", label: str = "", split: str = "",
    classes: str = "", val: Annotated[float, AtLeast(-1.0), AtMost(1.0)] = -1.0,
    test: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.3, split_seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0,
    template: str = "a photo of a {}.", cache: Annotated[Path | None, Given()] = None,
) -> Dataset:
    """Return the data set of a repository, such as `ethz/food101`, which lies in `root/ethz--food101`.

    `revision` is a branch, a tag or a commit; `subset` one of several data sets in the repository. The other parameters are as
    for Table.
    """
    if not repo:
        raise ConfigError("DATASET.HFDATASET.REPO is not set; it must be the name of a data set on huggingface.co, owner/name")
    parts = shares("DATASET.HFDATASET", val, test)
    repository = Repository(repo, revision, subset)
    folder = fetched(root, repository)
    names = named_file(root, "HFDATASET.CLASSES", classes) if classes else None
    setting = Setting(repository.folder, folder, draw_of(folder, parts, split_seed, cache, "table_split"), template)
    if (files := files_of(folder, repository)) is not None:
        return from_tables(setting, files, Columns(image, label, split, "HFDATASET"), read_classnames(names) if names else {})
    found = image_folder(folder, classes=str(names.absolute()) if names else "", val=val, test=test, split_seed=split_seed,
                         template=template, cache=cache)
    return replace(found, name=setting.name)
