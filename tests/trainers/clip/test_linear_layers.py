"""Towers with oneDNN's linear layers: they compute the same function, and runs record, continue and repeat with them."""

import json

import pytest
import torch

import active.build
import active.verify
import train
from active.record.results import RunResult
from active.verify import main
from dassl.utils.linear import is_exact, product_of_pairs
from tests import commands
from trainers.clip.frozen_clip import normalized
from trainers.clip.linear_layers import OneDNNAttention, OneDNNLinear
from trainers.core.patterns import random_clip
from trainers.core.prompts import Prompts
from trainers.core.token_rows import template_rows, token_rows

pytestmark = pytest.mark.skipif(not is_exact(), reason="torch without oneDNN")
NAMES = ["cat", "golden retriever"]


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_features_and_gradients_are_those_of_the_plain_towers(quick_gelu):
    """This covers images, texts, and prompts in both towers, on every path."""
    results, generator = [], torch.Generator().manual_seed(0)
    images, context, prompt = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 32, 32), (3, 24), (2, 32)))
    for is_onednn in (False, True):
        clip = random_clip(quick_gelu=quick_gelu)
        if is_onednn:
            clip.use_onednn()
        kinds = [type(layer) for layer in clip.model.modules()]
        assert kinds.count(OneDNNLinear) == 12 * is_onednn and kinds.count(OneDNNAttention) == 6 * is_onednn
        own, tokens = context.clone().requires_grad_(), prompt.clone().requires_grad_()
        text = normalized(clip.encode_text(token_rows(clip.tokenizer, NAMES, 3), Prompts(text=(own,))))
        image = normalized(clip.encode_image_tokens(clip.embed_image(images), Prompts(image=(tokens, tokens))))
        plain = normalized(clip.encode_text(template_rows(clip.tokenizer, NAMES, "a {}.")))
        gradients = torch.autograd.grad((image @ text.T)[0, 0], (own, tokens))
        results.append((text, image, plain, normalized(clip.encode_image(images)), *gradients))
    for plain, found in zip(*results, strict=True):
        assert (found - plain).abs().max() < 2e-5 * plain.abs().max()


def test_a_run_names_the_product_goes_on_with_it_and_repeats_by_it(root, tmp_path, capsys, monkeypatch):
    """Its feature cache is separate, and pairs are by it too. Another product is another environment; the record names both."""
    monkeypatch.setattr(active.verify.subprocess, "run", commands.run)
    of_pairs, run = [], active.build.run
    monkeypatch.setattr(active.build, "run", lambda *given: of_pairs.append(product_of_pairs()) or run(*given))
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(root), "--output-dir", str(tmp_path / "run"),
             "CACHE_DIR", str(tmp_path / "cache"), "OPTIM.MAX_EPOCH", "1", "VERBOSE", "false"]
    record = tmp_path / "run" / "results.json"
    assert train.main([*words, "ACTIVE.ROUNDS", "1", "MODEL.LINEAR", "onednn"]) == 0
    assert train.main([*words, "ACTIVE.ROUNDS", "2"]) == 0  # auto: as it was begun
    result = RunResult.read(record)
    assert result.environment["linear"] == result.certificate["linear"] == "onednn"
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2  # train and test
    assert main([str(record)]) == 0 and "equal: 2 rounds" in capsys.readouterr().out
    assert train.main([*words, "ACTIVE.ROUNDS", "3", "MODEL.LINEAR", "torch"]) == 0
    content = json.loads(record.read_text())
    assert content["environment"]["linear"] == "onednn and torch" and content["certificate"]["linear"] == "onednn+torch"
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 4
    assert of_pairs == ["onednn", "onednn", "torch"] and product_of_pairs() == "torch"
