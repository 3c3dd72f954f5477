"""`train.py` as people call it: runs, errors, and what is left behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import dassl.data.build
import train
from active.record.results import RunResult
from dassl.engine import fit
from dassl.evaluation.metrics import METRICS
from dassl.utils.held import Held
from tests import commands
from tests.active.toy import cut_back, edit
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core import build, job

PROJECT = Path(__file__).parents[1]
QUICK = ["--config-file", "configs/quickstart.yaml", "ACTIVE.ROUNDS", "3", "OPTIM.MAX_EPOCH", "4"]
TIMES = {"seconds", "peak_memory_mb"}


def call(capsys, *words) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of one call."""
    code = train.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run(capsys, root, output, *words) -> dict:
    code, _, errors = call(capsys, *QUICK, "--root", root, "--output-dir", output, *words)
    assert code == 0, errors
    return json.loads((output / "results.json").read_text())


def without_times(result: dict) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in result["rounds"]]


def test_a_run_leaves_a_record_of_the_stated_schema(capsys, root, tmp_path):
    """`results.json` has exactly the keys of the architecture, fractions in [0, 1], and only relative ids."""
    result = run(capsys, root, tmp_path / "run")
    assert list(result)[:2] == ["schema", "status"] and result["schema"] == 2 and result["status"] == "finished"
    assert {"config", "environment", "dataset", "zero_shot", "rounds"} <= set(result)
    assert {"commit", "torch", "open_clip"} <= set(result["environment"])
    assert result["dataset"] == {"name": "Digits", "n_train": 1197, "n_test": 450, "n_classes": 10,
                                 "classnames": result["dataset"]["classnames"]}
    assert [record["n_labeled"] for record in result["rounds"]] == [12, 24, 36]
    for record in result["rounds"]:
        assert {"round", "sampler", "queried", "n_labeled", "n_paid", "n_pseudo", "metrics",
                "class_counts", "query_hash", "seconds", "peak_memory_mb"} <= set(record)
        assert all(0 <= record["metrics"][key] <= 1 for key in ("accuracy", "macro_f1", "ece"))
        assert sum(record["class_counts"]) == record["n_labeled"] == record["n_paid"]
        assert all(path.startswith("digits/images/") for path in record["queried"])
        assert {"select", "fit", "evaluate"} <= set(record["seconds"])


def test_what_computes_nothing_imports_nothing_that_computes(capsys, root, tmp_path):
    """A finished run, the lists and a wrong key are answered at once; torch alone takes seconds to import."""
    run(capsys, root, tmp_path / "run")
    finished = [*QUICK, "--root", str(root), "--output-dir", str(tmp_path / "run")]
    for words, expected in ((finished, 0), (["--list"], 0), (["--print-config"], 0), (["ACTIVE.ROUND", "1"], 2)):
        code = ("import sys, train; found = train.main(sys.argv[1:]); "
                "print(found, {'torch', 'torchvision', 'open_clip', 'sklearn', 'scipy', 'pandas'} & sys.modules.keys())")
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == f"{expected} set()", done.stderr


def test_no_image_is_asked_twice(capsys, root, tmp_path):
    """The picks of all rounds are distinct images of the train split."""
    asked = [path for record in run(capsys, root, tmp_path / "run")["rounds"] for path in record["queried"]]
    split = json.loads((root / "digits" / "split_digits.json").read_text())
    assert len(set(asked)) == len(asked) == 36
    assert set(asked) <= {f"digits/images/{path}" for path, _, _ in split["train"]}


@pytest.mark.parametrize("sampler", ["random", "entropy", "coreset"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(capsys, root, tmp_path, sampler):
    """Two runs in two folders agree in every pick and every metric, and differ from another seed's."""
    words = ("ACTIVE.SAMPLER", sampler)
    first, again, other = (run(capsys, root, tmp_path / name, *words, "--seed", seed)
                           for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert without_times(first) == without_times(again)
    assert [record["query_hash"] for record in first["rounds"]] != [record["query_hash"] for record in other["rounds"]]


def test_the_first_random_round_does_not_depend_on_the_sampler(capsys, root, tmp_path):
    """Streams are separate: with a random first round, every sampler buys the same labels and reaches the same accuracy."""
    firsts = [without_times(run(capsys, root, tmp_path / sampler, "ACTIVE.SAMPLER", sampler, "ACTIVE.INITIAL_SAMPLER", "random",
                                "ACTIVE.ROUNDS", "1"))[0] for sampler in ("random", "entropy", "coreset")]
    assert firsts[0] == firsts[1] == firsts[2]


def test_a_finished_run_is_said_to_be_finished_and_left_alone(capsys, root, tmp_path, monkeypatch):
    """A second call prints the table again, loads and trains nothing and changes no byte of the record."""
    run(capsys, root, tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    monkeypatch.setattr(job, "prepared", lambda *_: pytest.fail("something was loaded"))
    code, out, _ = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run")
    assert code == 0 and "finished" in out and "zero-shot" in out
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_a_finished_run_of_other_code_says_so(capsys, root, tmp_path):
    """Row 32: who has changed a plug-in and gives the same command again must not take the old numbers for new ones."""
    plugin = tmp_path / "far.py"
    plugin.write_text(PLUGIN.replace("far_from_text", "changed_later"))
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.PLUGINS", f"['{plugin}']",
             "ACTIVE.SAMPLER", "changed_later"]
    assert call(capsys, *words)[0] == 0
    plugin.write_text(plugin.read_text() + "# another version\n")
    assert "this run is finished; choose more ACTIVE.ROUNDS" in call(capsys, *words)[1]  # this process has the version of it
    again = commands.run([sys.executable, "train.py", *map(str, words)], capture_output=True, text=True)
    assert "this run is finished by other code than this; choose" in again.stdout


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_an_unfinished_run_goes_on_to_the_same_end(capsys, root, tmp_path, n_done):
    """Row 13: cut back to its first rounds, a run continues to the picks and metrics of the uninterrupted one."""
    whole = run(capsys, root, tmp_path / "run")
    cut_back(tmp_path / "run" / "results.json", n_done)
    assert without_times(run(capsys, root, tmp_path / "run")) == without_times(whole)


def test_a_run_of_another_config_is_refused_with_the_difference(capsys, root, tmp_path):
    """Row 13: the folder of another run is not touched; the differing key is named; --overwrite moves it aside."""
    run(capsys, root, tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "OPTIM.LR", "0.5"]
    code, _, err = call(capsys, *words)
    assert code == 1 and "OPTIM.LR: 0.01 -> 0.5" in err
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert call(capsys, *words, "--overwrite")[0] == 0
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("run.")]
    assert [(path / "results.json").read_bytes() for path in aside] == [before]


def test_runs_of_one_process_share_clip_and_features(capsys, root, tmp_path, monkeypatch):
    """CLIP, data set and inputs are made only once for several samplers and seeds. The runs are the same."""
    made = {"load_clip": 0, "build_dataset": 0, "build_inputs": 0}
    homes = {"load_clip": build, "build_dataset": dassl.data.build, "build_inputs": build}

    def counted(name):
        make = getattr(homes[name], name)

        def counting(*arguments, **named):
            made[name] += 1
            return make(*arguments, **named)

        return counting

    for name in made:
        monkeypatch.setattr(homes[name], name, counted(name))
    held = Held()
    for name, words in (("a", ("--seed", "2")), ("b", ("--seed", "3", "ACTIVE.SAMPLER", "entropy"))):
        words = [*QUICK, "--root", root, "--output-dir", tmp_path / name, *words]
        cfg = job.build_config(*job.parser().parse([str(word) for word in words]))
        job.settle(cfg)
        job.train(cfg, held)
    assert made == {"load_clip": 1, "build_dataset": 1, "build_inputs": 1}
    alone = run(capsys, root, tmp_path / "alone", "--seed", "3", "ACTIVE.SAMPLER", "entropy")
    assert without_times(alone) == without_times(json.loads((tmp_path / "b" / "results.json").read_text()))


@pytest.mark.parametrize("words", [
    ("DATASET.NUM_SHOTS", "6", "ACTIVE.QUERY_SIZE", "10"), ("INPUT.TRANSFORMS", "['random_resized_crop', 'normalize']")])
def test_runs_of_one_process_have_the_shots_and_views_of_their_own_seeds(capsys, root, tmp_path, words):
    """What the process holds of seed 2 is of no use for seed 3 where the seed draws the few shots, or augmented views."""
    words, held = (*words, "ACTIVE.ROUNDS", "1"), Held()
    for seed in ("2", "3"):
        line = [*QUICK, "--root", root, "--output-dir", tmp_path / seed, *words, "--seed", seed]
        cfg = job.build_config(*job.parser().parse([str(word) for word in line]))
        job.settle(cfg)
        job.train(cfg, held)
    alone = run(capsys, root, tmp_path / "alone", *words, "--seed", "3")
    assert without_times(alone) == without_times(json.loads((tmp_path / "3" / "results.json").read_text()))
    assert alone["rounds"][0]["files"] != json.loads((tmp_path / "2" / "results.json").read_text())["rounds"][0]["files"]


@pytest.mark.parametrize(("words", "taken"), [
    (("--trainer", "VPT"), {"VPT": {"PROMPT_DEPTH": 4}}),
    (("--trainer", "MaPLe"), {"MAPLE": {"PROMPT_DEPTH": 2}}),
    (("--trainer", "IVLP"), {"IVLP": {"PROMPT_DEPTH_TEXT": 2, "PROMPT_DEPTH_VISION": 4}}),
    (("--trainer", "IVLP", "TRAINER.IVLP.N_CTX_VISION", "0"), {"IVLP": {"PROMPT_DEPTH_TEXT": 2}}),
    (("--trainer", "PromptSRC"), {"PROMPTSRC": {"PROMPT_DEPTH_TEXT": 2, "PROMPT_DEPTH_VISION": 4}}),
    (("ACTIVE.SELECTOR_TRAINER", "DualPrompt"), {"DUALPROMPT": {"PROMPT_DEPTH_VISION": 4}}),
    (("--trainer", "MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "at most 1"), {"MAPLE": {"PROMPT_DEPTH": 1}}),
    (("--trainer", "VPT", "TRAINER.VPT.PROMPT_DEPTH", "3"), {"VPT": {"PROMPT_DEPTH": 3}})])
def test_every_learner_runs_on_the_embedded_model_with_its_defaults(capsys, root, tmp_path, words, taken):
    """The tower has 2 text and 4 image blocks: a default depth uses all there are, and the record has the number."""
    result = run(capsys, root, tmp_path / "run", *words, "ACTIVE.ROUNDS", "1", "OPTIM.MAX_EPOCH", "1")
    for learner, keys in taken.items():
        assert result["config"]["TRAINER"][learner] | keys == result["config"]["TRAINER"][learner]


def test_a_record_with_the_depth_as_a_number_goes_on(capsys, root, tmp_path):
    """Old records hold numbers. The same command, which now says `all`, is still the same run."""
    words = ("--trainer", "VPT", "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "1")
    run(capsys, root, tmp_path / "run", *words, "TRAINER.VPT.PROMPT_DEPTH", "4")
    cut_back(tmp_path / "run" / "results.json", 1)
    assert len(run(capsys, root, tmp_path / "run", *words)["rounds"]) == 2


@pytest.mark.parametrize(("depth", "said"), [("5", "tower has 4"), ("some", "'all', or 'at most 9'"), ("0", "from 1 on"),
                                             ("at most 0", "from 1 on"), ("at most x", "from 1 on")])
def test_a_depth_that_is_none_is_refused_before_anything_loads(capsys, monkeypatch, tmp_path, depth, said):
    """A number beyond the tower's blocks is an error that names its key."""
    monkeypatch.setattr(job, "prepared", lambda *_: pytest.fail("something was loaded"))
    code, _, err = call(capsys, *QUICK, "--output-dir", tmp_path, "--trainer", "VPT", "TRAINER.VPT.PROMPT_DEPTH", depth)
    assert code in (1, 2) and "TRAINER.VPT.PROMPT_DEPTH" in err and said in err


@pytest.mark.parametrize("learner", ["CoOp", "VPT"])
def test_a_changed_image_is_read_again_by_the_next_run_of_a_process(capsys, root, tmp_path, learner):
    """Row 8: a run in a process that has read the images before gives the result and certificate of a run on its own."""
    shutil.copytree(root, data := tmp_path / "data")
    words = ["--trainer", learner, "ACTIVE.ROUNDS", "1", "TRAINER.VPT.PROMPT_DEPTH", "2"]
    held = Held()
    for name in ("before", "after"):
        cfg = job.build_config(*job.parser().parse([*QUICK, "--root", str(data), "--output-dir", str(tmp_path / name),
                                                        *words]))
        job.settle(cfg)
        job.train(cfg, held)
        test = [data / "digits" / "images" / path
                for path, _, _ in json.loads((data / "digits" / "split_digits.json").read_text())["test"]]
        for path in test[::2]:
            shutil.copyfile(test[1], path)
    shutil.rmtree(data / ".cache")
    before, after = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("before", "after"))
    alone = run(capsys, data, tmp_path / "alone", *words)
    assert without_times(after) == without_times(alone) != without_times(before)
    assert after["certificate"] == alone["certificate"] != before["certificate"]


def test_a_component_added_later_changes_no_run(capsys, root, tmp_path):
    """Nodes of components that a run does not use are not part of it: a new sampler leaves old folders valid."""
    first = run(capsys, root, tmp_path / "run")
    assert set(first["config"]["TRAINER"]) == {"NAME", "ABSENT", "CALIBRATION", "DESCRIPTIONS", "COOP", "ZEROSHOT"}
    (tmp_path / "far.py").write_text(PLUGIN.replace("far_from_text", "added_later"))
    assert run(capsys, root, tmp_path / "run", "ACTIVE.PLUGINS", f"[{tmp_path / 'far.py'}]") == first


def test_changed_picks_are_noticed(capsys, root, tmp_path):
    """A record whose picks do not match their hash is refused, not built upon."""
    run(capsys, root, tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    result = json.loads(path.read_text())
    result["rounds"][1]["queried"][0] = result["rounds"][0]["queried"][0]
    path.write_text(json.dumps(result))
    code, _, err = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run")
    assert code == 1 and "round 1" in err


def test_a_drawn_seed_is_recorded_and_kept(capsys, root, tmp_path):
    """Row 16: SEED -1 draws a seed, records it, and a second call knows the run again."""
    result = run(capsys, root, tmp_path / "run", "--seed", "-1", "ACTIVE.ROUNDS", "1")
    assert result["config"]["SEED"] >= 0
    assert run(capsys, root, tmp_path / "run", "--seed", "-1", "ACTIVE.ROUNDS", "1") == result


def test_the_features_are_extracted_once_for_all_samplers_and_seeds(capsys, root, tmp_path, monkeypatch):
    """After one run, runs with another sampler or seed encode no image."""
    run(capsys, root, tmp_path / "a")
    monkeypatch.setattr("trainers.clip.frozen_clip.FrozenCLIP.encode_image", lambda *_: pytest.fail("an image was encoded"))
    run(capsys, root, tmp_path / "b", "ACTIVE.SAMPLER", "entropy", "--seed", "7")


def test_a_start_looks_once_at_each_image_and_reads_none(capsys, root, tmp_path, monkeypatch):
    """There is one pass of `stat`, and no image is read if features and hashes are known."""
    run(capsys, root, tmp_path / "a")
    looked, stat = Counter(), os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looked.update([str(path)]) or stat(path, **options))
    monkeypatch.setattr("dassl.data.images.open", lambda path, *_: pytest.fail(f"{path} was read"), raising=False)
    run(capsys, root, tmp_path / "b", "ACTIVE.ROUNDS", "1")
    monkeypatch.undo()
    images = {path: count for path, count in looked.items() if path.endswith(".png") and path.startswith(str(root))}
    assert len(images) == 1797 and set(images.values()) == {1}


def test_an_extraction_that_is_stopped_goes_on_and_ends_the_same(capsys, root, tmp_path, monkeypatch):
    """Row 9: Ctrl-C in the fourth batch costs only that batch. Features and run are the same as without it."""
    batches = ("DATALOADER.TEST.BATCH_SIZE", "100")
    whole = run(capsys, root, tmp_path / "whole", "CACHE_DIR", tmp_path / "c", *batches)
    sizes, encode = [], FrozenCLIP.encode_image

    def counted(clip, images):
        sizes.append(len(images))
        if len(sizes) == 4:
            raise KeyboardInterrupt
        return encode(clip, images)

    monkeypatch.setattr(FrozenCLIP, "encode_image", counted)
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "CACHE_DIR", tmp_path / "d", *batches]
    assert call(capsys, *words)[0] == 130
    assert call(capsys, *words)[0] == 0
    assert sum(sizes) == 1197 + 450 + 100
    assert without_times(whole) == without_times(json.loads((tmp_path / "run" / "results.json").read_text()))
    banks = [{path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.safetensors")} for folder in "cd"]
    assert banks[0] == banks[1] and not list((tmp_path / "d").glob("*.blocks"))


def test_a_moved_data_root_changes_nothing(capsys, root, tmp_path):
    """Row 29: ids are relative and the cache goes along; the same run continues from a moved root."""
    shutil.copytree(root, tmp_path / "elsewhere")
    first = run(capsys, root, tmp_path / "run")
    assert run(capsys, tmp_path / "elsewhere", tmp_path / "run") == first


def test_eval_only_repeats_the_last_accuracy(capsys, root, tmp_path):
    """--eval-only on a run's folder prints the test accuracy that its last round recorded."""
    result = run(capsys, root, tmp_path / "run")
    code, out, _ = call(capsys, *QUICK, "--root", root, "--eval-only", "--model-dir", tmp_path / "run",
                        "CACHE_DIR", tmp_path / "cache")
    assert [path.name[:11] for path in (tmp_path / "cache").glob("*.safetensors")] == ["Digits_test"]  # no other is extracted
    assert code == 0 and f"accuracy {100 * result['rounds'][-1]['metrics']['accuracy']:.2f} %" in out


def test_every_metric_in_record_table_and_evaluation(root, tmp_path, capsys):
    """Metrics of each class are recorded under `per_class`. Reading the record gives all of them back."""
    names = [component.name for component in METRICS]
    words = (*QUICK, "--root", root, "TEST.METRICS", str(names), "ACTIVE.ROUNDS", "1", "OPTIM.MAX_EPOCH", "2")
    code, out, err = call(capsys, *words, "--output-dir", tmp_path / "run")
    assert code == 0, err
    (record,) = RunResult.read(tmp_path / "run" / "results.json").rounds
    assert set(record.metrics) | set(record.per_class) == set(names) and list(record.per_class) == ["class_accuracy"]
    assert len(record.per_class["class_accuracy"]) == 10 and "balanced accuracy %" in out and "class_accuracy" not in out
    assert record.metrics["balanced_accuracy"] == pytest.approx(sum(record.per_class["class_accuracy"]) / 10)
    code, out, err = call(capsys, *words, "--eval-only", "--model-dir", tmp_path / "run")
    assert code == 0, err
    assert f"  zero {100 * record.per_class['class_accuracy'][0]:.2f} %\n" in out and "nll " in out


def test_eval_only_takes_the_config_of_the_record(capsys, root, tmp_path):
    """Config file and data root are not given again. A prompts file leads to the record of its folder, too."""
    result = run(capsys, root, tmp_path / "run", "TRAINER.COOP.N_CTX", "3", "--seed", "5")
    for round, place in ((2, tmp_path / "run"), (1, tmp_path / "run" / "prompts" / "round_001.safetensors")):
        code, out, err = call(capsys, "--eval-only", "--model-dir", place)
        assert code == 0 and f"accuracy {100 * result['rounds'][round]['metrics']['accuracy']:.2f} %" in out, err
    code, _, err = call(capsys, "--eval-only", "--model-dir", tmp_path / "run", "TRAINER.COOP.N_CTX", "4")
    assert code == 1 and "prompts of another shape" in err  # keys on the line win


def test_eval_only_of_a_plugin_s_learner_says_that_plugins_must_be_named(capsys, root, tmp_path):
    """They are code, which a record alone does not run."""
    call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.ROUNDS", "1")
    edit(tmp_path / "run" / "results.json", lambda content: (
        content["config"]["ACTIVE"].update(PLUGINS=["mine.py"]), content["config"]["TRAINER"].update(PROBE={"WIDTH": 3}),
        content["certificate"].clear()))
    code, _, err = call(capsys, "--eval-only", "--model-dir", tmp_path / "run")
    assert code == 2, err
    assert "unknown key TRAINER.PROBE" in err and "name them again: ACTIVE.PLUGINS \"['mine.py']\"" in err
    assert err.count("\n") == 1


def test_eval_only_does_not_run_the_plugins_of_a_record(capsys, root, tmp_path):
    """A record may come from anybody; only plug-ins on the line are imported."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN.replace("far_from_text", "of_a_record"))
    words = ("ACTIVE.PLUGINS", f"['{plugin}']", "ACTIVE.SAMPLER", "of_a_record", "ACTIVE.ROUNDS", "1")
    run(capsys, root, tmp_path / "run", *words)
    other = tmp_path / "other.py"
    edit(tmp_path / "run" / "results.json", lambda content: (content["config"]["ACTIVE"].update(PLUGINS=[str(other)]),
                                                             content["certificate"].clear()))
    other.write_text("raise AssertionError('imported')")
    code, out, err = call(capsys, "--eval-only", "--model-dir", tmp_path / "run")
    assert code == 0 and "accuracy" in out, err


def test_images_that_were_trained_on_are_no_test_images(capsys, root, tmp_path):
    """If the split was drawn again, images that the run has labeled are left out of its test, and a message says so."""
    run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    shutil.copytree(root, data := tmp_path / "data")
    split = json.loads((data / "digits" / "split_digits.json").read_text())
    asked = json.loads((tmp_path / "run" / "results.json").read_text())["rounds"][0]["queried"]
    moved = [row for row in split["train"] if f"digits/images/{row[0]}" in asked][:5]
    split["test"] += moved
    split["train"] = [row for row in split["train"] if row not in moved]
    (data / "digits" / "split_digits.json").write_text(json.dumps(split))
    _, before, _ = call(capsys, "--eval-only", "--model-dir", tmp_path / "run")
    code, out, _ = call(capsys, "--eval-only", "--model-dir", tmp_path / "run", "--root", data)
    assert code == 0 and "5 of 455 test images were labeled in this run and are left out" in out
    assert before.splitlines()[-1] == out.splitlines()[-1]


def test_eval_only_needs_no_labels_of_train_images(tmp_path, root, capsys):
    """Labels of the test images are enough, as in a partly labeled folder."""
    result = run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    shutil.copytree(root, data := tmp_path / "data")
    split = json.loads((data / "digits" / "split_digits.json").read_text())
    split["train"] = [[path, -1, "?"] for path, *_ in split["train"]]
    plugin = tmp_path / "unlabeled.py"
    plugin.write_text("""
from dataclasses import replace
from dassl.data.dataset import DATASETS, Datum

@DATASETS.register("UnlabeledDigits")
def unlabeled(root):
    whole = DATASETS["Digits"].build(root)
    return replace(whole, train=tuple(Datum(datum.path, -1) for datum in whole.train))
""")
    words = ("--model-dir", tmp_path / "run", "ACTIVE.PLUGINS", f"['{plugin}']", "DATASET.NAME", "UnlabeledDigits")
    code, out, err = call(capsys, "--eval-only", *words)
    assert code == 0 and f"accuracy {100 * result['rounds'][0]['metrics']['accuracy']:.2f} %" in out, err


def test_eval_only_refuses_prompts_that_were_altered(capsys, root, tmp_path):
    """Row 13: the record holds their hash."""
    run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    prompts = tmp_path / "run" / "prompts" / "round_000.safetensors"
    prompts.write_bytes(prompts.read_bytes()[:-1] + b"\x01")
    code, out, err = call(capsys, *QUICK, "--root", root, "--eval-only", "--model-dir", tmp_path / "run")
    assert code == 1 and not out and f"not as they were written, first {prompts}" in err


def test_a_run_is_not_continued_with_other_descriptions(capsys, root, tmp_path):
    """Row 13: the config holds the file's name, and the certificate covers its bytes."""
    file = tmp_path / "texts.json"
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    file.write_text(json.dumps({name: [f"a drawn {name}"] for name in names}))
    words = ("TRAINER.DESCRIPTIONS.MODE", "AS", "TRAINER.DESCRIPTIONS.FILE", file, "ACTIVE.ROUNDS", "2")
    run(capsys, root, tmp_path / "run", *words)
    cut_back(tmp_path / "run" / "results.json", 1)
    file.write_text(json.dumps({name: [f"a printed {name}"] for name in names}))
    code, _, err = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run", *words)
    assert code == 1 and "other images, labels or descriptions" in err


def test_eval_only_of_a_run_without_a_round_says_so(capsys, root, tmp_path):
    """A run that waits for its first labels has no prompts yet."""
    run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    cut_back(tmp_path / "run" / "results.json", 0)
    code, _, err = call(capsys, *QUICK, "--root", root, "--eval-only", "--model-dir", tmp_path / "run")
    assert code == 1 and err == f"train.py: {tmp_path / 'run'} holds a run that has not finished its first round\n"


def test_one_learner_selects_and_another_is_reported(capsys, root, tmp_path):
    """ACTIVE.SELECTOR_TRAINER: DualPrompt selects and mines, CoOp is trained on the paid labels alone and reported."""
    words = ("ACTIVE.SAMPLER", "dual_prompt", "ACTIVE.SELECTOR_TRAINER", "DualPrompt", "ACTIVE.SELECTOR_OPTIM.MAX_EPOCH", "1",
             "TRAINER.DUALPROMPT.PROMPT_DEPTH_VISION", "2", "TRAINER.DUALPROMPT.N_CTX_VISION", "2", "ACTIVE.ROUNDS", "2")
    result = run(capsys, root, tmp_path / "run", *words)
    assert [record["n_paid"] for record in result["rounds"]] == [12, 24]
    assert {"fit", "fit_selector"} <= set(result["rounds"][1]["seconds"])
    assert {path.name for path in (tmp_path / "run" / "prompts").iterdir()} == {
        f"round_00{round}{kind}.safetensors" for round in (0, 1) for kind in ("", "_selector")}


@pytest.mark.parametrize("name", ["PromptSRC", "CLIPLoRA"])
@pytest.mark.parametrize("words", [
    ("alfa_mix",), ("badge",), ("cb",), ("cec",),
    ("dual_prompt", "ACTIVE.SELECTOR_TRAINER", "DualPrompt", "TRAINER.DUALPROMPT.PROMPT_DEPTH_VISION", "1")])
def test_learners_of_both_towers_are_selected_by_and_reported(capsys, root, tmp_path, name, words):
    """Samplers read the learner's own features of the pool, encoded again in each round. DualPrompt also selects for them."""
    words = ("--trainer", name, "ACTIVE.SAMPLER", *words, "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "1")
    result = run(capsys, root, tmp_path / "run", *words)
    assert [record["n_paid"] for record in result["rounds"]] == [12, 24]
    if words[3] in ("badge", "dual_prompt"):  # the other samplers read the same features, by the same learner
        again = run(capsys, root, tmp_path / "again", *words)
        assert without_times(again) == without_times(result)


PLUGIN = '''
import torch

from active.registry import SAMPLERS


@SAMPLERS.register("far_from_text")
def far_from_text(ctx, *, scale: float = 1.0):
    """Return the rows least like any class text."""
    return (ctx.features @ ctx.text_features.T).amax(1).mul(scale).argsort(stable=True)[: ctx.n_query]
'''


def test_a_sampler_from_a_file_outside_the_project_runs(root, tmp_path):
    """A file named in ACTIVE.PLUGINS is imported, listed, configured and run, in a process of its own."""
    (tmp_path / "far.py").write_text(PLUGIN)
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.PLUGINS", f"['{tmp_path / 'far.py'}']",
             "ACTIVE.SAMPLER", "far_from_text", "ACTIVE.FAR_FROM_TEXT.SCALE", "2"]
    listed = commands.run([sys.executable, "train.py", *map(str, words), "--list"], capture_output=True, text=True)
    assert "ACTIVE.FAR_FROM_TEXT: SCALE=1.0" in listed.stdout
    done = commands.run([sys.executable, "train.py", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert RunResult.read(tmp_path / "run" / "results.json").rounds[2].sampler == "far_from_text"


@pytest.mark.parametrize(("words", "message"), [
    (["ACTIVE.SAMPLER", "entopy"], "did you mean 'entropy'"),
    (["ACTIVE.INITIAL_SAMPLER", "rnadom"], "did you mean 'random'"),
    (["--trainer", "CoOpp"], "did you mean 'CoOp'"),
    (["ACTIVE.SELECTOR_TRAINER", "DualPromt"], "did you mean 'DualPrompt'"),
    (["ACTIVE.SAMPLER", "dual_prompt"], "CoOp has no negative ones"),
    (["ACTIVE.SAMPLER", "alfa_mix", "--trainer", "TipAdapter"], "those of TipAdapter are not linear"),
    (["ACTIVE.SAMPLER", "alfa_mix", "ACTIVE.SELECTOR_TRAINER", "TipAdapterF"], "those of TipAdapterF are not linear"),
    (["ACTIVE.SAMPLER", "pcb", "ACTIVE.PCB.BASE", "marginn"], "did you mean 'margin'"),
    (["DATASET.NAME", "Digit"], "did you mean 'Digits'"),
    (["MODEL.BACKBONE.NAME", "tiny_clop"], "did you mean 'tiny_clip'"),
    (["OPTIM.LRR", "1"], "did you mean 'OPTIM.LR'"),
    (["OPTIM.LR", "fast"], "must be a number"),
    (["OPTIM.LR", "nan"], "finite|a number"),
    (["OPTIM.MAX_EPOCH", "-3"], "at least 0"),
    (["OPTIM.NAME", "sdg"], "did you mean 'sgd'"),
    (["OPTIM.SGD_NESTEROV", "true", "OPTIM.MOMENTUM", "0"], "Nesterov"),
    (["OPTIM.NAME", "adam", "OPTIM.ADAM_BETA1", "1.0"], "beta"),
    (["--seed", "4294967296"], "at most 4294967295"),
    (["--seed", "-2"], "at least -1"),
    (["--seed", "one"], "integer"),
    (["ACTIVE.QUERY_SIZE", "0"], "at least 1"),
    (["ACTIVE.QUERY_SIZE", "0.5"], "QUERY_SIZE"),
    (["ACTIVE.QUERY_SIZE", "101%"], "QUERY_SIZE"),
    (["ACTIVE.QUERY_SIZE", "per_clas"], "QUERY_SIZE"),
    (["INPUT.TRANSFORMS", "['random_flipp']"], "did you mean 'random_flip'"),
    (["TRAINER.COOP.CLASS_TOKEN_POSITION", "middel"], "did you mean 'middle'"),
    (["TRAINER.COOP.N_CTX", "0"], "at least 1"),
    (["--output", "x"], "did you mean '--output-dir'"),
    (["OPTIM.LR"], "has no value"),
    (["ACTIVE.SAMPLER", "--eval-only"], "has no value"),
    (["entropy"], "neither a flag nor"),
    (["--config-file", "missing.yaml"], "missing.yaml"),
    (["--eval-only"], "go together"),
    (["--eval-only", "--model-dir", "run", "--overwrite"], "nothing to --overwrite"),
    (["ACTIVE.PLUGINS", "['missing.py']"], "missing.py"),
])
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, words, message):
    """Rows 14 to 16: one line that says what was wrong, code 2, and nothing loaded or written."""
    monkeypatch.setattr(job, "prepared", lambda *_: pytest.fail("something was loaded"))
    code, out, err = call(capsys, *QUICK, "--output-dir", tmp_path / "run", *words)
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert re.search(message, err), err
    assert not (tmp_path / "run").exists()


def test_a_missing_data_root_is_a_clear_error(capsys, tmp_path):
    """An output folder that cannot be made is named, with exit code 1."""
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, *QUICK, "--root", tmp_path / "file", "--output-dir", tmp_path / "run")
    assert code == 1 and str(tmp_path / "file") in err and "Traceback" not in err


def test_list_and_print_config_load_nothing(capsys, monkeypatch):
    """--list names every component with its keys; --print-config prints the merged tree."""
    monkeypatch.setattr(job, "prepared", lambda *_: pytest.fail("something was loaded"))
    code, out, _ = call(capsys, "--list")
    assert code == 0 and {"Digits", "CoOp", "random", "entropy", "coreset"} <= set(out.split())
    assert "PromptTrainer" not in out  # which is that of all learners, and cannot be named
    code, out, _ = call(capsys, *QUICK, "--print-config", "OPTIM.LR", "1")
    assert code == 0 and "LR: 1.0" in out and "SAMPLER: coreset" in out


@pytest.mark.parametrize("words", [
    ["OPTIM.LR", "0.5", "--config-file", "configs/quickstart.yaml", "--seed", "0", "SEED", "3"],
    ["--config-file", "configs/quickstart.yaml", "OPTIM.LR", "0.5", "--seed", "0", "SEED", "3"],
])
def test_pairs_may_stand_anywhere_and_win(words):
    """KEY VALUE pairs before and after flags win over files and over flags."""
    cfg = job.build_config(*job.parser().parse(words))
    assert cfg.OPTIM.LR == 0.5 and cfg.SEED == 3


def test_ctrl_c_stops_with_a_hint_and_the_run_goes_on(capsys, root, tmp_path):
    """Row 10: SIGINT in the middle of a run exits with 130, no traceback, and the same command finishes the run."""
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.ROUNDS", "400"]
    with commands.popen([sys.executable, "train.py", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        for line in process.stdout:
            if line.startswith("round 1:"):
                break
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 130 and "goes on" in err and "Traceback" not in err
    interrupted = RunResult.read(tmp_path / "run" / "results.json")
    assert len(interrupted.rounds) >= 2 and not interrupted.finished


def test_two_processes_in_one_folder_are_refused(capsys, root, tmp_path):
    """Row 12: while one process holds the output folder, another says so and leaves it alone."""
    from dassl.utils.files import lock

    with lock(tmp_path / "run" / ".lock", wait=False):
        code, _, err = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run")
    assert code == 1 and "another process" in err and not (tmp_path / "run" / "results.json").exists()


def test_a_folder_in_use_is_not_moved_aside(capsys, root, tmp_path):
    """Rows 12 and 13: --overwrite would take the folder from under the process that writes into it."""
    from dassl.utils.files import lock

    run(capsys, root, tmp_path / "run", "ACTIVE.ROUNDS", "1")
    before = (tmp_path / "run" / "results.json").read_bytes()
    with lock(tmp_path / "run" / ".lock", wait=False):
        code, _, err = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run", "--overwrite")
    assert code == 1 and "another process" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_a_folder_that_cannot_be_moved_aside_is_named(capsys, root, tmp_path):
    """Row 11: here its new name would be too long; nothing is touched, and there is no traceback."""
    output = tmp_path / ("n" * 250)
    output.mkdir()
    (output / "log.txt").touch()
    code, _, err = call(capsys, *QUICK, "--root", root, "--output-dir", output, "--overwrite")
    assert code == 1 and err == f"train.py: cannot move {output} aside: File name too long\n"
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("name", ["data", ".", "photos", "notes.txt", "begun"])
def test_a_folder_that_is_no_run_s_is_not_moved_aside(capsys, tmp_path, name):
    """This covers the data root, a folder above it, and somebody's photos, even if a failed command left its log there."""
    (tmp_path / "data" / "digits").mkdir(parents=True)
    for file in ("log.txt", "photos/cat.jpg", "notes.txt", "begun/.lock", "begun/log.txt", "begun/thesis.tex"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    before = sorted(tmp_path.rglob("*"))
    code, _, err = call(capsys, *QUICK, "--root", tmp_path / "data", "--output-dir", tmp_path / name, "--overwrite")
    assert code == 1 and "--overwrite does not move it aside" in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_overwritten(capsys, root, tmp_path):
    (tmp_path / "run").mkdir()
    assert call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run", "--overwrite", "ACTIVE.ROUNDS", "1")[0] == 0


@pytest.mark.parametrize("folder", ["", " ", "~/runs", "~other/runs"])
def test_an_output_that_is_no_folder_s_name_is_refused(capsys, tmp_path, folder):
    """A `~` that no shell has replaced would become a folder of that name."""
    code, _, err = call(capsys, *QUICK, "OUTPUT_DIR", folder)
    assert code == 2 and f"OUTPUT_DIR is {folder!r}" in err and "Traceback" not in err
    assert not Path("~").exists()


@pytest.mark.starts
def test_the_environment_of_the_process_changes_nothing(capsys, root, tmp_path):
    """Row 30: hash seed, locale and -O change neither picks nor metrics."""
    expected = run(capsys, root, tmp_path / "here")
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "there"]
    subprocess.run([sys.executable, "train.py", *map(str, words)], check=True, capture_output=True,
                   env={**os.environ, "PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONOPTIMIZE": "1"})
    assert without_times(json.loads((tmp_path / "there" / "results.json").read_text())) == without_times(expected)


def test_a_worker_that_dies_during_a_step_is_one_line(capsys, root, tmp_path, monkeypatch):
    """Torch then raises from a signal handler, wherever the main process is."""
    def killed(*_):
        raise RuntimeError("DataLoader worker (pid 42) is killed by signal: Killed. ")

    monkeypatch.setattr(fit._Steps, "take", killed)
    code, _, errors = call(capsys, *QUICK, "--root", root, "--output-dir", tmp_path / "run")
    assert code == 1 and "Traceback" not in errors
    assert "DataLoader worker (pid 42) is killed by signal: Killed; it may have run out of memory or met a file" in errors
