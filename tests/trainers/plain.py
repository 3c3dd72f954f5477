"""The plain slow path: every text at the full context length, every token through every one of open_clip's blocks."""

import torch
from torch import Tensor

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import Prompts, TokenRows


def plain_text(clip: FrozenCLIP, rows: TokenRows, tokens: tuple[Tensor, ...]) -> Tensor:
    """Return the features [T, D] of texts with the context at the slots and deeper prompts, if any, at positions 1..n."""
    text, context = clip.text, tokens[0]
    laid_out = []
    for row in range(len(rows.ids)):
        x = list(text.token_embedding(rows.ids[row]))
        for token, slot in enumerate(rows.slots[row].tolist()):
            x[slot] = (context[row] if context.dim() == 3 else context)[token].to(x[slot].dtype)
        laid_out.append(torch.stack(x))
    x = torch.stack(laid_out) + text.positional_embedding
    for depth, block in enumerate(text.transformer.resblocks):
        if 0 < depth < len(tokens):
            deeper = tokens[depth].to(x.dtype)
            x = torch.cat([x[:, :1], deeper.expand(len(x), -1, -1), x[:, 1 + deeper.shape[-2]:]], dim=1)
        x = block(x, attn_mask=text.attn_mask)
    return text.ln_final(x)[torch.arange(len(x)), rows.ids.argmax(1)] @ text.text_projection


def plain_image(clip: FrozenCLIP, images: Tensor, prompts: Prompts) -> Tensor:
    """Return the features [B, D] of images, with prompts before or behind `ln_pre` and anew at each block."""
    vision, tokens = clip.model.visual, [part.to(images.dtype) for part in prompts.image]
    x = vision.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([vision.class_embedding.expand(len(x), 1, -1), x], dim=1) + vision.positional_embedding
    n_tokens = x.shape[1]
    if prompts.after_ln_pre:
        x = torch.cat([vision.ln_pre(x), tokens[0].expand(len(x), -1, -1)], dim=1)
    else:
        x = vision.ln_pre(torch.cat([x, tokens[0].expand(len(x), -1, -1)], dim=1))
    for depth, block in enumerate(vision.transformer.resblocks):
        if 0 < depth < len(tokens):
            x = torch.cat([x[:, :n_tokens], tokens[depth].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return vision.ln_post(x[:, :n_tokens])[:, 0] @ vision.proj
