"""The data set's own labels, handed out as they are asked for: how research on active learning simulates people."""

from active.oracles.oracle import ORACLES, Oracle, Setting


@ORACLES.register("labels")
def labels(setting: Setting) -> Oracle:
    """Return the oracle that knows every label."""
    return Oracle(setting.labels, setting.budget)
