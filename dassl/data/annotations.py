"""The published annotation files of the field: text lines and MATLAB files."""

from pathlib import Path

import numpy as np

from dassl.utils.errors import DataError
from dassl.utils.paths import check_file, open_file, reason


def read_lines(file: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, stripped, without empty ones; raises DataError if it cannot be read."""
    try:
        with open_file(file) as opened:
            lines = opened.read().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {reason(error)}") from error
    return [line.strip() for line in lines if line.strip()]


def read_pairs(file: Path) -> list[tuple[str, str]]:
    """Return the lines of a text file, each cut at its first white space; raises DataError if one has no second part."""
    pairs = [tuple(line.split(maxsplit=1)) for line in read_lines(file)]
    short = [pair[0] for pair in pairs if len(pair) < 2]
    if short:
        raise DataError(f"{file}: expected two words a line, not {short[0]!r}")
    return pairs


def read_mat(file: Path, variable: str) -> np.ndarray:
    """Return a variable of a MATLAB file (version 4 to 7.2) as a vector; raises DataError if it cannot be read."""
    from scipy.io import loadmat  # imported here because it takes long

    try:
        check_file(file)
        variables = loadmat(file, squeeze_me=True)
    except Exception as error:  # on damaged files SciPy's parser may raise anything
        raise DataError(f"cannot read {file}: {reason(error)}") from error
    if variable not in variables:
        raise DataError(f"{file} has no variable {variable!r}")
    return np.atleast_1d(variables[variable])
