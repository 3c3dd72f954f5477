"""CLIP itself, frozen: names, weights, encoders."""
