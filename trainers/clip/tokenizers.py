"""Tokenizers: CLIP's, which open_clip brings along, and those of other text towers, from files of transformers' kind."""

from copy import copy
from pathlib import Path
from typing import Any

from dassl.utils.errors import UserError, first_line
from dassl.utils.extras import required
from dassl.utils.files import read_json
from dassl.utils.paths import is_file
from trainers.clip.building import Architecture
from trainers.clip.library import open_clip
from trainers.clip.sources import tokenizer_folder, where_to_get_tokenizer

TOKENIZERS = "requirements-tokenizers.txt"  # which installs what reads them
LENGTH = 77  # tokens, of a text tower whose architecture does not say
WORDS = 49408  # of a text tower whose architecture does not say; CLIP's vocabulary


def build_tokenizer(architecture: Architecture, given: str, beside: Path | None, merges: Path) -> Any:
    """Return the tokenizer of an architecture, as open_clip makes it.

    Its files are looked for in the folder that is `given`, then in `beside`, that of the weights, then in Hugging Face's cache,
    then in the network. A text tower without a tokenizer of its own takes CLIP's, unless one of these folders has another;
    `merges` is the folder of its merges file, if it has one of its own. Raises UserError if there is no tokenizer that fits.
    """
    text = architecture["text_cfg"]
    repository, arguments = text.get("hf_tokenizer_name") or "", dict(text.get("tokenizer_kwargs") or {})
    length, n_tokens = text.get("context_length", LENGTH), text.get("vocab_size", WORDS)
    folder = tokenizer_folder(given, beside, repository)
    if repository or (folder is not None and not _is_clips(folder)):
        return _of_files(folder, repository, dict(arguments, context_length=length, tokenizer_mode=text.get("tokenizer_mode")))
    if "bpe_path" in arguments:
        arguments["bpe_path"] = str(merges / arguments["bpe_path"])
    tokenizer = open_clip.SimpleTokenizer(context_length=length, **arguments) if arguments else _clips(length)
    if tokenizer.vocab_size > n_tokens:
        raise UserError(f"the text tower knows {n_tokens} tokens and CLIP's tokenizer has {tokenizer.vocab_size}; put its own "
                        "tokenizer.json into the folder of the weights, or name its folder as MODEL.BACKBONE.TOKENIZER")
    return tokenizer


def _clips(length: int) -> Any:
    """Return CLIP's tokenizer for texts of a length: a copy of the one that open_clip makes as it is imported, in no time."""
    made = getattr(open_clip.tokenizer, "_tokenizer", None)
    if not isinstance(made, open_clip.SimpleTokenizer):
        return open_clip.SimpleTokenizer(context_length=length)
    own = copy(made)
    own.context_length = length
    return own


def _of_files(folder: Path | None, repository: str, arguments: dict[str, Any]) -> Any:
    required("transformers", "tokenizers other than CLIP's", TOKENIZERS)
    try:
        return open_clip.tokenizer.HFTokenizer(str(folder or repository), **arguments)
    except Exception as error:  # whatever transformers, its parsers and the network raise
        where = f"; pip install -r {TOKENIZERS}" if isinstance(error, ImportError) else (
            "" if folder else f"; {where_to_get_tokenizer(repository)}")
        raise UserError(f"cannot load the tokenizer {folder or repository}: {first_line(error)}{where}") from error


def _is_clips(folder: Path) -> bool:
    """Return whether the files of a tokenizer hold CLIP's own vocabulary, whatever its two special tokens are called."""
    words = {}
    if is_file(folder / "tokenizer.json"):
        words = read_json(folder / "tokenizer.json").get("model", {}).get("vocab", {})
    elif is_file(folder / "vocab.json"):
        words = read_json(folder / "vocab.json")
    if not isinstance(words, dict) or len(words) < WORDS - 2:
        return False
    clips = open_clip.SimpleTokenizer().encoder
    return all(words.get(word) == number for word, number in clips.items() if number < WORDS - 2)
