"""open_clip, imported without transformers: that takes a second, and only tokenizers of other text towers than CLIP's need it.

open_clip imports transformers wherever it is installed, and does without it where it is not. Everything of the project takes
open_clip from here.
"""

import importlib

from dassl.utils.imports import hidden

with hidden("transformers"):
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer

__all__ = ["QuickGELU", "ResidualAttentionBlock", "TimmModel", "VisionTransformer", "get_pretrained_cfg", "open_clip",
           "use_transformers"]


def use_transformers() -> None:
    """Let open_clip have transformers, of which its text towers by `hf_model_name` are."""
    if open_clip.hf_model.transformers is None:
        importlib.reload(open_clip.hf_model)
