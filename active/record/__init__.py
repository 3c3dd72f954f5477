"""The files that a run leaves; read and written without torch."""
