"""CLIP and its learners: one learner per file; `learner.py` says how to write one."""
