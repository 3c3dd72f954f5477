"""What contributors find: files of other programs, checked as far as that can be done without them."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def loaded(name: str) -> dict:
    return yaml.safe_load((PROJECT / name).read_text())


def test_the_workflow_tests_all_that_is_promised():
    """Each Python, the oldest dependencies and macOS are tested. What its steps run exists, and contributors run the same."""
    workflow = loaded(".github/workflows/tests.yml")
    assert workflow.keys() == {"name", True, "permissions", "concurrency", "jobs"}  # YAML reads `on` as true
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert {row["flags"] for row in matrix["include"]} == {"--oldest", ""}
    assert {row["os"] for row in matrix["include"]} == {"ubuntu-latest", "macos-latest"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    files = {file for step in steps for file in re.findall(r"\S+\.(?:sh|txt)\b", step.get("run", ""))}
    assert "scripts/test.sh" in files
    assert [file for file in files if not (PROJECT / file).is_file()] == []
    assert "[ \"${1:-}\" = --oldest ]" in (PROJECT / "scripts/test.sh").read_text()


def test_the_pythons_are_those_of_the_readme_and_of_the_linter():
    """README, CONTRIBUTING and the linter's oldest version agree."""
    for name in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (PROJECT / name).read_text()
    assert f'target-version = "py{PYTHONS[0].replace(".", "")}"' in (PROJECT / "pyproject.toml").read_text()


def test_the_hook_is_the_linter_of_the_tests():
    """Their versions agree."""
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    (asked,) = [line for line in (PROJECT / "requirements-dev.txt").read_text().splitlines() if line.startswith("ruff")]
    assert repository["repo"] == "local" and hook["additional_dependencies"] == [asked]


def test_the_images_copy_and_run_what_is_there():
    """Files, requirement files and the entry point exist. Each stage has a name and builds only on earlier ones."""
    instructions = [line.split() for line in re.sub(r"\\\n", " ", (PROJECT / "Dockerfile").read_text()).splitlines()
                    if line and not line.startswith("#")]
    stages = [words[-1] for words in instructions if words[0] == "FROM"]
    assert stages == ["base", "gpu", "cpu"] and all(words[1] in ("python:${PYTHON}-slim", "base")
                                                    for words in instructions if words[0] == "FROM")
    sources = [source for words in instructions if words[0] == "COPY" for source in words[1:-1]]
    asked = [words[place + 1] for words in instructions for place, word in enumerate(words) if word == "-r"]
    assert asked == ["requirements.txt"] * 2 and all((PROJECT / file).exists() for file in [*sources, *asked])
    assert [" ".join(words) for words in instructions if words[0] == "ENTRYPOINT"] == ['ENTRYPOINT ["python", "train.py"]'] * 2


def test_the_citation_has_what_its_format_asks_for():
    """Version 1.2.0 of the Citation File Format needs these four, and authors with names."""
    citation = loaded("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()
    assert all(author.get("name") for author in citation["authors"])
    assert citation["license"] == "MIT" and (PROJECT / "LICENSE").read_text().startswith("MIT License")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(name):
    """The linked files exist, and so do those named in code."""
    text = (PROJECT / name).read_text()
    named = [*re.findall(r"\]\(([^)#]+)", text), *re.findall(r"`((?:[\w.]+/)+[\w.]+\.\w+)`", text)]
    assert named and [file for file in named if not (PROJECT / file).exists()] == []


def test_no_ignored_file_is_part_of_these():
    """Names of files that the code host reads begin with a dot, but they are tracked all the same."""
    files = [".github/workflows/tests.yml", ".pre-commit-config.yaml", ".dockerignore", "CITATION.cff", "Dockerfile"]
    if (PROJECT / ".git").exists():
        found = subprocess.run(["git", "check-ignore", *files], cwd=PROJECT, capture_output=True, text=True)
        assert found.stdout == ""
    assert all((PROJECT / file).is_file() for file in files)


def test_what_is_not_strict_is_there():
    """A module that was renamed or fixed must leave the list of modules with less strict type checks."""
    listed = re.findall(r'"((?:active|trainers)\.[\w.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert len(listed) > 30 and len(listed) == len(set(listed))
    assert [name for name in listed if not (PROJECT / f"{name.replace('.', '/')}.py").is_file()] == []
