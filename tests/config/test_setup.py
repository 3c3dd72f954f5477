"""From files, pairs, plug-ins and components to one checked config."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from yacs.config import CfgNode

from dassl.config.defaults import NOT_PART_OF_A_RUN, SHARED, Circumstance, default_config
from dassl.config.merge import lookup
from dassl.config.setup import (
    ABSENT,
    Difference,
    as_dict,
    check_config,
    differences,
    drop_unused,
    load_plugin,
    setup_config,
)
from dassl.utils.errors import ConfigError
from dassl.utils.registry import AtLeast, AtMost, NameOf, Registry, parameter_of
from trainers.core import job


def gradient(ctx, *, gamma: Annotated[float, AtLeast(0.5), AtMost(3.5)] = 1.0, depth: Annotated[int, AtLeast(0)] = 1,
             norm: Literal["l1", "l2"] = "l2"): ...


@pytest.fixture
def registry() -> Registry:
    samplers = Registry("sampler", "ACTIVE")
    samplers.register("gradient-norm")(gradient)
    return samplers


def config(registry: Registry, *pairs: tuple[str, str]) -> CfgNode:
    return setup_config([], list(pairs), [registry])


def checked(registry: Registry, *pairs: tuple[str, str]) -> None:
    check_config(config(registry, *pairs), [registry])


CHOICES = [key for key, parameter in SHARED.items() if parameter.choices]
NUMBERS = {key: parameter for key, parameter in SHARED.items() if parameter.types[0] in (int, float)}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_files_are_merged_left_to_right_and_pairs_last(registry, tmp_path):
    """Later files override earlier ones."""
    files = [written(tmp_path / f"{seed}.yaml", f"SEED: {seed}\nOPTIM:\n  LR: {seed}\n") for seed in (2, 3)]
    cfg = setup_config(files, [("OPTIM.LR", "4")], [registry])
    assert (cfg.SEED, cfg.OPTIM.LR) == (3, 4.0)


def test_a_components_parameters_are_its_node(registry):
    """The node's name and keys are those of the component in upper case, the values its defaults until set."""
    cfg = config(registry, ("ACTIVE.GRADIENT_NORM.GAMMA", "2"))
    assert cfg.ACTIVE.GRADIENT_NORM == {"GAMMA": 2.0, "DEPTH": 1, "NORM": "l2"}


def test_setting_one_config_leaves_the_next_at_the_defaults(registry):
    """Trees are built again each time."""
    config(registry, ("ACTIVE.GRADIENT_NORM.GAMMA", "2"), ("SEED", "9"))
    cfg = config(registry)
    assert (cfg.ACTIVE.GRADIENT_NORM.GAMMA, cfg.SEED) == (1.0, 1)


def test_a_component_with_parameters_cannot_take_the_name_of_a_shared_key(registry):
    """A sampler "rounds" would replace ACTIVE.ROUNDS."""
    registry.register("rounds")(gradient)
    with pytest.raises(ConfigError, match=r"'rounds' wants the node ACTIVE\.ROUNDS"):
        config(registry)


def test_the_defaults_pass_the_check(registry):
    """The defaults satisfy all choices and minimums."""
    checked(registry)


@pytest.mark.parametrize(("key", "value", "hint"), [
    *((key, "other", "") for key in CHOICES),
    ("OPTIM.LR_SCHEDULER", "cosin", "did you mean 'cosine'?"),
    ("ACTIVE.GRADIENT_NORM.NORM", "l3", "known: l1, l2"),
])
def test_a_value_outside_its_choices_is_refused(registry, key, value, hint):
    """Shared keys and components' `Literal` parameters alike (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        checked(registry, (key, value))
    assert f"{key} is '{value}'; " in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(("key", "bound"), [
    *((key, parameter.minimum) for key, parameter in NUMBERS.items()), ("ACTIVE.GRADIENT_NORM.GAMMA", 0.5),
    ("ACTIVE.GRADIENT_NORM.DEPTH", 0)])
def test_a_value_below_its_minimum_is_refused(registry, key, bound):
    """Shared keys and components' `AtLeast` parameters alike; the minimum itself is allowed (row 14 of the faults table)."""
    checked(registry, (key, str(bound)))
    with pytest.raises(ConfigError, match=rf"{key} is .*must be at least {bound}"):
        checked(registry, (key, str(bound - 1)))


@pytest.mark.parametrize(("key", "bound"), [
    *((key, parameter.maximum) for key, parameter in NUMBERS.items()), ("ACTIVE.GRADIENT_NORM.GAMMA", 3.5)])
def test_a_value_above_its_maximum_is_refused(registry, key, bound):
    """Shared keys and components' `AtMost` parameters alike; the maximum itself is allowed. Rows 14 and 16: also of a seed."""
    checked(registry, (key, str(bound)))
    with pytest.raises(ConfigError, match=rf"{key} is .*must be at most {re.escape(str(bound))}"):
        checked(registry, (key, str(bound + 1)))


def test_every_number_has_bounds():
    """A new key or parameter needs both a minimum and a maximum."""
    declared = [SHARED, *(registry.parameters() for registry in job.REGISTRIES)]
    assert [key for parameters in declared for key, parameter in parameters.items()
            if parameter.types[0] in (int, float) and None in (parameter.minimum, parameter.maximum)] == []


def test_trees_of_defaults_share_nothing():
    """Changing a list in one config must not change the next one's."""
    default_config().ACTIVE.PLUGINS.append("mine.py")
    assert default_config().ACTIVE.PLUGINS == []


def test_what_is_not_part_of_a_run_is_marked_at_the_key():
    """These keys are in every older certificate: one more or fewer would change its config hash."""
    assert sorted(NOT_PART_OF_A_RUN) == [
        "ACTIVE.DEVICE", "ACTIVE.PLUGINS", "CACHE_DIR", "DATALOADER.MEMORY_MB", "DATALOADER.NUM_WORKERS", "DATASET.ROOT",
        "LABEL.DATASET", "LABEL.LEARNER", "LABEL.METHOD", "LOG.CURVE", "LOG.RECORDERS", "LOG.SCORES", "LOG.TENSORBOARD",
        "LOG.TRACKERS", "MODEL.LINEAR", "OUTPUT_DIR", "TRAIN.PRINT_FREQ", "VERBOSE"]  # those that came later are in no hash


def test_reading_a_config_imports_no_machine_learning():
    """The command line answers `--help` and a wrong key at once; torch alone takes seconds."""
    code = "import sys, dassl.config.setup; print({'torch', 'pandas', 'numpy'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(("key", "value"), [
    ("CPU_THREADS", "4294967296"), ("DATALOADER.NUM_WORKERS", "100000"), ("TRAINER.COOP.N_CTX", "1000000000"),
    ("TRAINER.MAPLE.N_CTX", "1000000000"), ("TRAINER.IVLP.N_CTX_TEXT", "257"), ("TRAINER.VPT.N_CTX", "1001"),
    ("ACTIVE.GCNAL.LR", "-1"), ("ACTIVE.GCNAL.DROPOUT", "1e18"), ("ACTIVE.GCNAL.DROPOUT", "1"),
    ("ACTIVE.GCNAL.HIDDEN", "1000000000"), ("ACTIVE.PROBCOVER.PURITY", "1e18"), ("ACTIVE.PROBCOVER.DELTA", "2.5"),
    ("ACTIVE.PCB.GAMMA", "1.5"), ("ACTIVE.ALFA_MIX.DELTA", "2"), ("ACTIVE.CBSQ.FACTOR", "100000"),
    ("OPTIM.GAMMA", "10"), ("OPTIM.MOMENTUM", "1.5"), ("TRAIN.PRINT_FREQ", "-1")])
def test_what_can_only_be_a_slip_is_refused(key, value):
    """The error comes before anything is loaded or allocated (row 14)."""
    with pytest.raises(ConfigError, match=rf"^{key} is .* but must be at (least|most) "):
        check_config(setup_config([], [(key, value)], job.REGISTRIES), job.REGISTRIES)


@pytest.fixture
def plugin(registry, tmp_path, monkeypatch) -> Iterator[Path]:
    """A file that registers a sampler in the registry and notes each import."""
    holder = type(sys)("plugin_test_registry")
    holder.registry, holder.imports = registry, []
    monkeypatch.setitem(sys.modules, holder.__name__, holder)
    monkeypatch.syspath_prepend(tmp_path)
    yield written(tmp_path / "my_sampler.py", (
        "import plugin_test_registry as test\n"
        "test.imports.append(__name__)\n"
        "@test.registry.register('mine')\n"
        "def mine(ctx, *, depth: int = 1): ...\n"))
    sys.modules.pop("my_sampler", None)


@pytest.mark.parametrize("by", ["path", "module"])
def test_the_node_of_a_plugin_named_in_a_file_is_known_to_that_file(registry, plugin, tmp_path, by):
    """Plug-ins, files or modules, are imported before anything is merged."""
    name = str(plugin) if by == "path" else plugin.stem
    path = written(tmp_path / "run.yaml", f"ACTIVE:\n  MINE:\n    DEPTH: 3\n  PLUGINS: [{name}]\n")
    assert setup_config([path], [], [registry]).ACTIVE.MINE.DEPTH == 3


def test_a_plugin_named_on_the_command_line_is_imported(registry, plugin):
    """Its node's keys may stand on the same command line."""
    cfg = config(registry, ("ACTIVE.MINE.DEPTH", "3"), ("ACTIVE.PLUGINS", repr([str(plugin)])))
    assert cfg.ACTIVE.MINE.DEPTH == 3


def test_a_plugin_is_imported_once(plugin, monkeypatch):
    """Two names of one file are one plug-in; importing it twice would register its samplers twice."""
    load_plugin(str(plugin))
    monkeypatch.chdir(plugin.parent)
    load_plugin(plugin.name)
    assert len(sys.modules["plugin_test_registry"].imports) == 1


@pytest.mark.parametrize(("text", "reason"), [
    ("def broken(:\n", "SyntaxError"),
    ("raise ValueError('first\\nsecond')\n", "ValueError: first second"),
    ("import no_such_package\n", "ModuleNotFoundError"),
])
def test_a_broken_plugin_is_one_line(tmp_path, text, reason):
    """The line names the plug-in and the reason, whatever the plug-in raised."""
    path = written(tmp_path / "broken.py", text)
    with pytest.raises(ConfigError) as caught:
        load_plugin(str(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"ACTIVE.PLUGINS: cannot import {str(path)!r}: {reason}")


@pytest.mark.parametrize("name", ["absent.py", "no_such_package.module", ""])
def test_a_plugin_that_is_not_there_is_named(name):
    """A missing file, a missing module and an empty name are each one ConfigError."""
    with pytest.raises(ConfigError, match=f"cannot import '{name}'"):
        load_plugin(name)


def test_a_plugin_that_failed_is_tried_again(plugin):
    """A half-imported plug-in does not count as imported."""
    whole = plugin.read_text()
    plugin.write_text("raise ValueError\n")
    with pytest.raises(ConfigError):
        load_plugin(str(plugin))
    plugin.write_text(whole)
    load_plugin(str(plugin))
    assert len(sys.modules["plugin_test_registry"].imports) == 1


@pytest.mark.parametrize("plugins", ["my.py", "3", "{A: 1}"])
def test_plugins_that_are_no_list_are_refused(registry, tmp_path, plugins):
    """A lone string would otherwise be read letter by letter."""
    path = written(tmp_path / "run.yaml", f"ACTIVE:\n  PLUGINS: {plugins}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: ACTIVE\.PLUGINS must be a list"):
        setup_config([path], [], [registry])


def test_a_difference_is_a_line_with_both_values(registry):
    """Every changed key is reported, sorted by key. A missing key has its default, if one is known."""
    old, new = as_dict(config(registry, ("OPTIM.LR", "1"))), as_dict(config(registry, ("OPTIM.LR", "2")))
    del old["SEED"], new["USE_CUDA"]
    new["SEED"], old["GONE"] = 2, 5
    found = differences(old, new)
    assert found == [Difference("GONE", 5, ABSENT), Difference("OPTIM.LR", 1.0, 2.0), Difference("SEED", 1, 2)]
    assert list(map(str, found)) == ["GONE: 5 -> '(absent)'", "OPTIM.LR: 1.0 -> 2.0", "SEED: 1 -> 2"]


def test_where_a_run_happens_makes_no_difference(registry):
    """Paths, worker processes and verbosity may change between a run and its continuation."""
    moved = config(registry, ("OUTPUT_DIR", "b"), ("CACHE_DIR", "b"), ("DATASET.ROOT", "b"), ("VERBOSE", "false"),
                   ("DATALOADER.NUM_WORKERS", "9"), ("TRAIN.PRINT_FREQ", "1"))
    assert differences(as_dict(config(registry)), as_dict(moved)) == []


def test_circumstances_of_a_component_are_not_recorded():
    """A reader of the record may lack the component, perhaps a plug-in, and must still see that these do not change a run."""
    served, oracles = Registry("oracle", "ACTIVE"), Registry("oracle", "ACTIVE")

    def page(setting, *, port: Annotated[int, AtLeast(0), AtMost(9), Circumstance()] = 0,
             depth: Annotated[int, AtLeast(0)] = 1): ...

    def plain(setting, *, host: Annotated[str, Circumstance()] = ""): ...

    served.register("page-of-test")(page)
    oracles.register("plain-of-test")(plain)
    cfg = setup_config([], [("ACTIVE.PAGE_OF_TEST.PORT", "7")], [served, oracles])
    assert cfg.ACTIVE.PAGE_OF_TEST.PORT == 7 and cfg.ACTIVE.PLAIN_OF_TEST.HOST == ""
    recorded = as_dict(cfg)
    assert recorded["ACTIVE"]["PAGE_OF_TEST"] == {"DEPTH": 1} and "PLAIN_OF_TEST" not in recorded["ACTIVE"]
    assert differences(recorded, as_dict(setup_config([], [], [served, oracles]))) == []
    deeper = as_dict(setup_config([], [("ACTIVE.PAGE_OF_TEST.DEPTH", "2")], [served, oracles]))
    assert [own.key for own in differences(recorded, deeper)] == ["ACTIVE.PAGE_OF_TEST.DEPTH"]


def test_a_config_that_went_through_json_is_no_different(registry):
    """Tuples become lists in the record; the config of the next start holds tuples again."""
    cfg = config(registry, ("INPUT.SIZE", "(64, 32)"), ("OPTIM.LR", "0.1"))
    assert differences(as_dict(cfg), as_dict(config(registry, ("INPUT.SIZE", "[64, 32]"), ("OPTIM.LR", "1e-1")))) == []


def test_unused_nodes_are_dropped_and_used_ones_kept():
    """What a value names is used, also from inside a used component; shared keys stay."""
    registry = Registry("thing", "ACTIVE")
    registry.register("outer")(lambda ctx, *, inner="second": None)
    registry.register("second")(lambda ctx, *, scale=1.0: None)
    registry.register("third")(lambda ctx, *, scale=1.0: None)
    registry.register("fourth")(lambda ctx, *, scale=1.0: None)
    cfg = setup_config([], [("ACTIVE.SAMPLER", "outer")], [registry])
    drop_unused(cfg, [registry], always=["fourth"])
    assert {"OUTER", "SECOND", "FOURTH", "SAMPLER", "ROUNDS"} <= set(cfg.ACTIVE) and "THIRD" not in cfg.ACTIVE


@pytest.mark.parametrize("text", ["[random_flip, normalize]", "['random_flip', 'normalize']", "('random_flip','normalize')"])
def test_lists_of_words_need_no_quotes_on_the_command_line(text):
    """A list may be written as in YAML or as in Python."""
    assert list(setup_config([], [("INPUT.TRANSFORMS", text)], []).INPUT.TRANSFORMS) == ["random_flip", "normalize"]


def test_a_label_or_a_path_is_no_use_of_a_component():
    """A run called `pcb` in tables, or written to a folder of that name, is the same run."""
    configs = []
    for pairs in ([], [("LABEL.METHOD", "pcb"), ("OUTPUT_DIR", "pcb")]):
        cfg = setup_config([], pairs, job.REGISTRIES)
        drop_unused(cfg, job.REGISTRIES, always=("ZeroShot",))
        configs.append(as_dict(cfg))
    assert differences(*configs) == [] and "PCB" not in configs[1]["ACTIVE"]


@pytest.mark.parametrize(("kind", "node", "key", "value", "expected"), [
    ("sampler", "ACTIVE", "ACTIVE.SAMPLER", "slope", "gradient-norm"),
    ("sampler", "ACTIVE", "ACTIVE.INITIAL_SAMPLER", "slope", "gradient-norm"),
    ("learner", "TRAINER", "ACTIVE.SELECTOR_TRAINER", "slope", "gradient-norm"),
    ("trainer", "TRAINER", "TRAINER.NAME", "slope", "gradient-norm"),
    ("metric", "TEST", "TEST.METRICS", "[accuracy, slope]", ("accuracy", "gradient-norm")),
    ("recorder", "LOG", "LOG.RECORDERS", "[slope]", ["gradient-norm"]),
    ("recorder", "LOG", "LOG.TRACKERS", "[slope]", ["gradient-norm"])])
def test_another_name_of_a_component_means_the_same_config(kind, node, key, value, expected):
    """This holds wherever it is named: the parameters set are used, and a record holds the component's own name."""
    registry = Registry(kind, node)
    registry.register("gradient-norm", also_known_as=["slope"])(gradient)
    cfg = setup_config([], [(key, value), (f"{node}.GRADIENT_NORM.GAMMA", "3.0")], [registry])
    drop_unused(cfg, [registry])
    assert lookup(cfg, key) == expected and cfg[node].GRADIENT_NORM.GAMMA == 3.0


def test_another_name_of_a_sampler_inside_another_means_the_same_config():
    """A wrapper's parameter is a name too."""
    registry = Registry("sampler", "ACTIVE")
    registry.register("gradient-norm", also_known_as=["slope"])(gradient)
    registry.register("outer")(lambda ctx: None)
    registry._components["outer"] = replace(registry["outer"], parameters=(
        parameter_of("outer", "inner", "gradient-norm", Annotated[str, NameOf("sampler")]),))
    cfg = setup_config([], [("ACTIVE.SAMPLER", "outer"), ("ACTIVE.OUTER.INNER", "slope")], [registry])
    assert cfg.ACTIVE.OUTER.INNER == "gradient-norm"


@pytest.mark.parametrize(("pairs", "expected"), [
    ([], "pushed"), ([("ACTIVE.SELECTOR_TRAINER", "LinearProbe")], "masked"), ([("ACTIVE.SELECTOR_TRAINER", "CoOp")], "pushed"),
    ([("ACTIVE.SELECTOR_TRAINER", "CoOp"), ("ACTIVE.SELECTOR_OPTIM.ABSENT", "masked")], "masked")])
def test_the_loss_of_the_selector_is_settled(pairs, expected):
    """A record says what was done, so that another default of a learner would change no run."""
    cfg = setup_config([], [("DATASET.NAME", "EuroSAT"), *pairs], job.REGISTRIES)
    job.settle(cfg)
    assert expected == cfg.ACTIVE.SELECTOR_OPTIM.ABSENT


def test_the_selectors_loss_of_older_records_is_the_same():
    """They lack the key or hold auto. In their training, classes without a label were part of the loss."""
    new = as_dict(setup_config([], [("ACTIVE.SELECTOR_OPTIM.ABSENT", "pushed")], []))
    for old in ({}, {"ABSENT": "auto"}):
        record = as_dict(default_config())
        del record["ACTIVE"]["SELECTOR_OPTIM"]["ABSENT"]
        record["ACTIVE"]["SELECTOR_OPTIM"] |= old
        assert differences(record, new) == []
