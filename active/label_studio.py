"""Label Studio: a query as tasks with predictions, and its JSON export as answers.

Source: "Label Studio Task Format" and "Import pre-annotated data", labelstud.io/guide. Images are served by Label Studio's
local files storage, with the data root as its document root; `docs/people.md` has the steps.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from active.contact_sheet import Guesses
from dassl.data.labels import LabelRow
from dassl.utils.errors import DataError
from dassl.utils.files import read_json

LOCAL_FILES = "/data/local-files/?d="


def label_config(classnames: Sequence[str]) -> str:
    """Return the labeling interface, XML: one image, one choice of the class names."""
    choices = "\n".join(f'    <Choice value="{html.escape(name)}"/>' for name in classnames)
    return ('<View>\n  <Image name="image" value="$image"/>\n'
            f'  <Choices name="label" toName="image" choice="single" showInline="true">\n{choices}\n  </Choices>\n</View>\n')


def tasks(paths: Sequence[str], guesses: Sequence[Guesses], model_version: str) -> list[dict[str, Any]]:
    """Return a task an image: where Label Studio finds it, its path (the id), and the first guess as prediction."""
    return [{"data": {"image": LOCAL_FILES + quote(path, errors="surrogateescape"), "path": path},
             "predictions": [{"model_version": model_version, "score": own[0][1], "result": [_choice(own[0][0])]}]}
            for path, own in zip(paths, guesses, strict=True)]


def export_rows(file: Path) -> list[LabelRow]:
    """Return (place, path, class name) of each choice in a JSON export; skipped tasks and remarks in text have none.

    Raises DataError if the file is no such export.
    """
    content = read_json(file)
    try:
        return [(f"{file.name} task {task.get('id', number)}", str(task["data"]["path"]), name)
                for number, task in enumerate(content, start=1)
                for annotation in task["annotations"] for name in _names(annotation)]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a JSON export of Label Studio (in the format JSON, not JSON-MIN): "
                        f"{type(error).__name__}: {error}") from error


def _names(annotation: dict[str, Any]) -> list[str]:
    if annotation.get("was_cancelled"):
        return []
    return [str(name) for result in annotation["result"] for name in result["value"].get("choices", ())]


def _choice(name: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]}}
