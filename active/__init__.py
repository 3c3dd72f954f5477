"""The active-learning loop and its samplers."""

import sys

if sys.argv[:1] == ["-m"]:  # python -m active.verify
    from dassl.utils import starting

    starting.begin()
