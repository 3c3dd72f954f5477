"""This project's folder `datasets` and Hugging Face's package of that name, in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.utils.environment import PROJECT
from dassl.utils.imports import hidden, own_name
from tests.trainers.clip.checkpoints import clip_model, written
from tests.trainers.clip.test_sources import A_HERON, word_tokenizer

USES = """
import json, sys
{first}
from transformers import AutoModel, AutoTokenizer
ids = AutoTokenizer.from_pretrained(sys.argv[1])(["a photo of a heron."]).input_ids
model = AutoModel.from_pretrained(sys.argv[2])
from dassl.data.dataset import DATASETS
from trainers.clip.backbones import load_clip
clip = load_clip(sys.argv[2], "")
names = [component.name for component in DATASETS]
build = DATASETS["Digits"].build
labels = getattr(build, "module", build.__module__)  # of one that is remembered, or of the function itself
import datasets
print(json.dumps([ids, type(model).__name__, clip.text_depth, names, labels, getattr(datasets, "IS_HUGGING_FACE_S", False)]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder of packages, one of them named datasets, as pip installs it."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "__init__.py").write_text("IS_HUGGING_FACE_S, __version__ = True, '5.2.0'\nclass Dataset: pass\n")
    (folder / "datasets" / "digits.py").write_text("raise RuntimeError('a module of theirs was imported')\n")
    (folder / "datasets-5.2.0.dist-info").mkdir()
    (folder / "datasets-5.2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: datasets\nVersion: 5.2.0\n")
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return [str(word_tokenizer(folder / "words")), written(folder / "clip", clip_model())]


@pytest.mark.starts
@pytest.mark.parametrize(("where", "first"), [
    ("before", ""), ("before", "import datasets"), ("behind", "import datasets.digits")])
def test_both_packages_live_together(installed, checkpoints, where, first):
    """Row 39: tokenizers and models of transformers, and this project's data sets, whichever package comes first."""
    folders = [PROJECT, installed] if where == "behind" else [installed, PROJECT]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", USES.format(first=first), *checkpoints], capture_output=True, text=True,
                          cwd=installed.parent, env=environment)
    assert done.returncode == 0, done.stderr
    ids, model, depth, names, labels, is_theirs = json.loads(done.stdout.splitlines()[-1])
    assert (ids, model, depth) == ([A_HERON], "CLIPModel", 2)
    assert "Digits" in names and "ImageFolder" in names and is_theirs == (where == "before")
    assert labels == ("of_this_project_datasets.digits" if where == "before" else "datasets.digits")


def test_a_package_of_this_project_keeps_its_name_where_nothing_else_has_it():
    """Names that are not part of it are not searched for."""
    assert [own_name(name) for name in ("datasets", "active.samplers", "elsewhere.own")] == [
        "datasets", "active.samplers", "elsewhere.own"]


def test_what_is_hidden_cannot_be_imported_and_is_there_again_afterwards(monkeypatch):
    """A module that is already imported is not hidden."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with hidden("colorsys"), hidden("json"), pytest.raises(ImportError):
        import json  # noqa: F401, I001
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(1, 1, 1) == (0, 0, 1)
