"""What `scripts/fuzz.py` gives the commands to read."""
