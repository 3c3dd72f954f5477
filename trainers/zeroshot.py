"""Zero-shot CLIP: nothing is learned.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
"""

import numpy as np

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, ClassTexts, Head


@LEARNERS.register("ZeroShot", absent="pushed")
class ZeroShot(Head):
    """The classifier of a fixed template; also the model that scores the pool before round 0, whichever learner is trained."""

    def __init__(self, clip: FrozenCLIP, texts: ClassTexts, rng: np.random.Generator, *, template: str = "dataset"):
        """`template` holds one `{}` for the class name; "dataset" is the data set's own."""
        super().__init__(clip, texts, template)
