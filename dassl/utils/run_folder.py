"""The names of what a run leaves in its output folder, for all who write, read or skip it."""

RESULTS = "results.json"
LOG = "log.txt"
CURVE = "learning_curve.png"
FAILED = "failed.json"  # a sweep's note of why the run failed
LOCK = ".lock"
PROMPTS, QUERIES, TENSORBOARD = "prompts", "queries", "tensorboard"  # folders
RECORDERS = "recorders"  # the folder of what recorders of plug-ins write
