"""open_clip's own block, taken apart: with changed matrices, and at those tokens alone whose result is read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.utils.errors import UserError
from trainers.clip.library import QuickGELU, ResidualAttentionBlock
from trainers.clip.linear_layers import linear_of
from trainers.core.low_rank import Changes, LowRank

QUICK = 1.702  # of QuickGELU
UNCHANGED: Changes = {}


def check_standard(blocks: nn.ModuleList, need: str) -> None:
    """Raise UserError, which begins with what needs them, unless all blocks are of open_clip's standard kind."""
    if not all(isinstance(block, ResidualAttentionBlock) for block in blocks):
        raise UserError(f"{need} open_clip's standard blocks, which this backbone does not have")


def projected(block: ResidualAttentionBlock, x: Tensor, parts: str, changes: Changes) -> tuple[Tensor, ...]:
    """Return neighboring parts of "qkv" (queries, keys, values) of tokens [..., width]: [..., heads, head width] each."""
    width, first = x.shape[-1], "qkv".index(parts)
    rows = slice(first * width, (first + len(parts)) * width)
    weight, bias, x = block.attn.in_proj_weight[rows], block.attn.in_proj_bias[rows], block.ln_1(x)
    if changes:
        each = zip(parts, weight.split(width), bias.split(width), strict=True)
        found = torch.cat([_linear(block, x, *own, changes.get(part)) for part, *own in each], dim=-1)
    else:
        found = linear_of(block)(x, weight, bias)
    return found.unflatten(-1, (len(parts), block.attn.num_heads, -1)).unbind(-3)


def _linear(block: ResidualAttentionBlock, x: Tensor, weight: Tensor, bias: Tensor, change: LowRank | None) -> Tensor:
    return linear_of(block)(x, weight, bias) if change is None else change.linear(x, weight, bias)


def after_attention(block: ResidualAttentionBlock, x: Tensor, attended: Tensor, changes: Changes) -> Tensor:
    """Return the block's result for tokens x from the heads' concatenated outputs, both [..., width]."""
    out = block.attn.out_proj
    x = x + block.ls_1(_linear(block, attended, out.weight, out.bias, changes.get("o")))
    if not isinstance(block.mlp.gelu, QuickGELU) or not isinstance(block.ls_2, nn.Identity):
        return x + block.ls_2(block.mlp(block.ln_2(x)))
    hidden = F.silu(QUICK * block.mlp.c_fc(block.ln_2(x)))  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702, in one kernel
    return torch.add(x + block.mlp.c_proj.bias, linear_of(block)(hidden, block.mlp.c_proj.weight), alpha=1 / QUICK)


def changed_block(block: ResidualAttentionBlock, x: Tensor, changes: Changes, mask: Tensor | None = None) -> Tensor:
    """Return the block's result [B, L, width] with changed weights.

    `mask`, [L, L] or [B heads, L, L], is added to the products of queries and keys.
    """
    mask = mask if mask is None or mask.dim() == 2 else mask.unflatten(0, (len(x), -1))
    q, k, v = (part.transpose(1, 2) for part in projected(block, x, "qkv", changes))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    return after_attention(block, x, attended, changes)


def block_at(block: ResidualAttentionBlock, read: Tensor, x: Tensor, changes: Changes) -> Tensor:
    """Return the block's result [B, width] at the one token `read` [B, width] of x [B, L, width]."""
    (q,) = projected(block, read, "q", changes)
    k, v = (part.transpose(1, 2) for part in projected(block, x, "kv", changes))
    return after_attention(block, read, F.scaled_dot_product_attention(q[:, :, None], k, v).flatten(1), changes)
