"""Data sets, one per file: dropping a file into this folder registers its data set."""

import sys

if sys.argv[:1] == ["-m"]:  # python -m datasets.check, python -m datasets.prepare
    from dassl.utils import starting

    starting.begin()
