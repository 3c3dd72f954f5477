"""What people say of an image: its class, or one of three other words.

In tensors an answer is an integer: a label from 0 on, or one of the codes here. `UNLABELED` (-1) means no answer yet.
"""

from collections.abc import Sequence

from dassl.data.dataset import UNLABELED
from dassl.data.known import class_key
from dassl.utils.errors import DataError

SKIP = -2  # cannot be labeled, or not by this person
NONE = -3  # of none of the classes
UNSURE = -4  # "unsure", or, with class k, UNSURE - 1 - k
WORDS = {"skip": SKIP, "none": NONE, "unsure": UNSURE}
MARK = "!"  # before a word in a table of labels, so that it is not taken for a class name


def kind_of(code: int) -> str:
    """Return the kind of an answer: label, skip, none or unsure; "" for no answer yet."""
    if code >= 0 or code == UNLABELED:
        return "label" if code >= 0 else ""
    return {SKIP: "skip", NONE: "none"}.get(code, "unsure")


def recorded(code: int) -> int | str:
    """Return an answer as stored in a record: a label, or "skip", "none", "unsure", "unsure 3"."""
    return code if code >= 0 else kind_of(code) + (f" {UNSURE - 1 - code}" if code < UNSURE else "")


def code_of(answer: int | str) -> int:
    """Return the code of an answer in a record; raises ValueError for anything else."""
    if isinstance(answer, int):
        return answer
    word, _, label = answer.partition(" ")
    if word not in WORDS or (label and (word != "unsure" or not label.isdecimal())):
        raise ValueError(f"{answer!r} is not an answer")
    return UNSURE - 1 - int(label) if label else WORDS[word]


def written(code: int, classnames: Sequence[str]) -> str:
    """Return an answer as people write it into a table: a class name, "!skip", "!none", "!unsure", "!unsure heron"."""
    if code >= 0:
        return classnames[code]
    return MARK + kind_of(code) + (f" {classnames[UNSURE - 1 - code]}" if code < UNSURE else "")


def words(classnames: Sequence[str]) -> dict[str, int]:
    """Return the codes of the words that people may write instead of class names; DataError if a class has such a name."""
    codes = [*WORDS.values(), *(UNSURE - 1 - label for label in range(len(classnames)))]
    found = {written(code, classnames): code for code in codes}
    taken = {class_key(word) for word in found}
    if reserved := [name for name in classnames if class_key(name) in taken]:
        raise DataError(f"the class name {reserved[0]!r} is a word that people may answer with ({MARK}skip, {MARK}none, "
                        f"{MARK}unsure); rename the class")
    return found
