"""Samplers, one a file: dropping a file into this folder registers what it holds."""
