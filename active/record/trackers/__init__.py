"""Who shows a run elsewhere: one service a file, each imported where it is used. Read and written without torch."""
