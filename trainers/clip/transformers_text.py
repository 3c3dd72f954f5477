"""A text tower that open_clip takes from transformers (RoBERTa, mT5, NLLB): a context at its entry, and no deeper."""

from torch import Tensor, nn

from dassl.utils.errors import UserError
from trainers.clip.text_tower import TextTower, filled
from trainers.clip.tokens import Layout
from trainers.core.prompts import Prompts, TokenRows


class TransformersText(TextTower):
    """open_clip's HFTextEncoder. Padding is masked by the model itself."""

    why_plain = "it is a model of transformers"

    def __init__(self, text: nn.Module, layout: Layout):
        self.text, self.layout = text, layout
        self._embedding = text.transformer.get_input_embeddings()
        self.width, self.depth, self.feature_width = self._embedding.weight.shape[1], 1, text.output_dim

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self._embedding(ids.to(self._embedding.weight.device))

    def encode(self, rows: TokenRows, prompts: Prompts) -> Tensor:
        """Return the features [T, D]; UserError for deeper prompts or changed weights."""
        if len(prompts.text) > 1 or prompts.text_changes:
            raise UserError("the text tower of this backbone is a model of transformers, of which only the context at its "
                            "entry is tuned: choose CoOp, or another backbone")
        device = self._embedding.weight.device
        ids, slots = rows.ids.to(device, non_blocking=True), rows.slots.to(device, non_blocking=True)
        x = filled(self.embed_tokens(ids), slots, prompts.text[0])
        attended = (ids.scatter(1, slots, self.layout.pad + 1) != self.layout.pad).long()
        found = self.text.transformer(inputs_embeds=x, attention_mask=attended)
        return self.text.proj(self.text.pooler(found, attended))
