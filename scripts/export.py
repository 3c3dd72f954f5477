"""Export the classifier of a run as one folder that does not need this project.

    python scripts/export.py output/photos heron_classifier
    python scripts/export.py output/photos/prompts/round_002.safetensors classifier_of_round_2

RUN is a run's output folder, which stands for its last finished round's model, or one of its prompts files. DIR is a new
folder: model.onnx (float32 images in [0, 1]) and model_uint8.onnx (pixels as Pillow gives them), from any number of images of
the input's size to probabilities; weights.bin, the weights of both; classifier.safetensors, the vectors that represent the
classes; classifier.json, the class names, how images are resized and cropped, and the model's origin; README.md, how to use
it. It needs `pip install onnx onnxscript`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from dassl.config.cli import Parser, command
from dassl.utils.errors import UserError
from dassl.utils.events import stop_on_sigterm, stopped_by
from dassl.utils.files import check_new_folder, new_folder, sha256_of, write_json, write_text
from dassl.utils.logging import warnings_on_stderr
from dassl.utils.paths import expanded
from scripts.exporting.readme import readme
from scripts.predict import add_model_flags, pairs_of
from trainers.clip.architectures import custom_models
from trainers.core.job import Use, use_of

if TYPE_CHECKING:
    from dassl.data.transforms import Preprocessing
    from trainers.core.classifier import Classifier


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", metavar="RUN", help="a run's output folder, or one of its prompts files")
    flags.add_argument("folder", metavar="DIR", type=expanded, help="a new folder")
    add_model_flags(flags)
    return flags


def described(use: Use, classifier: "Classifier") -> dict[str, Any]:
    """Return the content of `classifier.json`."""
    from trainers.clip.backbones import open_clip_name, weights_of
    from trainers.core.export import MODEL, MODEL_UINT8, class_weights, is_plain

    seen, backbone, clip = classifier.reading.preprocessing, use.cfg.MODEL.BACKBONE, classifier.model.clip
    height, width = seen.size
    rounds = [own for own in use.record.rounds if any(Path(name).name == use.model.name for name in own.files)]
    return {
        "class_names": list(classifier.classnames),
        "learner": use.cfg.TRAINER.NAME,
        "is_linear_on_clip_features": is_plain(classifier),
        "scale": float(class_weights(classifier)["scale"]),
        "inputs": {MODEL: f"images: float32 [N, 3, {height}, {width}] in [0, 1]",
                   MODEL_UINT8: f"pixels: uint8 [N, {height}, {width}, 3]"},
        "preprocessing": {
            "size": [height, width], **resizing(seen), "interpolation": seen.interpolation,
            "mean": list(seen.mean), "std": list(seen.std), "exif_rotation": seen.decoding.exif_rotation,
            "transparent_on": [255, 255, 255]},
        "came_from": {
            "run": use.folder.name, "model": use.model.name, "model_sha256": sha256_of(use.model),
            "dataset": use.record.dataset["name"], "n_labeled": rounds[-1].n_labeled if rounds else None,
            "metrics": rounds[-1].metrics if rounds else None,
            "backbone": {"name": backbone.NAME, "pretrained": backbone.PRETRAINED, "precision": use.cfg.MODEL.PREC,
                         "weights": clip.fingerprint, "open_clip_name": open_clip_name(clip),
                         "open_clip_pretrained": weights_of(backbone.NAME, backbone.PRETRAINED)},
            "certificate": use.record.certificate, "commit": use.record.environment.get("commit", "unknown")},
    }


def resizing(seen: "Preprocessing") -> dict[str, Any]:
    """Return how images get the input's size, for `classifier.json`, see `Preprocessing`."""
    more = {"squash": {}, "longest": {"frame": "center", "fill": seen.fill}, "shortest": {"crop": "center"}}[seen.resize]
    if seen.resize == "shortest" and seen.size[0] == seen.size[1]:
        more |= {"resize_shorter_side_to": seen.size[0]}
    return {"resize": seen.resize} | more


def export(use: Use, folder: Path) -> None:
    """Write the folder."""
    from safetensors.torch import save_file

    from trainers.core.classifier import build_classifier
    from trainers.core.export import check_export, class_weights, write_onnx

    check_export()
    classifier = build_classifier(use.cfg, use.model, use.record.dataset["classnames"])
    about = described(use, classifier)
    with new_folder(folder) as new:
        write_onnx(classifier, new)
        save_file(class_weights(classifier), new / "classifier.safetensors",
                  metadata={"class_names": json.dumps(list(classifier.classnames))})
        write_json(new / "classifier.json", about)
        write_text(new / "README.md", readme(about))
        if about["is_linear_on_clip_features"] and (own := custom_models().get(use.cfg.MODEL.BACKBONE.NAME)):
            shutil.copyfile(own, new / own.name)  # an architecture that open_clip does not know
        for file in new.iterdir():
            file.chmod(0o644)  # safetensors and onnx write files that only the owner can read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, as `train.py`'s."""
    try:
        arguments = parser().parse_args(argv)
        check_new_folder(arguments.folder)
        with warnings_on_stderr():
            use = use_of(arguments.run, [*pairs_of(arguments), ("USE_CUDA", "false")])
            stop_on_sigterm()
            export(use, arguments.folder)
    except UserError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = stopped_by(error)
        print(f"\nexport.py: stopped by {by}; nothing was written", file=sys.stderr)
        return code
    print(arguments.folder)
    return 0


if __name__ == "__main__":
    command("export.py", main)
