"""What is minimized: a contrastive loss over unique captions, and auxiliary heads that start the training off."""

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor, nn

from .bank import Batch
from .stream import COLOR_NAMES, CONCEPTS

MAX_LOGIT_SCALE = 50.0


def encode_short_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Return `model.encode_text(tokens)` `[T, D]`, computed only on the positions up to the last end of text.

    The tower is causal and reads its output at the end of text, so the padding behind it changes nothing but the time.
    """
    end = tokens.argmax(dim=1)  # the end of text has the largest id
    length = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection


def contrastive_loss(logits: Tensor, caption_of: Tensor, n_images_of: Tensor) -> Tensor:
    """Return the symmetric loss of images `[B]` against the batch's unique captions `[U]`.

    `logits` is `[B, U]`, `caption_of` `[B]` each image's caption, `n_images_of` `[U]` how many images carry a caption.
    Image to text: a caption counts as often as it occurs in the batch. Text to image: every image with that caption is
    right. Without this, two images called "a photo of the digit 7" would be pushed away from their own caption.
    """
    image_to_text = F.cross_entropy(logits + n_images_of.log(), caption_of)
    log_share_of_image = logits.log_softmax(dim=0).gather(1, caption_of[:, None])  # [B, 1]
    return (image_to_text - log_share_of_image.mean()) / 2


class AuxiliaryHeads(nn.Module):
    """Linear classifiers of concept, foreground and background, thrown away after training.

    The contrastive loss alone hardly moves in the time given. The concept is read from images and from captions by the
    same head, which makes the two towers meet; the colors are read from images alone, as most captions leave them out.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.concept = nn.Linear(embed_dim, len(CONCEPTS))
        self.foreground = nn.Linear(embed_dim, len(COLOR_NAMES))
        self.background = nn.Linear(embed_dim, len(COLOR_NAMES))

    def forward(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the cross-entropies for features `[B, D]` and labels `[B, 3]`."""
        concept, foreground, background = labels.T
        return (
            F.cross_entropy(self.concept(image_features), concept)
            + 0.5 * F.cross_entropy(self.concept(text_features), concept)
            + 0.5 * F.cross_entropy(self.foreground(image_features), foreground)
            + 0.5 * F.cross_entropy(self.background(image_features), background)
        )


def batch_losses(model: CLIP, heads: AuxiliaryHeads, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the contrastive and the auxiliary loss of a batch."""
    captions, caption_of, n_images_of = batch.tokens.unique(dim=0, return_inverse=True, return_counts=True)
    image_features = model.encode_image(batch.images)
    text_features = encode_short_text(model, captions)
    logit_scale = model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
    logits = logit_scale * F.normalize(image_features, dim=1) @ F.normalize(text_features, dim=1).T
    auxiliary = heads(image_features, text_features[caption_of], batch.labels)
    return contrastive_loss(logits, caption_of, n_images_of), auxiliary
