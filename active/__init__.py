"""The active-learning loop and its samplers."""

import active.samplers  # noqa: F401  registers every sampler of the folder
