"""Data sets, one a file. Every module of this folder is imported, so a new file needs no entry anywhere."""

import sys

if sys.argv[:1] == ["-m"]:  # python -m datasets.check, python -m datasets.prepare
    from dassl.utils import starting

    starting.begin()

from dassl.utils.plugins import import_all

import_all(__name__, __path__, leave_out=("check", "prepare", "sources"))
