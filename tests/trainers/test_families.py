"""Every learner on backbones of other families, trained as a run does."""

import functools

import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.clip.families import image_clip
from trainers.core.patterns import TinyInputs, make_inputs
from trainers.learner import LEARNERS
from trainers.testing import all_rows, fitted, learner_by_name, logits_of, make_trainer

BACKBONES = {  # towers of text and image
    "SigLIP 2": ("SigLIP 2", "SigLIP"), "DFN": ("CLIP", "DFN"), "Perception Encoder": ("CLIP", "Perception Encoder"),
    "EVA02": ("CLIP", "EVA02"), "MobileCLIP 2": ("MobileCLIP", "DFN with registers"), "ViTamin": ("CLIP", "ViTamin"),
    "MetaCLIP 2": ("MetaCLIP 2 of mT5's tokens", "mean"), "CoCa": ("CoCa", "DFN")}
LEARNED = sorted({component.name for component in LEARNERS} - {"ZeroShot", "ProLIP"})  # ProLIP needs a projection of its own


@functools.cache
def inputs_of(backbone: str) -> TinyInputs:
    text, image = BACKBONES[backbone]
    clip = image_clip(image, torch.float32, text=text)
    clip.logit_scale = 20.0
    return make_inputs(clip=clip)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_learner_trains_on_every_family(name, backbone):
    """Training changes the model, and its logits and losses are finite. The towers' own tests check exactness."""
    trainer = make_trainer(learner_by_name(name), inputs_of(backbone), n_epochs=3)
    before = logits_of(trainer, trainer.zero_shot())
    model = fitted(trainer, all_rows(trainer))
    assert not torch.equal(logits_of(trainer, model), before)
    assert torch.tensor(model.losses).isfinite().all()


def test_prolip_is_refused_where_there_is_no_projection():
    """timm's towers have no such projection. The error is one line."""
    trainer = make_trainer(learner_by_name("ProLIP"), inputs_of("DFN"))
    with pytest.raises(UserError, match="no linear projection"):
        fitted(trainer, all_rows(trainer))
