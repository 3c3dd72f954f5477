"""A bank of examples in memory, redrawn a chunk at a time while training reads from it."""

from typing import NamedTuple

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from tqdm import tqdm

from .draw import SIZE
from .stream import StreamSettings, draw_example

MAX_SHIFT = 2  # pixels


class Batch(NamedTuple):
    """What one training step sees. `labels` holds the rows of concept, foreground and background."""

    images: Tensor  # float32 [B, 3, 32, 32], normalized and augmented
    tokens: Tensor  # int64 [B, context]
    labels: Tensor  # int64 [B, 3]


class Bank:
    """A fixed number of examples of the stream, the oldest of which `refresh` replaces."""

    def __init__(self, n_examples: int, settings: StreamSettings, tokenizer: SimpleTokenizer, seed: int) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.stream_rng = np.random.default_rng([seed, 0])
        self.batch_rng = torch.Generator().manual_seed(seed)
        self.images = torch.zeros(n_examples, 3, SIZE, SIZE, dtype=torch.uint8)
        self.tokens = torch.zeros(n_examples, tokenizer.context_length, dtype=torch.int64)
        self.labels = torch.zeros(n_examples, 3, dtype=torch.int64)
        self._token_rows: dict[str, Tensor] = {}
        self._oldest = 0
        for _ in tqdm(range(n_examples), desc="draw", disable=None):
            self.refresh(1)

    def __len__(self) -> int:
        return len(self.images)

    def refresh(self, n_examples: int) -> None:
        """Replace the oldest examples by new ones."""
        for _ in range(n_examples):
            example = draw_example(self.settings, self.stream_rng)
            row, self._oldest = self._oldest, (self._oldest + 1) % len(self)
            self.images[row] = torch.from_numpy(example.image.copy()).permute(2, 0, 1)
            self.tokens[row] = self._tokens_of(example.caption)
            self.labels[row] = torch.tensor([example.concept, example.foreground, example.background])

    def _tokens_of(self, caption: str) -> Tensor:
        if caption not in self._token_rows:
            self._token_rows[caption] = self.tokenizer(caption)[0]
        return self._token_rows[caption]

    def batch(self, batch_size: int) -> Batch:
        """Return random examples; their images are shifted and changed in brightness and contrast."""
        rows = torch.randint(len(self), (batch_size,), generator=self.batch_rng)
        images = augment(self.images[rows].float() / 127.5 - 1, self.batch_rng)
        return Batch(images, self.tokens[rows], self.labels[rows])


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return the images `[B, 3, 32, 32]` moved by up to two pixels and slightly changed in brightness and contrast."""
    n_images = len(images)
    padded = torch.nn.functional.pad(images, [MAX_SHIFT] * 4, mode="replicate")
    shifts = torch.randint(2 * MAX_SHIFT + 1, (2, n_images, 1), generator=rng)
    rows, columns = shifts + torch.arange(SIZE)  # [B, 32] each
    image = torch.arange(n_images)[:, None, None]
    shifted = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # [B, 3, 32, 32]
    contrast = 0.8 + 0.4 * torch.rand(n_images, 1, 1, 1, generator=rng)
    brightness = 0.3 * torch.rand(n_images, 1, 1, 1, generator=rng) - 0.15
    return (contrast * shifted + brightness).clamp(-1, 1)
