"""The arrows of the layout, the use of `print`, and the requirements, held by reading the code's own imports."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dassl.utils import run_folder

PROJECT = Path(__file__).parents[1]
OURS = ("dassl", "trainers", "active", "datasets")
ALLOWED = {folder: {folder, "dassl"} for folder in OURS}
SET_UP = {"active/build.py", "active/registry.py", "active/oracles/registry.py", "active/oracles/unasked.py",
          "dassl/config/merge.py", "dassl/config/setup.py", "trainers/registry.py", "trainers/core/build.py",
          "trainers/core/job.py"}
JOINS = PROJECT / "trainers/core/job.py"  # which makes a run of what all of them give, for train.py and sweeps
PACKAGES = {"open_clip": "open_clip_torch", "yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow", "faiss": "faiss-cpu"}
# asked for by a key or a command alone, and said to be missing where they are
OPTIONAL = {"tensorboard", "wandb", "mlflow", "onnx", "pyarrow", "transformers", "mkdocs"}

BY_OTHERS = {"sentencepiece", "h5py"}  # imported by transformers for some tokenizers, and by torchvision's PCAM
NAMED_ALONE = {"onnx", "onnxscript"}  # by errors that name the packages, not the file
OF_DEVELOPERS = {  # and what of them is called, not imported
    "requirements-dev.txt": {"pytest-xdist", "pytest-randomly", "ruff"},
    "requirements-docs.txt": {"mkdocs-material", "mkdocstrings-python"},  # themes and plug-ins, named in mkdocs.yml
    "requirements-types.txt": {"mypy", "types-pyyaml", "types-requests", "types-tabulate"}}


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("folder", OURS)
def test_arrows_point_one_way(folder):
    """active -> dassl, trainers -> dassl, datasets -> dassl; nothing of the project else."""
    for path in modules(folder):
        if path == JOINS:
            continue
        reached = {name.split(".")[0] for name in imported(path)} & {*OURS, "train", "scripts", "tests"}
        assert reached <= ALLOWED[folder], path


def test_no_files_import_each_other_in_a_circle():
    """This includes imports inside functions and those for type checking only."""
    files = {path.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
             for path in modules(*OURS)}
    arrows = {name: {other for other in imported(path) if other in files} for name, path in files.items()}
    for name, path in files.items():  # `from package import module`
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                arrows[name] |= {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(arrows | {"dassl.utils.errors": {"active.loop"}}).prepare()
    graphlib.TopologicalSorter(arrows).prepare()


def test_only_what_sets_up_sees_a_config():
    """All others take what they need as arguments: elsewhere a function of a config builds something or checks it."""
    seeing = [(path, function.name) for path in modules(*OURS) for function in functions(path)
              if any(argument.arg == "cfg" or "CfgNode" in ast.unparse(argument.annotation or ast.Constant(""))
                     for argument in ast.walk(function.args) if isinstance(argument, ast.arg))]
    assert len(seeing) > 40
    others = {f"{path.relative_to(PROJECT).as_posix()}: {name}" for path, name in seeing
              if path.relative_to(PROJECT).as_posix() not in SET_UP and not re.match("_|build|check", name)}
    assert others == {*(f"active/samplers/replay.py: {name}" for name in ("answers", "asks", "known", "sizes")),
                      "dassl/data/build.py: load_dataset"}


def test_no_function_of_the_loop_has_more_than_five_parameters():
    """A step takes the run, its state, and the topic of this round."""
    many = [function.name for file in ("loop", "asking") for function in functions(PROJECT / f"active/{file}.py")
            if len([argument for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]) > 5]
    assert many == []


@pytest.mark.parametrize("folder", ["active/record", "active/analysis", "trainers/core/job.py", "scripts/sweep.py"])
def test_records_and_commands_are_read_without_torch(folder):
    """What needs no computing libraries must be quick: torch, torchvision and open_clip take seconds to import."""
    path = PROJECT / folder
    files = [path] if path.is_file() else modules(folder)
    names = [file.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".") for file in files]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'torchvision', 'open_clip', 'sklearn'}} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def test_open_clip_is_known_where_clip_is():
    """The core and the loop do not import open_clip. Of the trainers, only trainers/clip and the kit do."""
    knowing = [path for path in modules("dassl", "active", "trainers") if "trainers.clip.library" in imported(path)]
    assert {path.name for path in knowing if path.parent.name != "clip"} == {"patterns.py"}


def test_transformers_is_imported_where_a_tokenizer_needs_it():
    """Not by open_clip, which would take it along in each start; who imports it afterwards has it."""
    assert [path.name for path in modules("dassl", "active", "trainers")
            if any(name.split(".")[0] == "open_clip" for name in imported(path))] == ["library.py"]
    code = ("import sys, trainers.core.build, trainers.clip.templates; "
            "from trainers.clip.backbones import load_clip; load_clip('tiny_clip', 'configs/models/tiny_clip.safetensors'); "
            "print('transformers' in sys.modules); import transformers; print(transformers.__name__)")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert found.stdout == "False\ntransformers\n"


def test_nothing_but_logging_speaks():
    """No `print` call outside of scripts and command-line entry points."""
    speaking = [path.relative_to(PROJECT).as_posix() for path in modules(*OURS)
                if "__main__" not in path.read_text() and re.search(r"(?<![\w.])print\(", path.read_text())]
    assert speaking == []


def requirements(file: str) -> set[str]:
    """Return the packages of a requirements file, without versions and without those of other files."""
    lines = [line.split("#")[0].strip() for line in (PROJECT / file).read_text().splitlines()]
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines if line and not line.startswith("-r")}


def test_requirements_name_what_is_imported_and_nothing_else():
    """Every third-party package that the project imports stands in requirements.txt, and every line there is imported."""
    files = [*modules(*OURS, "scripts", "benchmarks"), PROJECT / "train.py"]
    tops = {name.split(".")[0] for path in files for name in imported(path)}
    foreign = tops - set(sys.stdlib_module_names) - {*OURS, "scripts", "benchmarks", "train", "pytest", *OPTIONAL}
    assert {PACKAGES.get(name, name).lower() for name in foreign} == requirements("requirements.txt")


@pytest.mark.parametrize("file", sorted(path.name for path in PROJECT.glob("requirements-*.txt")))
def test_extras_name_what_somebody_needs(file):
    """Each package is imported, or named where it is needed. None is in requirements.txt too, and an error names the file."""
    assert not requirements(file) & requirements("requirements.txt")
    if file in OF_DEVELOPERS:
        assert requirements(file) - OF_DEVELOPERS[file] <= words_of(modules("tests"))
        return
    words = words_of(modules(*OURS, "scripts"))
    assert requirements(file) <= {PACKAGES.get(word, word).lower() for word in words} | set(BY_OTHERS)
    if not requirements(file) <= NAMED_ALONE:
        assert file in words, f"no error names {file}"


def words_of(files: list[Path]) -> set[str]:
    """Return the packages that files import, their texts up to the first dot, and the requirements files that these name."""
    texts = [node.value for path in files for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = [name for path in files for name in imported(path) if name]
    return {text.partition(".")[0] for text in [*names, *texts]} | set(re.findall(r"requirements-\w+\.txt", " ".join(texts)))


def test_the_names_of_a_run_s_files_live_once():
    """Code that writes, reads or skips a file takes its name from one place, so that no change is missed."""
    names = {run_folder.RESULTS, run_folder.LOG, run_folder.CURVE, run_folder.FAILED}
    files = [*modules(*OURS, "scripts"), PROJECT / "train.py"]
    saying = {path.relative_to(PROJECT).as_posix() for path in files
              if names & {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}}
    assert saying == {"dassl/utils/run_folder.py"}
