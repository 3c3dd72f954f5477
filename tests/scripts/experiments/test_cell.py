"""A cell of a sweep, run in this process."""

from dassl.utils.held import Held
from scripts.experiments.cell import DONE, run_cell
from tests.scripts.experiments.test_experiment import PROJECT
from train import main


def test_the_curve_of_a_cell_is_drawn_only_where_that_is_asked_for(root, tmp_path):
    """Drawing takes half the time of a tiny cell. The same command draws it later; a run outside a sweep does so by default."""
    curve = tmp_path / "run" / "learning_curve.png"
    words = ["--config-file", str(PROJECT / "configs" / "quickstart.yaml"), "--root", str(root), "--output-dir",
             str(tmp_path / "run"), "ACTIVE.ROUNDS", "1", "OPTIM.MAX_EPOCH", "1", "VERBOSE", "false"]
    for more, is_drawn in (([], False), (["LOG.CURVE", "never"], False), (["LOG.CURVE", "always"], True)):
        assert run_cell([*words, *more], Held()).kind == DONE and curve.exists() == is_drawn
    curve.unlink()
    assert main([*words, "LOG.CURVE", "never"]) == 0 and not curve.exists()
    assert main(words) == 0 and curve.exists()
