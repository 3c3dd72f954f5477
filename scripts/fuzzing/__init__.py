"""The inputs that `scripts/fuzz.py` gives to commands."""
