"""The embedded default model: a tiny CLIP trained on images and captions that this package draws itself.

`glyphs` and `scenes` say what can be drawn, `draw` turns it into pixels, `captions` into words, `stream` joins the two
into examples, `vocabulary` cuts the tokenizer's merges, `pretrain` trains, and `evaluate` measures the shipped files.
"""
