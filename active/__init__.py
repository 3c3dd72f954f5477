"""The active-learning loop and its samplers."""

import sys

if sys.argv[:1] == ["-m"]:  # python -m active.verify
    from dassl.utils import starting

    starting.begin()

import active.samplers  # noqa: F401  registers every sampler of the folder
