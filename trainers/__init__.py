"""CLIP and what is tuned on it: one learner a file, `learner.py` says how to write one."""
