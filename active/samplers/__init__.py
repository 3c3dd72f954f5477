"""Samplers, one per file: dropping a file into this folder registers its sampler."""
