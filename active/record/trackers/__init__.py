"""Trackers, which show a run elsewhere: one service per file, each imported where it is used, without torch."""
