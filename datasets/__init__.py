"""Data sets, one a file: dropping a file into this folder registers what it holds."""

import sys

if sys.argv[:1] == ["-m"]:  # python -m datasets.check, python -m datasets.prepare
    from dassl.utils import starting

    starting.begin()
