"""The classes of `torchvision.datasets` that yield an image and a label, and how each is asked for its splits.

All others yield something else: `OTHERS` says what.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Keywords = Mapping[str, Any]

BY_FLAG: Mapping[str, Keywords] = {"train": {"train": True}, "test": {"train": False}}
TWO = {split: {"split": split} for split in ("train", "test")}
THREE = {split: {"split": split} for split in ("train", "val", "test")}
TRAIN_VAL = {split: {"split": split} for split in ("train", "val")}
WHOLE: Mapping[str, Keywords] = {"": {}}

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIGNS = (
    "20 km/h speed limit", "30 km/h speed limit", "50 km/h speed limit", "60 km/h speed limit", "70 km/h speed limit",
    "80 km/h speed limit", "end of 80 km/h speed limit", "100 km/h speed limit", "120 km/h speed limit", "no overtaking",
    "no overtaking by trucks", "priority at the next crossing", "priority road", "yield", "stop", "no vehicles",
    "no trucks", "no entry", "danger", "dangerous curve to the left", "dangerous curve to the right",
    "double curve", "bumpy road", "slippery road", "road narrows on the right", "road works", "traffic lights",
    "pedestrians crossing", "children crossing", "bicycles crossing", "beware of ice or snow", "wild animals crossing",
    "end of all limits", "turn right ahead", "turn left ahead", "ahead only", "straight ahead or right",
    "straight ahead or left", "keep right", "keep left", "roundabout", "end of no overtaking",
    "end of no overtaking by trucks")  # of GTSRB, in the order of its folders
FACES = ("angry", "disgusted", "afraid", "happy", "sad", "surprised", "neutral")
TISSUE = ("healthy lymph node tissue", "lymph node tumor tissue")


@dataclass(frozen=True)
class Collection:
    """A class of `torchvision.datasets`: the keywords of each split ("" for one that is not split), and names of its classes
    where the class has none. `pairs` gives (path, label) for a class that opens its images itself.
    """

    splits: Mapping[str, Keywords]
    classnames: tuple[str, ...] = ()
    template: str = "a photo of a {}."
    pairs: Callable[[Any], list[tuple[Any, int]]] | None = None
    keywords: Keywords = field(default_factory=dict)


def _caltech101(found: Any) -> list[tuple[str, int]]:
    return [(f"{found.root}/101_ObjectCategories/{found.categories[label]}/image_{number:04d}.jpg", label)
            for number, label in zip(found.index, found.y, strict=True)]


def _caltech256(found: Any) -> list[tuple[str, int]]:
    return [(f"{found.root}/256_ObjectCategories/{found.categories[label]}/{label + 1:03d}_{number:04d}.jpg", label)
            for number, label in zip(found.index, found.y, strict=True)]


def _omniglot(found: Any) -> list[tuple[str, int]]:
    """Return the classes in the order of their names; torchvision's order is that of the file system."""
    order = {name: label for label, name in enumerate(sorted(found._characters))}
    return [(f"{found.target_folder}/{found._characters[label]}/{file}", order[found._characters[label]])
            for file, label in found._flat_character_images]


SETS = {
    "CIFAR10": Collection(BY_FLAG), "CIFAR100": Collection(BY_FLAG),
    "MNIST": Collection(BY_FLAG, DIGITS, "a photo of the digit {}."),
    "FashionMNIST": Collection(BY_FLAG), "KMNIST": Collection(BY_FLAG),
    "QMNIST": Collection(BY_FLAG, DIGITS, "a photo of the digit {}."),
    "EMNIST": Collection(BY_FLAG, template="a photo of the character {}.", keywords={"split": "balanced"}),
    "USPS": Collection(BY_FLAG, DIGITS, "a photo of the digit {}."),
    "SEMEION": Collection(WHOLE, DIGITS, "a photo of the digit {}."),
    "SVHN": Collection(TWO, DIGITS, "a photo of the digit {}."),
    "STL10": Collection(TWO), "FER2013": Collection(TWO, FACES, "a photo of a {} looking face."),
    "PCAM": Collection(THREE, TISSUE, "a photo of {}."),
    "Food101": Collection(TWO, template="a photo of {}, a type of food."),
    "Flowers102": Collection(THREE, template="a photo of a {}, a type of flower."),
    "DTD": Collection(THREE, template="{} texture."),
    "EuroSAT": Collection(WHOLE, template="a centered satellite photo of {}."),
    "GTSRB": Collection(TWO, SIGNS, 'a photo of a "{}" traffic sign.', lambda found: found._samples),
    "FGVCAircraft": Collection(THREE, template="a photo of a {}, a type of aircraft."),
    "OxfordIIITPet": Collection({"train": {"split": "trainval"}, "test": {"split": "test"}},
                                template="a photo of a {}, a type of pet.",
                                pairs=lambda found: list(zip(found._images, found._labels, strict=True))),
    "StanfordCars": Collection(TWO), "Caltech101": Collection(WHOLE, pairs=_caltech101),
    "Caltech256": Collection(WHOLE, pairs=_caltech256),
    "Country211": Collection({"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
                             template="a photo that was taken in {}."),
    "SUN397": Collection(WHOLE), "RenderedSST2": Collection(THREE, template="a {} review of a movie."),
    "ImageNet": Collection(TRAIN_VAL), "Imagenette": Collection(TRAIN_VAL),
    "Places365": Collection({"train": {"split": "train-standard"}, "val": {"split": "val"}}),
    "CLEVRClassification": Collection(TRAIN_VAL, template="a photo of {} objects."),
    "LFWPeople": Collection(WHOLE, template="a photo of {}.", keywords={"split": "10fold"}),
    "INaturalist": Collection({"train": {"version": "2021_train"}, "val": {"version": "2021_valid"}}),
    "Omniglot": Collection(WHOLE, template="the character {}.", pairs=_omniglot),
}

FLOW, STEREO, BOXES, VIDEO = "optical flow", "pairs of two cameras", "boxes or masks", "videos"
OTHERS = {
    "ImageFolder": "what ImageFolder of this project reads", "DatasetFolder": "what ImageFolder of this project reads",
    "FakeData": "noise", "LSUN": "a database of a library that is not kept", "LSUNClass": "images of one class",
    "CocoCaptions": "captions", "CocoDetection": BOXES, "SBU": "captions", "Flickr8k": "captions", "Flickr30k": "captions",
    "MovingMNIST": VIDEO, "PhotoTour": "pairs of patches", "VOCSegmentation": BOXES, "VOCDetection": BOXES, "Cityscapes": BOXES,
    "CelebA": "many attributes an image", "WIDERFace": BOXES, "SBDataset": BOXES, "Kinetics": VIDEO, "HMDB51": VIDEO,
    "UCF101": f"{VIDEO}; this project has a data set of their middle frames", "Kitti": BOXES, "LFWPairs": "pairs of faces",
    **dict.fromkeys(("KittiFlow", "Sintel", "FlyingChairs", "FlyingThings3D", "HD1K"), FLOW),
    **dict.fromkeys(("Kitti2012Stereo", "Kitti2015Stereo", "CarlaStereo", "Middlebury2014Stereo", "CREStereo",
                     "SceneFlowStereo", "FallingThingsStereo", "SintelStereo", "InStereo2k", "ETH3DStereo"), STEREO)}
