"""An experiment's file as cells: every combination once, each a plain `train.py` command, and every fault one line."""

import shlex

import pytest
import yaml

from active.analysis.records import keys_of
from dassl.config.setup import as_dict, differences
from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError
from scripts.experiments.cell import configured
from scripts.experiments.experiment import read_experiment
from trainers.core import job

SMALL = {"OUTPUT_DIR": "output/x", "CONFIG_FILES": ["configs/quickstart.yaml"], "DATASETS": ["Digits"], "LEARNERS": ["CoOp"],
         "BACKBONES": ["tiny_clip"], "SAMPLERS": ["random"], "SEEDS": [1]}
EXPERIMENTS = sorted((PROJECT / "configs" / "experiments").glob("*.yaml"))


def cells_of(tmp_path, pairs=(), **changes):
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(SMALL | changes))
    return read_experiment(file, pairs=list(pairs))[1]


def test_every_combination_is_a_cell(tmp_path):
    """Names are folders. Cells with the same weights and images are next to each other, seed after seed."""
    cells = cells_of(tmp_path, DATASETS=["dtd", "eurosat"], LEARNERS=["CoOp", "VPT"], BACKBONES=["vit_b16"],
                     SAMPLERS=["random", "badge"], SEEDS=[1, 2])
    assert len({cell.folder for cell in cells}) == len(cells) == 16
    assert [cell.name for cell in cells[:3]] == ["dtd/CoOp/vit_b16/random/seed1", "dtd/CoOp/vit_b16/badge/seed1",
                                                 "dtd/VPT/vit_b16/random/seed1"]
    assert [cell.name.split("/")[0] for cell in cells] == ["dtd"] * 8 + ["eurosat"] * 8


def test_a_cell_is_a_command_of_train(tmp_path):
    """Its command line merges to the intended config: files, overrides, labels and seed."""
    cell, = cells_of(tmp_path, SAMPLERS=["entropy"], OVERRIDES={"OPTIM": {"LR": 0.5}, "INPUT": {"RRCROP_SCALE": [0.5, 1.0]}})
    assert shlex.split(cell.command)[:2] == ["python", "train.py"]
    cfg = configured(cell.words)
    assert (cfg.ACTIVE.SAMPLER, cfg.OPTIM.LR, cfg.INPUT.RRCROP_SCALE, cfg.SEED) == ("entropy", 0.5, (0.5, 1.0), 1)
    assert cfg.OUTPUT_DIR == str(cell.folder) == "output/x/Digits/CoOp/tiny_clip/entropy/seed1"
    assert (cfg.LABEL.METHOD, cfg.LABEL.LEARNER) == ("entropy", "CoOp")


def test_an_entry_s_own_keys_win_over_the_overrides_and_the_command_line_over_both(tmp_path):
    own = {"pcb_entropy": {"ACTIVE": {"SAMPLER": "pcb", "PCB": {"BASE": "entropy"}}, "OPTIM": {"LR": 0.2}}}
    changes = {"SAMPLERS": [own], "OVERRIDES": {"OPTIM": {"LR": 0.5}, "ACTIVE": {"ROUNDS": 3}}}
    cfg = configured(cells_of(tmp_path, **changes)[0].words)
    assert (cfg.ACTIVE.SAMPLER, cfg.ACTIVE.PCB.BASE, cfg.OPTIM.LR, cfg.ACTIVE.ROUNDS) == ("pcb", "entropy", 0.2, 3)
    assert cfg.LABEL.METHOD == "pcb_entropy"
    assert configured(cells_of(tmp_path, [("OPTIM.LR", "0.7")], **changes)[0].words).OPTIM.LR == 0.7


def test_two_folders_of_images_stand_in_one_experiment(tmp_path):
    """Each with its own name in tables, which is not part of what a run computes."""
    folders = [{name: {"DATASET": {"NAME": "ImageFolder", "ROOT": name}, "LABEL": {"DATASET": name}}}
               for name in ("birds", "cars")]
    configs = [as_dict(configured(cell.words)) for cell in cells_of(tmp_path, DATASETS=folders)]
    assert [keys_of(config)["dataset"] for config in configs] == ["birds", "cars"] and differences(*configs) == []


def test_query_sizes_are_an_axis_and_full_labels_one_more_method(tmp_path):
    """The reference on all labels has one round and no query size of its own."""
    cells = cells_of(tmp_path, QUERY_SIZES=["1%", "per_class"], FULL_LABELS=True)
    assert [cell.name.split("/")[3:-1] for cell in cells] == [["1%", "random"], ["per_class", "random"], ["full"]]
    assert [configured(cell.words).ACTIVE.QUERY_SIZE for cell in cells] == ["1%", "per_class", "100%"]
    assert configured(cells[-1].words).ACTIVE.ROUNDS == 1
    pairs = [("ACTIVE.QUERY_SIZE", "2%"), ("ACTIVE.SAMPLER", "entropy")]
    full = configured(cells_of(tmp_path, pairs, FULL_LABELS=True)[-1].words)
    assert (full.ACTIVE.QUERY_SIZE, full.ACTIVE.SAMPLER) == ("100%", "random"), "no pair makes it anything else"


@pytest.mark.parametrize(("changes", "message"), [
    ({"SAMPLER": ["random"]}, "unknown key SAMPLER; did you mean 'SAMPLERS'"),
    ({"SEEDS": []}, "SEEDS is missing or empty"),
    ({"SEEDS": 1}, "SEEDS must be a list, not int 1"),
    ({"SEEDS": [1, "a"]}, "SEEDS holds 'a'"),
    ({"SEEDS": [1, 1]}, "SEEDS names 1 twice"),
    ({"LEARNERS": ["CoOpp"]}, "there is no configs/trainers/CoOpp/tiny_clip.yaml; did you mean 'CoOp/tiny_clip'"),
    ({"SAMPLERS": [{"a": 1}]}, "an entry is a name or NAME"),
    ({"SAMPLERS": [{"a/b": {"ACTIVE": {"SAMPLER": "random"}}}]}, "cannot be the name of a folder"),
    ({"SAMPLERS": [{"full": {"ACTIVE": {"SAMPLER": "random"}}}]}, "SAMPLERS holds 'full', which is the name of a line"),
    ({"CONFIG_FILES": ["configs/absent.yaml"]}, "CONFIG_FILES holds configs/absent.yaml, which is not a file"),
    ({"OUTPUT_DIR": ""}, "OUTPUT_DIR is missing or empty"),
])
def test_a_wrong_experiment_is_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError) as caught:
        cells_of(tmp_path, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "experiment.yaml" in str(caught.value)


def test_a_sampler_without_a_page_goes_by_its_name(tmp_path):
    """A plug-in needs its file and one line in the experiment. An unregistered name is found when the config is merged."""
    cell, = cells_of(tmp_path, SAMPLERS=["entropi"])
    with pytest.raises(ConfigError, match="did you mean 'entropy'"):
        configured(cell.words)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_of_the_project_merges(path):
    """The cells of every protocol are configs that pass every check, and each has a folder of its own."""
    _, cells = read_experiment(path)
    first = {(*cell.name.split("/")[1:-1],): cell for cell in cells if "seed1" in cell.name}  # seeds and data sets merge alike
    for cell in [*first.values(), *{cell.name.split("/")[0]: cell for cell in cells}.values()]:
        job.check(job.build_config(*job.parser().parse(cell.words)))
    assert len({cell.folder for cell in cells}) == len(cells)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_head_of_every_experiment_names_its_command(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"scripts/sweep.py --config-file configs/experiments/{path.name}" in line for line in head)


@pytest.mark.parametrize(("changes", "pairs", "said"), [
    ({}, [("OUTPUT_DIR", "elsewhere")], "the command line sets OUTPUT_DIR.*--output-dir"),
    ({}, [("SEED", "5")], "the command line sets SEED.*SEEDS"),
    ({"QUERY_SIZES": ["1%"]}, [("ACTIVE.QUERY_SIZE", "5")], "the command line sets ACTIVE.QUERY_SIZE.*QUERY_SIZES"),
    ({"OVERRIDES": {"OUTPUT_DIR": "elsewhere"}}, [], "OVERRIDES sets OUTPUT_DIR"),
    ({"OVERRIDES": {"LABEL": {"METHOD": "x"}}}, [], "OVERRIDES sets LABEL.METHOD.*SAMPLERS"),
    ({"SAMPLERS": [{"random": {"SEED": 3}}]}, [], "SAMPLERS sets SEED"),
    ({"LEARNERS": [{"CoOp": {"LABEL": {"LEARNER": "x"}}}]}, [], "LEARNERS sets LABEL.LEARNER"),
    ({"CONFIG_FILES": [1]}, [], "CONFIG_FILES holds 1, which is not a file"),
    ({"CONFIG_FILES": [["a"]]}, [], "CONFIG_FILES holds")])
def test_what_each_cell_has_of_its_own_is_no_key_for_all(tmp_path, changes, pairs, said):
    """One folder, seed or name for all cells would fail 95 of 96 of them, or be ignored."""
    with pytest.raises(ConfigError, match=said):
        cells_of(tmp_path, pairs, **changes)


def test_the_query_size_of_all_cells_may_be_set_where_the_file_lists_none(tmp_path):
    assert configured(cells_of(tmp_path, [("ACTIVE.QUERY_SIZE", "5")])[0].words).ACTIVE.QUERY_SIZE == 5
