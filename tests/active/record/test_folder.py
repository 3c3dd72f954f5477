"""The output folder: what may be continued, what is refused, what is cleared away. Rows 9 and 13 of the faults table."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Annotated, Literal

import pytest

from active.build import carry_out as run
from active.record.certificate import config_hash
from active.record.folder import SELECTION, _with_remedy, check_files, clean, environments, made_by, prompts_path
from active.record.results import RunResult
from dassl.config.defaults import default_config
from dassl.config.setup import ABSENT, Difference, add_component_nodes, as_dict, differences
from dassl.utils.errors import DataError, UserError
from dassl.utils.files import remove_leftovers
from dassl.utils.registry import Before, Registry
from tests.active.toy import ToyTrainer, edit, record_of, toy_config, toy_task

BEFORE = Path(__file__).parents[2] / "files" / "before"  # written by commit 2dbb33f
MEANT = {"ACTIVE__GCNAL__SPACE": "hidden"}  # keys whose default is not what the records mean
CERTIFICATE = {"code": "1", "data": "2", "weights": "3"}


def toy_run(output, certificate, stop=None):
    dataset, features, texts = toy_task()
    return run(toy_config(output), dataset, ToyTrainer(features, texts, stop), certificate=certificate)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that was stopped in its second round."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, CERTIFICATE, ("fit", 1))
    return tmp_path


def test_a_run_carries_its_certificate(tmp_path):
    """The hashes stand in the record as they were given."""
    toy_run(tmp_path, CERTIFICATE)
    assert json.loads((tmp_path / "results.json").read_text())["certificate"] == CERTIFICATE


@pytest.mark.parametrize(("what", "words"), [("data", "other images, labels or descriptions"),
                                             ("weights", "other backbone weights")])
def test_a_run_on_other_data_or_weights_is_not_continued(stopped, what, words):
    """Row 13: the record would mix two experiments under one name; it stays as it is."""
    before = (stopped / "results.json").read_bytes()
    with pytest.raises(UserError, match=f"{words} .* --overwrite"):
        toy_run(stopped, CERTIFICATE | {what: "9"})
    assert (stopped / "results.json").read_bytes() == before


def test_a_run_continued_by_other_code_says_so(stopped, tmp_path, caplog):
    """Row 32: the log warns, and the certificate names both versions, once each."""
    with caplog.at_level(logging.WARNING):
        toy_run(stopped, CERTIFICATE | {"code": "9"})
    assert "the code has changed" in caplog.text
    assert RunResult.read(stopped / "results.json").certificate["code"] == "1+9"


def test_a_run_continued_in_another_environment_says_so(stopped, monkeypatch, caplog):
    """Row 32: versions, device and threads of both parts stay in the record, each once, however often the run is continued."""
    first = RunResult.read(stopped / "results.json").environment
    changed = {"torch": "9+cpu", "threads": "64", "gpu": "A 1"}
    for now in (first, first | changed, first | changed):
        monkeypatch.setattr("active.record.folder.environment", lambda now=now: dict(now))
        with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
            toy_run(stopped, CERTIFICATE, ("fit", 0))
    again = RunResult.read(stopped / "results.json").environment
    assert again == first | {"torch": f"{first['torch']} and 9+cpu", "threads": f"{first['threads']} and 64",
                             "gpu": "none and A 1"}
    assert caplog.text.count("goes on in another environment") == 1 and f"torch {first['torch']} -> 9+cpu" in caplog.text


def test_what_a_record_does_not_name_was_done_as_always():
    """Linear layers by torch and picks on the CPU; records of former code say "none" after another one."""
    assert (environments({}, "linear"), environments({}, SELECTION), environments({}, "gpu")) == (["torch"], ["cpu"], ["none"])
    assert environments({"linear": "onednn and none"}, "linear") == ["onednn", "torch"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""),
                                    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01")])
def test_a_finished_run_without_its_prompts_is_not_taken_for_whole(tmp_path, damage):
    """Row 13: a finished run is skipped only if every file is there, exactly as it was written."""
    result = toy_run(tmp_path, CERTIFICATE)
    check_files(result.rounds, tmp_path)
    damage(prompts_path(tmp_path, 2))
    with pytest.raises(UserError, match=r"1 files that are missing or not as they were .* first .*round_002\.safetensors"):
        check_files(result.rounds, tmp_path)


def test_a_run_is_not_continued_from_changed_prompts(stopped):
    """Row 9: one altered bit in the prompts that select the next round is found, even if their own format misses it."""
    path = prompts_path(stopped, 0)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=f"not as they were written, first {path}"):
        toy_run(stopped, CERTIFICATE)


def test_a_config_that_was_edited_in_the_record_is_found(tmp_path):
    """Row 32: the record's own hash of its config holds config and numbers together."""
    result = toy_run(tmp_path, CERTIFICATE)
    result.certificate["config"] = config_hash(result.config)
    result.write(tmp_path / "results.json")
    assert record_of(RunResult.read(tmp_path / "results.json")) == record_of(result)
    result.config["OPTIM"]["LR"] = 7.0
    result.write(tmp_path / "results.json")
    with pytest.raises(DataError, match="config does not match its hash"):
        RunResult.read(tmp_path / "results.json")


def test_what_killed_processes_left_is_cleared_away_and_nothing_else(tmp_path):
    """Row 9: half-written files go; files of the run and hidden files of people stay."""
    left = [tmp_path / ".results.json.abcd1234.tmp", tmp_path / "prompts" / ".round_000.safetensors.x_y_z_12.tmp",
            tmp_path / "queries" / ".round_000.csv.abcd1234.tmp"]
    kept = [tmp_path / "results.json", tmp_path / "notes.tmp", tmp_path / ".notes.tmp", tmp_path / "sub" / ".a.abcd1234.tmp"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    clean(tmp_path)
    assert [path for path in (*left, *kept) if path.exists()] == kept


def test_leftovers_of_one_file_are_told_from_those_of_others(tmp_path):
    """Row 12: who holds the lock of one file of a shared cache must not remove what another process is writing."""
    own, other = tmp_path / ".a[1].json.abcd1234.tmp", tmp_path / ".b.json.abcd1234.tmp"
    own.touch()
    other.touch()
    remove_leftovers(tmp_path, "a[1].json")
    assert not own.exists() and other.exists()


@pytest.mark.parametrize("sampler", ["gcnal", "typiclust"])
def test_a_record_of_before_is_continued(tmp_path, sampler):
    """Commit 2dbb33f wrote it: two of four rounds. Keys that were added since are missing in it and change nothing."""
    shutil.copytree(BEFORE / sampler, tmp_path, dirs_exist_ok=True)
    before = json.loads((tmp_path / "results.json").read_text())
    dataset, features, texts = toy_task()
    cfg = toy_config(tmp_path, ACTIVE__SAMPLER=sampler, TRAINER__ABSENT="pushed", **MEANT)  # as `settle` leaves it for CoOp
    result = run(cfg, dataset, ToyTrainer(features, texts))
    assert result.finished and len(result.rounds) == 4 and result.config == before["config"]
    assert [record.query_hash for record in result.rounds[:2]] == [record["query_hash"] for record in before["rounds"]]


def test_a_key_that_a_record_lacks_has_its_default(tmp_path):
    """This holds in both directions. Any other value is a different config, and the key is named."""
    toy_run(tmp_path, CERTIFICATE)

    def older(content: dict) -> None:
        del content["config"]["OPTIM"]["LR"], content["config"]["ACTIVE"]["PCB"]["GAMMA"]
        content["certificate"] = {}

    edit(tmp_path / "results.json", older)
    assert toy_run(tmp_path, {}).finished
    for key, value in (("OPTIM__LR", 0.5), ("ACTIVE__PCB__GAMMA", 0.5)):
        dataset, features, texts = toy_task()
        with pytest.raises(UserError, match=f"{key.replace('__', '.')}: .* -> '?{value}"):
            run(toy_config(tmp_path, **{key: value}), dataset, ToyTrainer(features, texts))


def test_what_a_record_of_before_a_parameter_means_may_not_be_the_default(registry_of_one):
    """`Before` says it: the default may change, the meaning of old records may not."""
    old, new = ({"ACTIVE": {"SAMPLER": "newer"} | own} for own in ({}, {"NEWER": {"SPACE": "wide"}}))
    add_component_nodes(default_config(), registry_of_one)
    assert differences(old, new) == [Difference("ACTIVE.NEWER.SPACE", "narrow", "wide")]
    new["ACTIVE"]["NEWER"]["SPACE"] = "narrow"
    assert differences(old, new) == []
    for config in (old, new):
        config["ACTIVE"]["SAMPLER"] = "random"
    assert differences(old, new) == []  # a component that came since, which nobody uses
    new["ACTIVE"]["NEWER"]["SPACE"] = "wide"
    assert differences(old, new) == [Difference("ACTIVE.NEWER.SPACE", "narrow", "wide")]
    new["ACTIVE"]["SAMPLER"] = "newer"
    assert Difference("ACTIVE.NEWER.SPACE", ABSENT, "wide") in differences(old, new)


@pytest.fixture
def registry_of_one() -> Registry:
    registry = Registry("sampler", "ACTIVE")

    @registry.register("newer")
    def newer(ctx, *, space: Annotated[Literal["narrow", "wide"], Before("narrow")] = "wide"): ...

    return registry


def test_a_finished_run_may_be_given_more_rounds(tmp_path):
    """It ends as one that was asked for as many from the start, bit for bit, and its record says so."""
    dataset, features, texts = toy_task()
    for n_rounds in (2, 4):
        run(toy_config(tmp_path / "grown", ACTIVE__ROUNDS=n_rounds, ACTIVE__SAMPLER="badge"), dataset,
            ToyTrainer(features, texts), certificate=CERTIFICATE)
    run(toy_config(tmp_path / "whole", ACTIVE__ROUNDS=4, ACTIVE__SAMPLER="badge"), dataset, ToyTrainer(features, texts),
        certificate=CERTIFICATE)
    grown, whole = (RunResult.read(tmp_path / name / "results.json") for name in ("grown", "whole"))
    assert record_of(grown) == record_of(whole) and grown.finished
    assert grown.config["ACTIVE"] == whole.config["ACTIVE"]


def test_more_rounds_on_other_data_are_refused(tmp_path):
    """The first rounds depend on the data that the run began with."""
    toy_run(tmp_path, CERTIFICATE)
    dataset, features, texts = toy_task()
    before = (tmp_path / "results.json").read_bytes()
    for values, other, said in (({"ACTIVE__ROUNDS": 6}, {"data": "9"}, "other images, labels or descriptions"),
                                ({"ACTIVE__ROUNDS": 6, "OPTIM__LR": 0.5}, {}, r"OPTIM\.LR: 0\.002 -> 0\.5")):
        with pytest.raises(UserError, match=said):
            run(toy_config(tmp_path, **values), dataset, ToyTrainer(features, texts), certificate=CERTIFICATE | other)
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_command_of_a_run_that_was_given_more_rounds_finds_it_finished(tmp_path):
    """A sweep that asks again for fewer rounds has nothing to do, as the record says what was done and is never cut."""
    toy_run(tmp_path, CERTIFICATE)
    dataset, features, texts = toy_task()
    before = (tmp_path / "results.json").read_bytes()
    result = run(toy_config(tmp_path, ACTIVE__ROUNDS=2), dataset, ToyTrainer(features, texts), certificate=CERTIFICATE)
    assert len(result.rounds) == 4 and (tmp_path / "results.json").read_bytes() == before
    edit(tmp_path / "results.json", lambda content: content.update(status="running", rounds=content["rounds"][:1]))
    with pytest.raises(UserError, match=r"ACTIVE\.ROUNDS: 4 -> 2"):
        run(toy_config(tmp_path, ACTIVE__ROUNDS=2), dataset, ToyTrainer(features, texts), certificate=CERTIFICATE)


def test_a_key_of_another_default_now_is_named_with_what_goes_on(tmp_path):
    """`gcnal` had one space: the message says which value the record means."""
    shutil.copytree(BEFORE / "gcnal", tmp_path, dirs_exist_ok=True)
    dataset, features, texts = toy_task()
    said = r"ACTIVE\.GCNAL\.SPACE: 'hidden' -> .* older than this key; ACTIVE\.GCNAL\.SPACE hidden goes on"
    with pytest.raises(UserError, match=said):
        run(toy_config(tmp_path, ACTIVE__SAMPLER="gcnal"), dataset, ToyTrainer(features, texts))


@pytest.mark.parametrize("value", ["a -> b", "it's", [1, 2], 0.5])
def test_what_goes_on_with_an_older_record_is_the_value_itself(value):
    """The value may hold anything, including an arrow as in the message."""
    old = RunResult({"ACTIVE": {"SAMPLER": "random"}}, {}, {})
    assert _with_remedy(Difference("ACTIVE.NEWER.TEXT", value, "other"), old).endswith(
        f"(the record is older than this key; ACTIVE.NEWER.TEXT {value} goes on with it)")
    for difference in (Difference("ACTIVE.SAMPLER", value, "other"), Difference("ACTIVE.NEWER.TEXT", ABSENT, value)):
        assert _with_remedy(difference, old) == str(difference)


def test_the_certificate_of_a_run_with_more_rounds_is_that_of_its_config(tmp_path):
    """Otherwise the record would look edited."""
    dataset, features, texts = toy_task()
    for n_rounds in (2, 3):
        cfg = toy_config(tmp_path, ACTIVE__ROUNDS=n_rounds)
        run(cfg, dataset, ToyTrainer(features, texts), certificate=CERTIFICATE | {"config": config_hash(as_dict(cfg))})
        assert RunResult.read(tmp_path / "results.json").certificate["config"] == config_hash(as_dict(cfg))


@pytest.mark.parametrize(("code", "now", "by_it"), [
    ("1", "1", True), ("1", "9", False), ("1+9", "9", True), ("1+9", "1", False)])
def test_who_made_the_last_part_of_a_run_made_it(code, now, by_it):
    """Code that made the first part and has changed since did not."""
    assert made_by(RunResult({}, {}, {}, certificate=CERTIFICATE | {"code": code}), now) == by_it
    assert made_by(RunResult({}, {}, {}), now)


@pytest.mark.parametrize("name", ["results.json", "log.txt", "learning_curve.png"])
def test_a_pipe_in_place_of_a_file_of_the_run_is_refused(tmp_path, name):
    """Row 11: opening it would block forever without a message."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a file, as a run needs it"):
        clean(tmp_path)
