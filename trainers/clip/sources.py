"""Where weights and tokenizers are: on this disk, in Hugging Face's cache of this machine, or else at which address.

Nothing here uses the network, and torch is not imported.
"""

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from dassl.utils.errors import ConfigError
from dassl.utils.files import read_json
from dassl.utils.paths import is_file, is_folder
from trainers.clip.architectures import LOCAL, found, named_folder

INDEX = ".index.json"  # of weights in several files
HUB = "https://huggingface.co"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
WEIGHTS = (*OPEN_CLIP_WEIGHTS, "model.safetensors", f"model.safetensors{INDEX}",
           "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
ADAPTER = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
FETCHED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")  # of a tokenizer, as open_clip's are stored


def weights_file(name: str, pretrained: str, *, is_tag: bool = False) -> Path | None:
    """Return the weights file, or the index of several, that a backbone's keys name; None if they name nothing of this disk.

    `pretrained` is a file or a folder, or "" for the folder that is the backbone's name; of a tag only a file is taken. Raises
    ConfigError for a folder that holds no weights, or several without one of the usual names.
    """
    path = found(pretrained.removeprefix(LOCAL)) if pretrained else named_folder(name)
    if path is None or is_file(path):
        return path
    return None if is_tag else _weights_in(path)


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if is_file(folder / name):
            return folder / name
    if is_file(folder / ADAPTER):
        base = read_json(folder / ADAPTER).get("base_model_name_or_path") or "BASE"
        raise ConfigError(f"MODEL.BACKBONE.PRETRAINED: {folder} holds a LoRA adapter ({ADAPTER}) and not a whole model; "
                          f"{merged(base, str(folder))}")
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(others) == 1:
        return others[0]
    known = f"none of {', '.join(WEIGHTS)}"
    raise ConfigError(f"MODEL.BACKBONE.PRETRAINED: {folder} holds " + (f"{known}, and several other weights files, such as "
                      f"{others[0].name}; name one" if others else f"no weights ({known})"))


def merged(base: str = "BASE", adapter: str = "ADAPTER") -> str:
    """Return how a LoRA adapter becomes a whole checkpoint."""
    return (f"merge it and name the new folder: PeftModel.from_pretrained(AutoModel.from_pretrained({base!r}), {adapter!r})"
            ".merge_and_unload().save_pretrained('merged'), of the package peft")


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of some files of a repository that Hugging Face's cache of this machine holds."""
    for name in names:
        path = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(path, str):
            return Path(path)
    return None


def hub_place(source: dict) -> tuple[str, tuple[str, ...]]:
    """Return the repository of a tag by open_clip's entry, "" if there is none, and the files that it may be in."""
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    if not file:
        return repository, OPEN_CLIP_WEIGHTS
    stem = file.rpartition(".")[0]
    return repository, tuple(dict.fromkeys((f"{stem}.safetensors", file)))


def cached_tag(source: dict) -> Path | None:
    """Return the weights of a tag, by open_clip's entry, in Hugging Face's cache."""
    repository, names = hub_place(source)
    return cached(repository, names) if repository else None


def where_to_get(source: dict, name: str, tokenizer: str = "") -> str:
    """Return which files to fetch for a tag, from where, and which keys take them; `tokenizer` is the repository of one."""
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    folder = f"{HUB}/{repository}/resolve/main"
    weights = f"{folder}/{file or OPEN_CLIP_WEIGHTS[0]}" if repository else source.get("url")
    beside = f", {folder}/open_clip_config.json if there is one" if repository else ""
    words = f" and {', '.join(_addresses(tokenizer))}" if tokenizer else ""
    return (f"without a network, fetch {weights}{beside}{words} elsewhere, put them into one folder of this machine and give "
            f"the path of the weights as MODEL.BACKBONE.PRETRAINED, with MODEL.BACKBONE.NAME {name}")


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds the files of a tokenizer."""
    return is_folder(folder) and any(is_file(folder / name) for name in TOKENIZERS)


def tokenizer_folder(given: str, beside: Path | None, repository: str) -> Path | None:
    """Return the folder of a tokenizer: the one that is given, that of the checkpoint, or one in Hugging Face's cache.

    None if it is at none of them. Raises ConfigError if the one that is given holds no tokenizer.
    """
    if given:
        folder = found(given)
        if folder is None or not has_tokenizer(folder):
            raise ConfigError(f"MODEL.BACKBONE.TOKENIZER: {given!r} is not a folder with one of {', '.join(TOKENIZERS)}")
        return folder
    if beside is not None and has_tokenizer(beside):
        return beside
    file = cached(repository, TOKENIZERS) if repository else None
    return None if file is None else file.parent


def where_to_get_tokenizer(repository: str) -> str:
    """Return which files of a tokenizer to fetch, from where, and which key takes them."""
    return (f"without a network, fetch {', '.join(_addresses(repository))} elsewhere (those that are there), put them into a "
            "folder of this machine and give it as MODEL.BACKBONE.TOKENIZER, or put them beside the weights")


def _addresses(repository: str) -> list[str]:
    return [f"{HUB}/{repository}/resolve/main/{name}" for name in FETCHED]
