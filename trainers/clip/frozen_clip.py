"""The frozen CLIP: functional encoders over open_clip's own modules, with prompts as arguments.

The only file that knows open_clip's insides. Without prompts the encoders are open_clip's own, bit for bit. With prompts
or changed weights they compute the same function of real numbers as the plain path (every text padded to the full context
length, every token through every block), but leave out what cannot reach the result:

- text: one stream without padding and with the common beginning once, see `trainers.clip.text_stream`;
- the start token's keys and values are constants of the tower, as long as its weights are;
- the last block is evaluated at the one token that is read (end token, class token).
"""

from collections.abc import Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError
from trainers.clip.text_stream import TextStream, spread, text_stream
from trainers.core.low_rank import Changes, LowRank
from trainers.core.prompts import Prompts, TokenRows

QUICK = 1.702  # of QuickGELU
UNCHANGED: Changes = {}
KeysValues = tuple[Tensor, Tensor]
N_STREAMS = 8  # kept at a time: those of a learner, its selector and zero-shot CLIP are three


class FrozenCLIP:
    """An open_clip model whose weights never change, its tokenizer and its preprocessing.

    `fingerprint` identifies the weights in cache keys and checkpoints. Features are returned as the towers make them, not
    normalized; use `normalized`.
    """

    def __init__(self, model: nn.Module, tokenizer, preprocessing: Preprocessing, *, name: str, fingerprint: str):
        self.model = model.eval().requires_grad_(False)
        self.text = getattr(model, "text", model)
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.name = name
        self.fingerprint = fingerprint
        self._made_streams: dict[tuple[TokenRows, bool, bool], tuple[TextStream, Tensor]] = {}
        self.logit_scale = float(model.logit_scale.detach().double().exp())

    @property
    def device(self) -> torch.device:
        return self.text.token_embedding.weight.device

    @property
    def text_width(self) -> int:
        return self.text.token_embedding.weight.shape[1]

    @property
    def feature_width(self) -> int:
        """D, the width of image and text features."""
        projection = self.text.text_projection
        return projection.out_features if isinstance(projection, torch.nn.Linear) else projection.shape[1]

    @property
    def text_depth(self) -> int:
        return len(self.text.transformer.resblocks)

    @property
    def image_width(self) -> int:
        return self._vision.class_embedding.shape[0]

    @property
    def image_depth(self) -> int:
        return len(self._vision.transformer.resblocks)

    @property
    def patch_size(self) -> tuple[int, int]:
        return self._vision.patch_size

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the token embeddings of ids, without positions: [..., width]."""
        return self.text.token_embedding(ids.to(self.device))

    def encode_image(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of images [B, 3, height, width]; open_clip's own path."""
        return self.model.encode_image(images.to(self.device, self._image_dtype))

    @property
    def image_projection(self) -> Tensor:
        """The linear map [width, D] from `encode_before_projection` to features; UserError for a tower without one."""
        if (projection := self._vision.proj) is None:
            raise UserError(f"{self.name} has no linear projection of image features; choose a CLIP with OpenAI's kind of ViT")
        return projection

    def encode_before_projection(self, images: Tensor) -> Tensor:
        """Return the rows [B, width] of images that the projection makes features of; open_clip's own path up to there."""
        vision = self._vision
        return vision._pool(vision.transformer(self.embed_image(images)))[0]

    def embed_image(self, images: Tensor) -> Tensor:
        """Return the tokens [B, 1 + patches, width] that enter the first block; constant as long as the image is."""
        return self._vision._embeds(images.to(self.device, self._image_dtype))

    def encode_image_tokens(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """Return the features [B, D] of the tokens of `embed_image`, with `prompts.image` put in and `image_changes` made.

        Prompts stand behind the image tokens. The first ones are sent through `ln_pre` (which works token by token)
        unless `prompts.after_ln_pre`; deeper ones take their place at the entry of their block.
        """
        vision, x = self._vision, tokens.to(self.device, self._image_dtype)
        n_tokens, blocks, changes = x.shape[1], vision.transformer.resblocks, prompts.image_changes
        if changes:
            self._check_standard(blocks, "changes of the image tower's weights need")
        for depth, block in enumerate(blocks):
            if depth < len(prompts.image):
                new = prompts.image[depth].to(x.dtype)
                new = new if depth or prompts.after_ln_pre else vision.ln_pre(new)
                x = torch.cat([x[:, :n_tokens], new.expand(x.shape[0], -1, -1)], dim=1)
            if depth + 1 < len(blocks) or not self._reads_class_token:
                x = _changed_block(block, x, changes[depth]) if depth in changes else block(x)
        if self._reads_class_token:
            return vision.ln_post(_block_at(blocks[-1], x[:, 0], x, changes.get(len(blocks) - 1, UNCHANGED))) @ vision.proj
        pooled, _ = vision._pool(x[:, :n_tokens])
        return pooled @ vision.proj

    def encode_text(self, rows: TokenRows, prompts: Prompts | None = None) -> Tensor:
        """Return the features [T, D] of the texts with `prompts.text` in their slots and `text_changes` made.

        Without either this is open_clip's own path. Deeper prompts need a context that stands right behind the
        start token; ValueError says so.
        """
        if prompts is None or not prompts.tunes_text:
            return self.model.encode_text(rows.ids.to(self.device))
        start, changes = self._start_token(prompts.text_changes), prompts.text_changes
        context = prompts.text[0] if prompts.text else torch.empty(0, self.text_width, device=self.device)
        stream, embedded = self._streams(rows, context.dim() == 2, len(prompts.text) > 1)
        context = context.reshape(-1, context.shape[-1]).to(embedded.dtype)
        x = embedded.index_add(0, stream.slots, context[stream.sources])
        for depth in range(self.text_depth):
            if 0 < depth < len(prompts.text) and prompts.text[depth].numel():
                x, stream = self._replaced(x, stream, rows, prompts.text[depth].to(x.dtype))
            x = self._text_block(depth, x, stream, start[depth], changes.get(depth, UNCHANGED))
        projection = self.text.text_projection
        x = self.text.ln_final(x[stream.order])
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def _replaced(self, x: Tensor, stream: TextStream, rows: TokenRows, tokens: Tensor) -> tuple[Tensor, TextStream]:
        """Return the stream [n, width] with other tokens in its slots, and where its tokens stand then.

        From the first class-specific tokens on, [T, n, width], no context is common: each text has its own copy.
        """
        if tokens.dim() == 3 and stream.n_common:
            own, _ = self._streams(rows, False, True)
            x, stream = x[spread(stream, own)], own
        if stream.n_common:
            return torch.cat([tokens, x[len(tokens):]]), stream
        tokens = tokens.expand(len(rows.ids), -1, -1).flatten(0, 1)
        return x.index_copy(0, stream.slots, tokens[stream.sources]), stream

    def _text_block(self, depth: int, x: Tensor, stream: TextStream, start: KeysValues, changes: Changes) -> Tensor:
        """Return the stream [n, width] after a block, or after the last one the end tokens [T, width] in stream order."""
        block, last = self.text.transformer.resblocks[depth], depth + 1 == self.text_depth
        queries, *keys_values = (None, *_projected(block, x, "kv", changes)) if last else _projected(block, x, "qkv", changes)
        (common_k, *own_k), (common_v, *own_v) = (part.split(stream.sizes) for part in keys_values)
        common_k, common_v = (torch.cat([own, part]).transpose(0, 1)[None]  # [1, heads, P, head width]
                              for own, part in zip(start, (common_k, common_v), strict=True))
        if last:
            x = x[stream.ends]
            own_q = _projected(block, x, "q", changes)[0].split([group.n_texts for group in stream.groups])
            attended = []
        else:
            common_q, *own_q = queries.split(stream.sizes)
            attended = [_attention(common_q.transpose(0, 1)[None], common_k, common_v, stream.common_mask)]
        for group, q, k, v in zip(stream.groups, own_q, own_k, own_v, strict=True):
            keys, values = (torch.cat([common.expand(group.n_texts, -1, -1, -1), _texts(own, group.n_texts)], dim=2)
                            for common, own in ((common_k, k), (common_v, v)))
            attended.append(_attention(_texts(q, group.n_texts), keys, values, None if last else group.mask))
        return _after_attention(block, x, torch.cat(attended), changes)

    def _streams(self, rows: TokenRows, shared: bool, deep: bool) -> tuple[TextStream, Tensor]:
        """Return the stream of the texts and its embedded tokens [n, width], kept for the last `N_STREAMS` sets of texts."""
        key = rows, shared, deep
        if key not in self._made_streams:
            if len(self._made_streams) == N_STREAMS:
                del self._made_streams[next(iter(self._made_streams))]
            self._made_streams[key] = self._make_stream(rows, shared, deep)
        return self._made_streams[key]

    def _make_stream(self, rows: TokenRows, shared: bool, deep: bool) -> tuple[TextStream, Tensor]:
        """Return the stream of the texts and its embedded tokens [n, width], with positions alone at the slots."""
        stream = text_stream(rows, shared=shared, device=self.device)
        if deep and (rows.slots != torch.arange(1, rows.slots.shape[1] + 1)).any():
            raise ValueError("deep text prompts need a context right behind the start token")
        embedded = self.text.token_embedding(stream.ids)
        embedded[stream.slots] = 0
        dtype = self.text.transformer.get_cast_dtype()
        return stream, (embedded + self.text.positional_embedding[stream.positions]).to(dtype)

    @cached_property
    def _constant_start_token(self) -> list[KeysValues]:
        return self._make_start_token({})

    def _start_token(self, changes: Mapping[int, Changes]) -> list[KeysValues]:
        """Return keys and values of the start token in every block, [1, heads, head width] each: it sees nothing but itself."""
        return self._make_start_token(changes) if changes else self._constant_start_token

    def _make_start_token(self, changes: Mapping[int, Changes]) -> list[KeysValues]:
        start = torch.tensor([self.tokenizer.sot_token_id], device=self.device)
        x = (self.text.token_embedding(start) + self.text.positional_embedding[:1]).to(self.text.transformer.get_cast_dtype())
        found = []
        self._check_standard(self.text.transformer.resblocks, "text prompts need")
        for depth, block in enumerate(self.text.transformer.resblocks):
            own = changes.get(depth, UNCHANGED)
            k, v = _projected(block, x, "kv", own)
            found.append((k, v))
            x = _after_attention(block, x, v.flatten(1), own)
        return found

    def _check_standard(self, blocks: nn.ModuleList, need: str) -> None:
        if not all(isinstance(block, ResidualAttentionBlock) for block in blocks):
            raise UserError(f"{need} open_clip's standard blocks, which {self.name} does not have")

    @property
    def _vision(self) -> VisionTransformer:
        if not isinstance(self.model.visual, VisionTransformer):
            raise UserError(f"{self.name} has no vision transformer, so it takes text prompts only: use CoOp or a ViT")
        return self.model.visual

    @property
    def _image_dtype(self) -> torch.dtype:
        return next(layer for layer in self.model.visual.modules() if isinstance(layer, nn.Conv2d)).weight.dtype

    @property
    def _reads_class_token(self) -> bool:
        vision = self._vision
        return (vision.attn_pool is None and vision.pool_type == "tok"
                and isinstance(vision.transformer.resblocks[-1], ResidualAttentionBlock))


def _projected(block: ResidualAttentionBlock, x: Tensor, parts: str, changes: Changes) -> tuple[Tensor, ...]:
    """Return neighboring parts of "qkv" (queries, keys, values) of tokens [..., width]: [..., heads, head width] each."""
    width, first = x.shape[-1], "qkv".index(parts)
    rows = slice(first * width, (first + len(parts)) * width)
    weight, bias, x = block.attn.in_proj_weight[rows], block.attn.in_proj_bias[rows], block.ln_1(x)
    if changes:
        each = zip(parts, weight.split(width), bias.split(width), strict=True)
        projected = torch.cat([_linear(x, *own, changes.get(part)) for part, *own in each], dim=-1)
    else:
        projected = F.linear(x, weight, bias)
    return projected.unflatten(-1, (len(parts), block.attn.num_heads, -1)).unbind(-3)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, change: LowRank | None) -> Tensor:
    return F.linear(x, weight, bias) if change is None else change.linear(x, weight, bias)


def _after_attention(block: ResidualAttentionBlock, x: Tensor, attended: Tensor, changes: Changes) -> Tensor:
    """Return the block's result for tokens x from the heads' concatenated outputs, both [..., width]."""
    out = block.attn.out_proj
    x = x + block.ls_1(_linear(attended, out.weight, out.bias, changes.get("o")))
    if not isinstance(block.mlp.gelu, QuickGELU) or not isinstance(block.ls_2, nn.Identity):
        return x + block.ls_2(block.mlp(block.ln_2(x)))
    hidden = F.silu(QUICK * block.mlp.c_fc(block.ln_2(x)))  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702, in one kernel
    return torch.add(x + block.mlp.c_proj.bias, F.linear(hidden, block.mlp.c_proj.weight), alpha=1 / QUICK)


def _changed_block(block: ResidualAttentionBlock, x: Tensor, changes: Changes) -> Tensor:
    """Return the block's result [B, L, width] with changed weights."""
    q, k, v = (part.transpose(1, 2) for part in _projected(block, x, "qkv", changes))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return _after_attention(block, x, attended, changes)


def _block_at(block: ResidualAttentionBlock, read: Tensor, x: Tensor, changes: Changes) -> Tensor:
    """Return the block's result [B, width] at the one token `read` [B, width] of x [B, L, width]."""
    (q,) = _projected(block, read, "q", changes)
    k, v = (part.transpose(1, 2) for part in _projected(block, x, "kv", changes))
    return _after_attention(block, read, F.scaled_dot_product_attention(q[:, :, None], k, v).flatten(1), changes)


def _texts(rows: Tensor, n_texts: int) -> Tensor:
    """Return rows [n_texts S, heads, head width] of texts of equal length as [n_texts, heads, S, head width]."""
    return rows.unflatten(0, (n_texts, -1)).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the heads' concatenated outputs as rows [B Q, width], for q [B, heads, Q, head width] and longer k and v."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2).flatten(0, 1)


def normalized(features: Tensor) -> Tensor:
    """Return features scaled to unit length along the last axis, in fp32 where the towers are of lower precision."""
    low = features.dtype in (torch.float16, torch.bfloat16)
    return F.normalize(features.float() if low else features, dim=-1)
