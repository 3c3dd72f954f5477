"""What the runs of a process share."""

import weakref
from functools import partial

from dassl.utils.held import Held


class Thing:
    """Something that can be referred to weakly."""

    def __init__(self, of: object = None):
        self.of = of


def test_the_last_thing_of_a_kind_is_handed_out_again():
    """A thing with another key replaces it."""
    held = Held()
    first = held.get("clip", "a", Thing)
    assert held.get("clip", "a", Thing) is first
    assert held.get("clip", "b", Thing) is not first
    assert held.get("clip", "a", Thing) is not first


def test_the_old_thing_is_freed_before_the_new_one_is_made():
    """Two backbones need not fit into memory side by side, also where inputs refer to the old one."""
    held, alive = Held(), []
    old = weakref.ref(clip := held.get("clip", "a", Thing))
    held.get("inputs", "a", partial(Thing, clip))
    del clip

    def make() -> Thing:
        alive.append(old())
        return Thing()

    held.get("clip", "b", make, holders=["inputs"])
    assert alive == [None]
