"""The slim core: configuration, data, the training loop, metrics. Knows nothing of CLIP or of pools."""
