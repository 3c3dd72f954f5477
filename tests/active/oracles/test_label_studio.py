"""What Label Studio's exports hold besides labels. Row 25 of the faults table."""

import json
import logging

import pytest

from active.oracles.label_studio import export_rows, label_config, tasks
from dassl.utils.errors import DataError


def choice(*names: str, control: str = "label", kind: str = "choices") -> dict:
    return {"from_name": control, "to_name": "image", "type": kind, "value": {kind: list(names)}}


def task(path: str | None = "a.jpg", *results: object, **changes: object) -> dict:
    data = {"image": "/data/local-files/?d=a.jpg"} | ({} if path is None else {"path": path})
    return {"id": 7, "data": data, "annotations": [{"id": 1, "was_cancelled": False, "result": list(results), **changes}]}


def rows(tmp_path, *content: object, mark: str = "") -> list:
    (tmp_path / "export.json").write_text(mark + json.dumps(list(content)))
    return export_rows(tmp_path / "export.json")


CAT = ("export.json task 7", "a.jpg", "cat")


@pytest.mark.parametrize("other", [
    choice("blurred", control="quality"), choice("cat", control="kind"), choice("x", control="label", kind="taxonomy"),
    {"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"}, {"type": "textarea", "value": {"text": ["?"]}},
    {"from_name": "label", "type": "choices"}, {"from_name": "label", "type": "choices", "value": None}, None, "text", 3])
def test_only_the_choice_of_the_control_label_counts(tmp_path, other):
    """Other controls do not count: a second question about the image is not about its class."""
    assert rows(tmp_path, task("a.jpg", other, choice("cat"), other)) == [CAT]


@pytest.mark.parametrize("changes", [{"result": None}, {"result": []}])
def test_a_task_that_nobody_answered_has_no_label(tmp_path, changes):
    """The task was opened and left, or has no annotations at all. The other tasks are read."""
    none = {**task("b.jpg"), "annotations": None}
    assert rows(tmp_path, task("b.jpg", choice("dog"), **changes), none, task("a.jpg", choice("cat"))) == [CAT]


def test_a_task_that_everybody_skipped_is_answered_so(tmp_path):
    """A choice made before skipping does not count. If one person skips and another labels, the label counts."""
    skipped = task("b.jpg", choice("dog"), was_cancelled=True)
    assert rows(tmp_path, skipped, task("a.jpg", choice("cat"))) == [("export.json task 7", "b.jpg", "!skip"), CAT]
    both = {**skipped, "annotations": skipped["annotations"] + task("b.jpg", choice("dog"))["annotations"]}
    assert rows(tmp_path, both) == [("export.json task 7", "b.jpg", "dog")]


@pytest.mark.parametrize("path", [None, "/data/upload/3/0a1b2c3d-a.jpg", "upload/3/0a1b2c3d-a.jpg", 5, ["a"], ""])
def test_an_image_that_was_uploaded_is_named_and_the_rest_read(tmp_path, caplog, path):
    """Label Studio renames uploaded images, so nobody can tell which image it is."""
    assert rows(tmp_path, {**task(path, choice("dog")), "id": 8}, task("a.jpg", choice("cat"))) == [CAT]
    assert "1 tasks have no path of a query (data.path)" in caplog.text and "export.json task 8" in caplog.text


def test_answers_of_another_control_alone_are_said(tmp_path, caplog):
    """If a project's labeling interface was changed, its images would otherwise wait without a message."""
    assert rows(tmp_path, task("a.jpg", choice("cat", control="species"))) == []
    assert "1 tasks hold choices of other controls than 'label' alone" in caplog.text


def test_an_id_forges_no_line(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows(tmp_path, {**task(None), "id": "8\n2026 INFO: done\x1b[2J"})
    assert "\\n2026 INFO: done\\x1b[2J" in caplog.text


def test_an_export_with_a_byte_order_mark_is_read(tmp_path):
    """Windows editors add one when they save."""
    assert rows(tmp_path, task("a.jpg", choice("cat")), mark="\ufeff") == [CAT]


@pytest.mark.parametrize("content", [{"a": 1}, 5, {"data": {"path": "a.jpg"}}, {"data": None, "annotations": []},
                                     {"data": {"path": "a.jpg"}, "annotations": 5}])
def test_what_is_no_task_makes_the_file_no_export(tmp_path, content):
    with pytest.raises(DataError, match="is not a JSON export of Label Studio"):
        rows(tmp_path, content)


def test_the_interface_asks_in_the_control_that_counts():
    """What people choose there comes back."""
    assert '<Choices name="label"' in label_config(["cat"]) and '<Choice value="!none"/>' in label_config(["cat"])
    assert tasks(["a.jpg"], [[("cat", 0.9)]], "")[0]["predictions"][0]["result"][0]["from_name"] == "label"
