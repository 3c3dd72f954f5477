"""`Classifier` from Python: paths, Pillow images and tensors, and one error for anything else."""

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data.images import Decoding
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import DataError, TrainingError, UserError
from trainers.core.classifier import Classifier, Reading
from trainers.testing import fitted, learner_by_name, make_inputs, make_trainer, rows_of

NAMES = ("cat", "dog", "forest", "golden retriever")


def classifier_of(name: str = "CoOp", **decoding) -> Classifier:
    """Return the classifier of a learner that is trained on the tiny patterns."""
    trainer = make_trainer(learner_by_name(name), make_inputs())
    seen = trainer.clip.preprocessing
    reading = Reading(Preprocessing(seen.size, seen.mean, seen.std, seen.interpolation, Decoding(**decoding)), 3, 2)
    return Classifier(fitted(trainer, rows_of(trainer, 0, 1, 2)), NAMES, reading)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier_of()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Return seven RGB images of several sizes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30 + 9 * number, 50, 3), dtype=np.uint8)) for number in range(7)]


def direct(model: Classifier, picture: Image.Image) -> np.ndarray:
    """Return the probabilities of an image by the parts of a run: its transform, CLIP, and the model."""
    prompted = model.model
    with torch.no_grad():
        images = model.reading.preprocessing.transform()(picture)[None]
        features = torch.nn.functional.normalize(prompted.clip.encode_image(images), dim=1)
        prompts = prompted.learner()
        return prompted.logits(features, prompted.classifier(prompts)).double().softmax(1).numpy()[0]


def test_paths_images_and_tensors_are_the_same(model, pictures, tmp_path):
    """Each gives what the parts of a run give, in the order of the list, in batches or one by one, also mixed."""
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    view = model.reading.preprocessing.transform()
    pixels = torch.stack([torch.from_numpy(view.pixels(picture).copy()).permute(2, 0, 1) for picture in pictures])
    expected = np.stack([direct(model, picture) for picture in pictures])
    mixed = [str(paths[0]), paths[1], pictures[2], pixels[3], pixels[4].numpy(), pixels[5] / 255, pictures[6]]
    for images in (paths, pictures, pixels, pixels.numpy(), pixels / 255, pixels.double() / 255, mixed, iter(pictures)):
        found = model.probabilities(images)
        assert found.dtype == np.float64 and np.abs(found - expected).max() < 1e-6
        assert np.abs(found.sum(1) - 1).max() < 1e-12
    assert model.predict(mixed) == [NAMES[label] for label in expected.argmax(1)]
    for one in (paths[0], str(paths[0]), pictures[0], pixels[0]):
        assert np.abs(model.probabilities(one) - expected[:1]).max() < 1e-6


def test_nothing_is_none(model):
    assert model.probabilities([]).shape == (0, 4) and model.predict([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pillow_images_of_any_mode(model, pictures, tmp_path, mode):
    """They give the same as a file of such an image."""
    grey = np.asarray(pictures[0].convert("L")).astype(np.uint16)
    picture = Image.fromarray(257 * grey) if mode == "I;16" else pictures[0].convert(mode)
    picture.save(path := tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png"))
    assert np.abs(model.probabilities(picture) - model.probabilities(path)).max() < 1e-6


@pytest.mark.parametrize("rotated", [True, False])
def test_exif_rotation_is_as_the_config_says(pictures, tmp_path, rotated):
    """This holds for files and for images opened from them. An image that the caller has turned is not turned again."""
    model, exif = classifier_of(exif_rotation=rotated), Image.Exif()
    exif[0x0112] = 6
    pictures[6].save(path := tmp_path / "turned.png", exif=exif)
    expected = direct(model, pictures[6].transpose(Image.Transpose.ROTATE_270) if rotated else pictures[6])
    with Image.open(path) as opened:
        for image in (path, opened):
            assert np.abs(model.probabilities(image)[0] - expected).max() < 1e-6


def test_draft_mode_leaves_the_callers_image_as_it_is(pictures, tmp_path):
    model = classifier_of(draft=64)
    Image.new("RGB", (900, 700), (200, 50, 0)).save(path := tmp_path / "large.jpg")
    with Image.open(path) as opened:
        assert np.abs(model.probabilities(opened) - model.probabilities(path)).max() < 1e-3 and opened.size == (900, 700)


def test_all_that_cannot_be_had_is_one_error(model, pictures, tmp_path):
    """It covers missing paths, damaged files, images that cannot be loaded, and tensors of a wrong shape, type or range."""
    pictures[0].save(whole := tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-300])
    opened = Image.open(tmp_path / "cut.jpg")
    wrong = [tmp_path / "gone.png", tmp_path / "cut.jpg", opened, torch.zeros(3, 40, 32), torch.zeros(3, 32, 32) - 1,
             torch.zeros(3, 32, 32, dtype=torch.int64), torch.full((3, 32, 32), torch.nan), tmp_path]
    with pytest.raises(DataError) as caught:
        model.probabilities([pictures[0], *wrong])
    opened.close()
    said = str(caught.value)
    assert said.startswith("8 of 9 images cannot be had:")
    for part in (f"cannot read {tmp_path / 'gone.png'}: No such file", f"cannot decode {tmp_path / 'cut.jpg'}: ", "image 3 ",
                 "image 4 is a tensor of shape (3, 40, 32), but must be (3, 32, 32)", "image 5 is a tensor of torch.float32",
                 "image 6 is a tensor of torch.int64", "image 7 is a tensor", f"cannot read {tmp_path}: Is a directory"):
        assert part in said
    with pytest.raises(DataError, match=r"^cannot read gone\.png: No such file or directory$"):
        model.predict("gone.png")


@pytest.mark.parametrize("images", [3, None, [3], [["a.png"]], b"a.png"])
def test_what_is_no_image_is_said(model, images):
    with pytest.raises(UserError, match="images are paths, Pillow images or tensors, not"):
        model.predict(images)


@pytest.mark.parametrize("name", ["VPT", "ProLIP", "RLA", "TipAdapter"])
def test_learners_of_all_kinds_see_images(name):
    """The same as of the frozen outputs or tokens that a run reads."""
    model, inputs = classifier_of(name), make_inputs()
    reads = model.model.learner.reads
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    read = {"tokens": model.model.clip.embed_image, "pre_projection": model.model.clip.encode_before_projection,
            "features": lambda own: torch.nn.functional.normalize(model.model.clip.encode_image(own), dim=1)}[reads]
    with torch.no_grad():
        expected = np.stack(list(model.of_inputs([read((images - 0.5) / 0.25)])))
    assert np.abs(model.probabilities(images) - expected).max() < 1e-5 and inputs.clip is model.model.clip


def test_nothing_is_left_on_the_tape_and_the_tape_is_left_alone(model, pictures):
    """A caller's own training is not affected, not even between batches."""
    for found in model.stream(pictures):
        assert torch.is_grad_enabled() and isinstance(found[0], np.ndarray)
    for _ in model.of_inputs([torch.rand(3, 16)]):
        assert torch.is_grad_enabled()


def test_logits_that_are_no_numbers_stop(model):
    with pytest.raises(TrainingError, match="1 images hold NaN or Inf"):
        list(model.of_inputs([torch.tensor([[torch.nan] * 16, [0.25] * 16])]))


def test_tensors_that_are_given_stay_as_they_were(model):
    images = torch.rand(2, 3, 32, 32)
    before = images.clone()
    model.probabilities(images)
    assert torch.equal(images, before)
