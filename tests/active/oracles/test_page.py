"""What the page's oracle checks before a run, and when it opens a browser. `tests/test_page.py` has whole runs."""

import pytest

from active.oracles import page as module
from active.oracles.labeling.packages import check_packages
from dassl.utils.errors import ConfigError
from trainers.core import job


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    """Before anything is loaded, and only where the page is asked for."""
    monkeypatch.setitem(module.sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"needs the packages starlette and uvicorn .*: pip install starlette uvicorn"):
        check_packages()
    words = ["--config-file", "configs/quickstart.yaml", "ACTIVE.ORACLE"]
    job.check(job.build_config(*job.parser().parse([*words, "file"])))
    with pytest.raises(ConfigError, match="pip install starlette uvicorn"):
        job.check(job.build_config(*job.parser().parse([*words, "page"])))


@pytest.mark.parametrize(("platform", "variables", "expected"), [
    ("linux", {}, False), ("linux", {"DISPLAY": ":0"}, True), ("linux", {"WAYLAND_DISPLAY": "w"}, True), ("darwin", {}, True)])
def test_a_browser_opens_where_there_is_a_display(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setattr(module.os, "environ", variables)
    assert module.has_display() == expected
