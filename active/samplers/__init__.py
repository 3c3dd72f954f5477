"""Samplers, one a file. Every module of this folder is imported, so a new file needs no entry anywhere."""

from dassl.utils.plugins import import_all

import_all(__name__, __path__)
