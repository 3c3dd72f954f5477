"""The linear layers of a CLIP's towers over oneDNN, and nothing else of them: attention would be slower over it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dassl.utils.linear import linear
from trainers.clip.library import ResidualAttentionBlock


class OneDNNLinear(nn.Linear):
    """A linear layer whose matrix is constant."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class OneDNNAttention(nn.MultiheadAttention):
    """The attention of open_clip's blocks: of batches first, of tokens to themselves, without dropout."""

    def forward(  # type: ignore[override]  # the words that blocks call it with
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        parts = linear(query, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        mask = attn_mask if attn_mask is None or attn_mask.dim() == 2 else attn_mask.unflatten(0, (len(query), -1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return linear(attended, self.out_proj.weight, self.out_proj.bias), None


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a frozen model's towers, those inside its blocks' attention too, be oneDNN's."""
    for layer in list(model.modules()):
        if type(layer) is nn.Linear:
            layer.__class__ = OneDNNLinear
        elif isinstance(layer, ResidualAttentionBlock) and not hasattr(layer, "ln_1_kv") and layer.attn.batch_first:
            layer.attn.__class__ = OneDNNAttention


def linear_of(block: ResidualAttentionBlock) -> Callable[..., Tensor]:
    """Return the function by which a block's own matrices are applied: of x, weight and bias."""
    return linear if isinstance(block.attn, OneDNNAttention) else F.linear
