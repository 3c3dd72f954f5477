"""Where weights and tokenizers are found: on this disk, in Hugging Face's cache, or by following the error."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, UserError
from tests.trainers.clip.checkpoints import SMALL, clip_model, siglip_model, written
from trainers.clip.backbones import check_backbone, load_clip, load_model
from trainers.clip.sources import FETCHED, cached
from trainers.clip.tokenizers import build_tokenizer

REPOSITORY = "people/small"
WORDS = ["[UNK]", "</s>", "<pad>", "a", "photo", "of", "heron", "."]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path) -> Path:
    """Disconnect the network, and return an empty Hugging Face cache."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def no_network(*_, **__):
    raise OSError("no network")


def put_into_cache(hub: Path, repository: str, file: Path, name: str = "") -> None:
    """Put a file where huggingface_hub keeps those of a repository."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("0123abcd")
    (folder / "snapshots" / "0123abcd").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "snapshots" / "0123abcd" / (name or file.name))


@pytest.fixture
def small(monkeypatch) -> open_clip.CLIP:
    """Let open_clip know Small with the tags here, quick and file; return a model of it."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", SMALL)
    tags = {"here": {"hf_hub": f"{REPOSITORY}/", "url": "", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5),
                     "interpolation": "bilinear", "resize_mode": "squash"}}
    tags |= {"quick": tags["here"] | {"quick_gelu": True}, "file": tags["here"] | {"hf_hub": f"{REPOSITORY}/own.bin"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small", tags)
    return open_clip.CLIP(**SMALL)


@pytest.mark.parametrize(("tag", "name"), [("here", "open_clip_model.safetensors"), ("here", "open_clip_pytorch_model.bin"),
                                           ("file", "own.bin"), ("file", "own.safetensors")])
def test_the_weights_of_a_tag_are_taken_from_the_cache(tmp_path, offline, small, tag, name):
    """The network is not used, and the preprocessing is open_clip's for the tag."""
    state = small.state_dict()
    (save_file if name.endswith(".safetensors") else torch.save)(state, tmp_path / name)
    put_into_cache(offline, REPOSITORY, tmp_path / name)
    clip = load_clip("Small", tag)
    assert all(torch.equal(value, state[key]) for key, value in clip.model.state_dict().items())
    assert (clip.preprocessing.resize, clip.preprocessing.interpolation) == ("squash", "bilinear")
    assert clip.preprocessing.mean == (0.1, 0.2, 0.3) and clip.preprocessing.size == (32, 32)


def test_weights_from_the_cache_that_need_another_activation_are_refused(tmp_path, monkeypatch, offline, small):
    """open_clip warns about this only for tags, not for files."""
    save_file(small.state_dict(), tmp_path / "open_clip_model.safetensors")
    put_into_cache(offline, REPOSITORY, tmp_path / "open_clip_model.safetensors")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-quickgelu", SMALL | {"quick_gelu": True})
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Small-quickgelu", open_clip.pretrained._PRETRAINED["Small"])
    with pytest.raises(UserError, match="QuickGELU mismatch: the weights need GELU"):
        load_model("Small-quickgelu", "here")
    with torch.no_grad():
        quick, plain = (load_clip(name, "quick").model for name in ("Small", "Small-quickgelu"))
        assert torch.equal(*(model.encode_image(torch.ones(1, 3, 32, 32)) for model in (quick, plain)))


def test_the_cache_is_that_of_the_environment(tmp_path):
    """A process of its own has HF_HOME. This one has another cache, without the file."""
    put_into_cache(tmp_path / "home" / "hub", REPOSITORY, PROJECT / "requirements.txt")
    code = f"from trainers.clip.sources import cached; print(cached({REPOSITORY!r}, ['no.txt', 'requirements.txt']))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT,
                           env={"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"})
    assert found.stdout.strip().startswith(str(tmp_path / "home")) and cached(REPOSITORY, ["requirements.txt"]) is None


def test_weights_are_where_the_error_says_to_put_them(tmp_path, small):
    """Row 38: following the error works: the file at the address, its config next to it, and the path as the key."""
    with pytest.raises(UserError) as error:
        load_clip("Small", "here")
    weights, config = re.findall(r"https://huggingface.co/\S+?(?=,| )", str(error.value))
    assert (weights, config) == tuple(f"https://huggingface.co/{REPOSITORY}/resolve/main/{name}"
                                      for name in ("open_clip_model.safetensors", "open_clip_config.json"))
    assert str(error.value).endswith("MODEL.BACKBONE.PRETRAINED, with MODEL.BACKBONE.NAME Small")
    folder = tmp_path / "fetched"
    folder.mkdir()
    save_file(small.state_dict(), folder / weights.rpartition("/")[2])
    content = {"model_cfg": SMALL, "preprocess_cfg": {"resize_mode": "squash"}}
    (folder / config.rpartition("/")[2]).write_text(json.dumps(content))
    for path in (folder / "open_clip_model.safetensors", folder):
        assert load_clip("Small", str(path)).preprocessing.resize == "squash"


def word_tokenizer(folder: Path) -> Path:
    """Write the files of a transformers tokenizer of eight words into a folder, and return it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)
    return folder


OTHER = {"embed_dim": 16, "vision_cfg": {}, "text_cfg": {"context_length": 7, "vocab_size": len(WORDS),
                                                       "hf_tokenizer_name": "people/words"}}
A_HERON = [3, 4, 5, 3, 6, 7, 1]  # "a photo of a heron." and the end


@pytest.mark.parametrize("where", ["given", "beside", "cache"])
def test_a_tokenizer_is_found_on_this_disk(tmp_path, offline, where):
    """The folder of the key, that of the weights, and Hugging Face's cache, in this order."""
    folder = word_tokenizer(tmp_path / "words")
    (tmp_path / "beside").mkdir()
    if where == "cache":
        for file in folder.iterdir():
            put_into_cache(offline, "people/words", file)
    given, beside = (str(folder) if where == "given" else ""), (folder if where == "beside" else tmp_path / "beside")
    assert build_tokenizer(OTHER, given, beside, tmp_path)(["a photo of a heron."]).tolist() == [A_HERON]


def test_a_tokenizer_is_where_the_error_says_to_put_it(tmp_path):
    """Row 38: following the error works: the files at the addresses, in the folder of the key or next to the weights."""
    with pytest.raises(UserError, match="people/words") as error:
        build_tokenizer(OTHER, "", None, tmp_path)
    addresses = re.findall(r"https://huggingface.co/people/words/resolve/main/([\w.]+)", str(error.value))
    assert tuple(addresses) == FETCHED and "MODEL.BACKBONE.TOKENIZER" in str(error.value) and "\n" not in str(error.value)
    made, fetched = word_tokenizer(tmp_path / "made"), tmp_path / "fetched"
    fetched.mkdir()
    for name in addresses:
        if (made / name).is_file():
            shutil.copyfile(made / name, fetched / name)
    for given, beside in ((str(fetched), None), ("", fetched)):
        assert build_tokenizer(OTHER, given, beside, tmp_path)(["a photo of a heron."]).tolist() == [A_HERON]


def test_weights_and_tokenizer_of_a_tag_are_asked_for_in_one_line(tmp_path, monkeypatch, small):
    """This is for a text tower with its own tokenizer. Both are read from the single folder that they are put into."""
    config = SMALL | {"text_cfg": SMALL["text_cfg"] | {"hf_tokenizer_name": "people/words"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", config)
    with pytest.raises(UserError) as error:
        load_model("Small", "here")
    words = re.findall(r"https://huggingface.co/people/words/resolve/main/([\w.]+)", str(error.value))
    assert tuple(words) == FETCHED and "\n" not in str(error.value)
    folder = word_tokenizer(tmp_path / "fetched")
    save_file(small.state_dict(), folder / "open_clip_model.safetensors")
    loaded = load_model("Small", str(folder / "open_clip_model.safetensors"))
    found = build_tokenizer(loaded.architecture, "", loaded.beside, tmp_path)(["a photo of a heron."]).tolist()
    assert found == [A_HERON + [2] * (SMALL["text_cfg"]["context_length"] - len(A_HERON))]


def test_a_folder_without_a_tokenizer_is_refused_with_the_config(tmp_path):
    with pytest.raises(ConfigError, match=r"^MODEL.BACKBONE.TOKENIZER: .*is not a folder with one of tokenizer.json"):
        check_backbone("ViT-B/32", "openai", str(tmp_path))


def test_sentencepiece_s_own_file_is_a_tokenizer(tmp_path, offline):
    """As in Google's checkpoints, spiece.model is next to a transformers SigLIP, and the ids are those of transformers."""
    from transformers import AutoTokenizer, SiglipTokenizer

    folder = Path(written(tmp_path / "siglip", siglip_model()))
    text = "\n".join(f"{word} {word}s of a heron on the photo" for word in ("bird", "lake", "tree", "river", "nest") * 9)
    (tmp_path / "corpus.txt").write_text(text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=28, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2)
    SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=16).save_pretrained(folder)
    loaded = load_model(str(folder), "")
    words = build_tokenizer(loaded.architecture, "", loaded.beside, folder)
    assert (folder / "spiece.model").is_file() and words(["heron"]).shape == (1, 16)
    theirs = AutoTokenizer.from_pretrained(folder)(["photo of a heron", "birds"], padding="max_length", max_length=16).input_ids
    assert words(["photo of a heron", "birds"]).tolist() == theirs


@pytest.mark.parametrize("package", ["transformers", "sentencepiece"])
def test_a_tokenizer_whose_package_is_missing_says_what_to_install(tmp_path, offline, monkeypatch, package):
    """It is found on this disk, but the config could not tell that its package is needed."""
    def refuse(*_, **__):
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library but it was not found in your environment.")

    folder = word_tokenizer(tmp_path / "words")
    if package == "transformers":
        monkeypatch.setitem(sys.modules, "transformers", None)
    else:
        monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", refuse)
    with pytest.raises(UserError, match=r"pip install -r requirements-tokenizers\.txt$") as error:
        build_tokenizer(OTHER, str(folder), None, tmp_path)
    assert "\n" not in str(error.value)


def test_clip_s_own_tokenizer_files_stand_for_the_one_that_is_built_in(tmp_path):
    """A transformers checkpoint has these files next to it. Another vocabulary means another tokenizer."""
    folder = Path(written(tmp_path / "clip", clip_model()))
    words = {word: number for word, number in open_clip.SimpleTokenizer().encoder.items() if number < 49406}
    for vocabulary, is_clips in ((words, True), (words | {"!": 1, '"': 0}, False)):
        (folder / "vocab.json").write_text(json.dumps(vocabulary | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        loaded = load_model(str(folder), "")
        found = build_tokenizer(loaded.architecture, "", loaded.beside, folder)
        assert isinstance(found, open_clip.SimpleTokenizer) == is_clips


def test_a_vocabulary_that_is_not_clip_s_asks_for_its_tokenizer(tmp_path):
    """Ids beyond the embedding would crash the run."""
    folder = written(tmp_path / "clip", clip_model({"vocab_size": 300, "eos_token_id": 299}))
    with pytest.raises(UserError, match=r"knows 300 tokens .*has 49408; put its own tokenizer.json .*MODEL.BACKBONE.TOKENIZER"):
        load_clip(folder, "")


@pytest.mark.parametrize("is_there", [True, False], ids=["open_clip's", "made anew"])
def test_clip_s_tokenizer_is_open_clip_s_own_with_the_length_that_a_tower_reads(monkeypatch, is_there):
    """The merges are read once, as open_clip is imported; should it no longer do so, they are read here."""
    made = open_clip.tokenizer._tokenizer
    if not is_there:
        monkeypatch.delattr(open_clip.tokenizer, "_tokenizer")
    texts = ["a photo of a heron.", "Ungewöhnlich: 3 café-tables & a very long text " * 5]
    found = [build_tokenizer({"text_cfg": {"context_length": length}}, "", None, Path()) for length in (9, 77)]
    for tokenizer, length in zip(found, (9, 77), strict=True):
        assert tokenizer(texts).tolist() == open_clip.SimpleTokenizer(context_length=length)(texts).tolist()
        assert (tokenizer.encoder is made.encoder) == is_there
    assert made.context_length == 77
