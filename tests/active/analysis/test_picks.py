"""What samplers picked: the right images under the right names, and one line where images or features are missing."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from active.analysis.picks import (
    N_POOL,
    draw_projection,
    draw_sheet,
    picked_rows,
    pool_features,
    projection,
    recorded_dataset,
    shown_runs,
)
from active.analysis.records import load_records
from active.record.results import RunResult, query_hash
from dassl.config.setup import as_dict, setup_config
from dassl.data.dataset import DATASETS
from dassl.data.digests import ImageFiles
from dassl.data.feature_bank import bank_key, bank_path, load_bank
from dassl.data.transforms import Decoding, Preprocessing
from dassl.utils.errors import DataError
from dassl.utils.tensors import key_of, save_tensors
from tests.active.analysis.made import write_run

COLORS = {"blue sky": (0, 0, 255), "red $x": (255, 0, 0)}
NATIVE = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def photos(tmp_path):
    """A folder of images in the colors of their classes, four of each to train on."""
    for name, color in COLORS.items():
        for split, n_images in (("train", 4), ("test", 1)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(n_images):
                Image.new("RGB", (40, 20), color).save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def record(photos, tmp_path):
    """A function that writes the record of a run with two rounds of two images each, and returns its file."""
    tree = as_dict(setup_config([], [("DATASET.NAME", "ImageFolder"), ("DATASET.ROOT", str(photos))], (DATASETS,)))

    def write(method="random", seed=1, **dataset):
        file = write_run(tmp_path / "runs" / f"{method}{seed}", [0.4, 0.5], dataset="ImageFolder", method=method, seed=seed,
                         DATASET=tree["DATASET"] | dataset, INPUT=tree["INPUT"], CACHE_DIR="", USE_CUDA=True)
        result = RunResult.read(file)
        picks = [["train/red $x/3.png", "train/blue sky/0.png"], ["train/blue sky/2.png", "train/red $x/0.png"]]
        result.rounds = [dataclasses.replace(round, queried=paths, query_hash=query_hash(paths))
                         for round, paths in zip(result.rounds, picks, strict=True)]
        result.write(file)
        return file

    return write


@pytest.fixture
def run(record):
    result = RunResult.read(record())
    return SimpleNamespace(result=result, dataset=recorded_dataset(result.config))


def store(run, *, weights="w", precision="fp32", preprocessing=NATIVE, device="cpu", **more):
    """Put features into the cache as a run does, unlike those of any other file there, and return them."""
    folder = run.dataset.root / ".cache"
    contents = ImageFiles(run.dataset, folder).contents("train")
    key = bank_key(weights, preprocessing, contents, precision, device) | more
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(len(list(folder.glob("*.safetensors")))))
    return load_bank(folder, key, contents, lambda rows: [features[rows]]).features.numpy()


def test_picks_become_rows_in_their_order(run):
    """Rows of the train split, which lists blue sky 0 to 3, then red 0 to 3."""
    assert picked_rows(run.result, run.dataset) == [[7, 0], [2, 4]]


def test_images_of_another_folder_are_refused(run, photos):
    """Picks that do not exist in the folder are counted, and the first one is named."""
    (photos / "train" / "red $x" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 picks are not among the images .* first 'train/red"):
        picked_rows(run.result, recorded_dataset(run.result.config))


def test_the_sheet_shows_each_image_over_its_class(run):
    """Two rounds of two images: red below red, blue below blue, in the order of the picks."""
    axes = draw_sheet(run.result, run.dataset).axes[0]
    shown = [(int(image.get_extent()[0]), int(image.get_extent()[3]), tuple(image.get_array()[5, 5])) for image in axes.images]
    red, blue = COLORS["red $x"], COLORS["blue sky"]
    assert shown == [(0, 0, red), (1, 0, blue), (0, 1, blue), (1, 1, red)]
    names = [text.get_text() for text in axes.texts]
    assert names == ["round 0\n2 images", r"red \$x", "blue sky", "round 1\n2 images", "blue sky", r"red \$x"]


def test_images_keep_their_shape_on_the_sheet(run):
    """40 x 20 pixels are twice as wide as high on paper."""
    figure = draw_sheet(run.result, run.dataset)
    figure.draw_without_rendering()
    box = figure.axes[0].images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=1e-6)


def test_a_long_round_shows_its_first_images(run, monkeypatch):
    monkeypatch.setattr("active.analysis.picks.N_COLUMNS", 1)
    axes = draw_sheet(run.result, run.dataset).axes[0]
    assert len(axes.images) == 2 and axes.texts[0].get_text() == "round 0\nfirst 1 of 2"


def test_labels_that_people_gave_stand_below_their_images(run):
    """The labels that people gave are shown, not those of the folder."""
    answered = dataclasses.replace(run.result.rounds[0], answers={"train/red $x/3.png": 0})
    run.result.rounds[0] = answered
    assert draw_sheet(run.result, run.dataset).axes[0].texts[1].get_text() == "blue sky"


def test_features_are_those_of_the_record_s_backbone(run):
    """Of several files in the cache, the right one has the same weights, precision, preprocessing, device and tower output."""
    features = store(run)
    store(run, reads="pre_projection")
    store(run, weights="other")
    store(run, precision="fp16")
    store(run, preprocessing=dataclasses.replace(NATIVE, decoding=Decoding(exif_rotation=False)))
    on_a_gpu = store(run, device="cuda")
    assert np.array_equal(pool_features(run.result, run.dataset), features)
    run.result.environment["gpu"] = "A"
    assert np.array_equal(pool_features(run.result, run.dataset), on_a_gpu)


def test_features_of_squashed_images_are_those_of_a_run_that_squashed_them(run):
    """In a record from before the key existed, images were cropped."""
    cropped, squashed = store(run), store(run, preprocessing=dataclasses.replace(NATIVE, resize="squash"))
    for resize, features in (("squash", squashed), ("shortest", cropped)):
        run.result.config["INPUT"]["RESIZE"] = resize
        assert np.array_equal(pool_features(run.result, run.dataset), features)


@pytest.mark.parametrize("what", ["none", "weights", "changed image", "renamed"])
def test_features_of_something_else_are_none(run, photos, what):
    """There are none for another backbone, for an image replaced since, or for a file that is not what its name says."""
    if what != "none":
        store(run, weights="other" if what == "weights" else "w")
    if what == "changed image":
        Image.new("RGB", (41, 20)).save(photos / "train" / "blue sky" / "0.png")
    if what == "renamed":
        file = next((photos / ".cache").glob("*.safetensors"))
        file.rename(file.with_name("ImageFolder_train_0.safetensors"))
    with pytest.raises(DataError, match="holds no features"):
        pool_features(run.result, run.dataset)


def test_features_of_a_cache_of_the_former_version_are_found(run):
    """That version used sizes and times. A cache that a run has converted since gives the same features."""
    features = store(run)
    folder = run.dataset.root / ".cache"
    file, contents = next(folder.glob("*.safetensors")), ImageFiles(run.dataset, folder).contents("train")
    key = key_of(file)
    former = {name: value for name, value in key.items() if name != "files_by"} | {"files": contents.former_digest()}
    save_tensors(bank_path(folder, former), former, {"features": torch.from_numpy(features)})
    assert np.array_equal(pool_features(run.result, run.dataset), features)
    file.unlink()
    assert np.array_equal(pool_features(run.result, run.dataset), features)


def test_a_damaged_cache_is_one_line(run, photos):
    store(run)
    next((photos / ".cache").glob("*.safetensors")).write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        pool_features(run.result, run.dataset)


def test_a_folder_that_is_not_here_is_not_made(record, tmp_path):
    """This also holds for the data set that comes with the project, which is otherwise written on demand."""
    result = RunResult.read(record(NAME="Digits", ROOT=str(tmp_path / "absent")))
    with pytest.raises(DataError, match="is not a folder; --root"):
        recorded_dataset(result.config)
    assert not (tmp_path / "absent").exists()


def test_a_moved_folder_is_named_by_root(record, photos, tmp_path):
    result = RunResult.read(record())
    shutil.move(photos, tmp_path / "moved")
    assert recorded_dataset(result.config, str(tmp_path / "moved")).root == tmp_path / "moved"


def test_the_projection_keeps_all_picks_and_the_largest_variance():
    """Of a pool above the limit a fixed sample is shown. The plane is spanned by the two axes of largest variance."""
    features = np.random.default_rng(0).normal(size=(N_POOL + 50, 3)) * (1, 5, 10)
    picked = [0, N_POOL + 49]
    rows, places = projection(features, picked)
    assert N_POOL <= len(rows) <= N_POOL + 2 and set(picked) <= set(rows) and (np.diff(rows) > 0).all()
    assert np.abs(np.corrcoef(places[:, 0], features[rows, 2])[0, 1]) > 0.999
    assert np.abs(np.corrcoef(places[:, 1], features[rows, 1])[0, 1]) > 0.999
    assert np.array_equal(projection(features, picked)[1], places)


def test_neighbours_stay_neighbours_in_tsne():
    """Two clouds far apart are apart in the plane."""
    features = np.repeat([[0.0, 0, 0], [9, 9, 9]], 15, axis=0) + np.random.default_rng(0).normal(size=(30, 3))
    places = projection(features, [], "tsne")[1]
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance[:15].argmin(1) < 15).all() and (distance[15:].argmin(1) >= 15).all()


def test_a_projection_of_two_images_is_refused():
    with pytest.raises(DataError, match="three images"):
        projection(np.eye(2), [0])


def test_the_projection_shows_the_picks_of_each_round_where_they_are(run, monkeypatch):
    """One panel a method, the points of round 1 at the places of rows 2 and 4, of a pool that is shown in part."""
    monkeypatch.setattr("active.analysis.picks.N_POOL", 3)
    features = store(run)
    panel = draw_projection({"random": run.result}, run.dataset, features).axes[0]
    rows, places = projection(features, [0, 2, 4, 7])
    place_of = dict(zip(rows.tolist(), places.tolist(), strict=True))
    assert len(rows) < 8 and panel.get_title() == "random"
    assert [line.get_xydata().tolist() for line in panel.lines] == [[place_of[7], place_of[0]], [place_of[2], place_of[4]]]
    assert {text.get_text() for text in panel.texts} == {"blue sky", r"red \$x"}


def test_the_shown_seed_is_the_one_that_most_methods_have_finished(record, tmp_path):
    """Here that is seed 2. Runs with all labels do not count, as they picked nothing."""
    for method, seed in (("random", 1), ("random", 2), ("badge", 2), ("full", 1), ("full", 2)):
        record(method, seed)
    results = shown_runs(load_records([tmp_path / "runs"]), "ImageFolder")
    assert [(method, result.config["SEED"]) for method, result in results.items()] == [("random", 2), ("badge", 2)]
