"""The tokenizer: open_clip's byte-pair merges, cut to the most frequent ones.

The full vocabulary of 49,408 tokens would cost 6 M parameters at this model's width, over three times all the rest.
"""

import gzip
import io
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer, default_bpe

N_MERGES = 3600
VOCAB_SIZE = 512 + N_MERGES + 2  # the 256 bytes, alone and ending a word; the merges; start and end of text
CONTEXT_LENGTH = 32


def shortened_merges(n_merges: int = N_MERGES) -> bytes:
    """Return open_clip's merges file with its head line and first merges only, gzipped without a date.

    The file does not end in a newline: SimpleTokenizer would read an empty merge after it.
    """
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write("\n".join(lines[: n_merges + 1]).encode("utf-8"))
    return packed.getvalue()


def load_tokenizer(bpe_path: Path) -> SimpleTokenizer:
    """Return the tokenizer that reads the shortened merges file."""
    return SimpleTokenizer(bpe_path=str(bpe_path), context_length=CONTEXT_LENGTH)
