"""The shell loop's single cell: `scripts/active/main.sh DATASET CONFIG SAMPLER SEED`."""

import os
import subprocess
from pathlib import Path

from trainers.core import job

PROJECT = Path(__file__).parents[2]


def call(*words: str) -> subprocess.CompletedProcess:
    """Run the script from another folder, with `echo` in place of Python."""
    script = PROJECT / "scripts" / "active" / "main.sh"
    return subprocess.run(["bash", str(script), *words], capture_output=True, text=True, cwd="/",
                          env=os.environ | {"PYTHON": "echo", "DATA": "/data"})


def test_it_calls_train_with_the_files_of_its_names():
    """Its arguments are those of a sweep's cell: files, data root, seed, its own folder, then the caller's own."""
    done = call("dtd", "CoOp/vit_b16", "badge", "3", "OPTIM.LR", "0.1")
    assert done.returncode == 0
    program, *words = done.stdout.split()
    cfg = job.build_config(*job.parser().parse(words))
    assert program == "train.py" and (cfg.DATASET.NAME, cfg.ACTIVE.SAMPLER, cfg.SEED) == ("DTD", "badge", 3)
    assert (cfg.OPTIM.LR, cfg.DATASET.ROOT, cfg.OUTPUT_DIR) == (0.1, "/data", "/output/dtd/CoOp/vit_b16/badge/seed3")


def test_too_few_words_are_answered_with_the_usage():
    done = call("dtd", "CoOp/vit_b16")
    assert done.returncode == 2 and "DATASET CONFIG SAMPLER SEED" in done.stderr
