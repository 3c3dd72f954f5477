"""CLIP and its prompt learners. Every module of this folder is imported, so a new learner needs no entry anywhere."""

from dassl.utils.plugins import import_all

import_all(__name__, __path__)
