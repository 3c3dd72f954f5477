"""The names of the files that a run leaves in its output folder, for all code that writes, reads or skips them."""

RESULTS = "results.json"
LOG = "log.txt"
CURVE = "learning_curve.png"
FAILED = "failed.json"  # a sweep's note of why the run failed
LOCK = ".lock"
PROMPTS, QUERIES, TENSORBOARD = "prompts", "queries", "tensorboard"  # folders
RECORDERS = "recorders"  # the folder that plug-ins' recorders write to
