"""Label Studio: a query as tasks with predictions, and its JSON export as answers.

Source: "Label Studio Task Format" and "Import pre-annotated data", labelstud.io/guide. Images are served by Label Studio's
local files storage, with the data root as its document root; `docs/people.md` has the steps.
"""

import html
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from active.oracles.contact_sheet import Guesses
from dassl.data.answers import MARK, WORDS
from dassl.data.sheets import LabelRow
from dassl.utils.errors import DataError
from dassl.utils.files import read_json
from dassl.utils.text import printable

LOCAL_FILES = "/data/local-files/?d="
CONTROL = "label"  # the name of the choice that counts, in `label_config`
UPLOADED = re.compile(r"(^|/)upload/\d+/[0-9a-f]{8}-")  # where Label Studio keeps images uploaded into a project
N_SHOWN = 10

logger = logging.getLogger(__name__)


def label_config(classnames: Sequence[str]) -> str:
    """Return the labeling interface, XML: one image, one choice of the class names, "none of these" or "unsure"."""
    names = [*classnames, *(MARK + word for word in WORDS if word != "skip")]  # "skip" has a button in Label Studio
    choices = "\n".join(f'    <Choice value="{html.escape(name)}"/>' for name in names)
    control = f'<Choices name="{CONTROL}" toName="image" choice="single" showInline="true">'
    return f'<View>\n  <Image name="image" value="$image"/>\n  {control}\n{choices}\n  </Choices>\n</View>\n'


def tasks(paths: Sequence[str], guesses: Sequence[Guesses], model_version: str) -> list[dict[str, Any]]:
    """Return a task per image: where Label Studio finds it, its path (the id), and the first guess as prediction."""
    return [{"data": {"image": LOCAL_FILES + quote(path, errors="surrogateescape"), "path": path},
             "predictions": [{"model_version": model_version, "score": own[0][1], "result": [_choice(own[0][0])]}]}
            for path, own in zip(paths, guesses, strict=True)]


def export_rows(file: Path) -> list[LabelRow]:
    """Return (place, path, class name) of each choice of the control `label` in a JSON export.

    A task that everybody skipped, so that all its annotations are canceled, is answered by "!skip". Other controls (remarks,
    relations, other choices) do not count. Tasks without the path of a query, such as images that were uploaded into Label
    Studio, are named in the log and passed over. Raises DataError if the file is not such an export.
    """
    content = read_json(file)
    try:
        tasks = [(f"{file.name} task {task.get('id', number)}", _path(task), tuple(task["annotations"] or ()))
                 for number, task in enumerate(content, start=1)]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a JSON export of Label Studio (in the format JSON, not JSON-MIN): "
                        f"{type(error).__name__}: {error}") from error
    _say_passed_over(file, [place for place, path, _ in tasks if not path], "have no path of a query (data.path), as images "
                     "that were uploaded into Label Studio have none")
    _say_passed_over(file, [place for place, path, annotations in tasks if path and _names(annotations, others=True)
                            and not _names(annotations)], "hold choices of other controls than 'label' alone")
    return [(place, path, name) for place, path, annotations in tasks if path
            for name in _names(annotations) or [MARK + "skip"] * _is_skipped(annotations)]


def _path(task: dict[str, Any]) -> str:
    """Return the path of a task's image, "" if the task is not one that was written for a query."""
    path = task["data"].get("path")
    return path if isinstance(path, str) and not UPLOADED.search(path) else ""


def _is_skipped(annotations: Sequence[Any]) -> bool:
    return bool(annotations) and all(isinstance(own, dict) and own.get("was_cancelled") for own in annotations)


def _names(annotations: Sequence[Any], *, others: bool = False) -> list[str]:
    """Return the choices for an image in the control `label`, or in the others; canceled annotations do not count."""
    results = [result for annotation in annotations if isinstance(annotation, dict) and not annotation.get("was_cancelled")
               for result in annotation.get("result") or () if isinstance(result, dict) and result.get("type") == "choices"]
    choices = [result["value"].get("choices") for result in results
               if (result.get("from_name") != CONTROL) == others and isinstance(result.get("value"), dict)]
    return [str(name) for own in choices if isinstance(own, list) for name in own]


def _say_passed_over(file: Path, places: Sequence[str], why: str) -> None:
    if places:
        logger.warning("%s: %d tasks %s; they are passed over: %s%s", file, len(places), why,
                       ", ".join(map(printable, places[:N_SHOWN])), ", ..." if len(places) > N_SHOWN else "")


def _choice(name: str) -> dict[str, Any]:
    return {"from_name": CONTROL, "to_name": "image", "type": "choices", "value": {"choices": [name]}}
