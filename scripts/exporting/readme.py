"""The README of an exported classifier, with code to copy."""

from collections.abc import Mapping
from typing import Any

from trainers.clip.architectures import custom_models

TEXT = """# {title}

An image classifier of {n_classes} classes, exported from a run of the learner {learner} on {backbone}. It needs nothing of the
project that made it.

| file | what it is |
|---|---|
| `model.onnx` | from `images`, float32 [N, 3, {height}, {width}] in [0, 1], to `probabilities` [N, {n_classes}] |
| `model_uint8.onnx` | the same from `pixels`, uint8 [N, {height}, {width}, 3], as Pillow gives them |
| `weights.bin` | the weights of both, which must lie beside them |
| `classifier.json` | class names in the order of the probabilities, how images are resized and cropped, where this came from |
| `classifier.safetensors` | `texts` [{n_classes}, D], `bias` and `scale`: what image features are compared by |

Normalization is inside. An image is {turned} and {resized}.
In training, transparent pixels lay on white.

## With onnxruntime

`pip install onnxruntime pillow`

```python
{onnxruntime}
```

## With open_clip

{open_clip}"""

ONNXRUNTIME = """import json
from pathlib import Path
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

about = json.loads(Path("classifier.json").read_text())
height, width = about["preprocessing"]["size"]
image = {image}.convert("RGB")
{view}
session = onnxruntime.InferenceSession("model_uint8.onnx")
probabilities = session.run(None, {{"pixels": np.asarray(image)[None]}})[0][0]
print(about["class_names"][probabilities.argmax()], probabilities.max())"""

# By the way to resize, in words and in code; "shortest" rounds differently for a square.
RESIZED = {
    "square": "resized so that its shorter side is {height} pixels ({interpolation}), and cropped around its center to\n"
              "{height} x {width}",
    "shortest": "resized in its shape so that it covers {height} x {width} ({interpolation}), and cropped around\n"
                "its center to it",
    "squash": "stretched to {height} x {width} ({interpolation})",
    "longest": "resized in its shape so that it fits into {height} x {width} ({interpolation}), in the middle of a frame\n"
               "of gray {fill}"}
SCALED = """ratio = {ratio}(image.height / height, image.width / width)
w, h = (max(1, round(n / ratio)) for n in image.size)"""
CROPPED = """left, top = round((w - width) / 2), round((h - height) / 2)
image = image.resize((w, h), Image.Resampling.{resampling}).crop((left, top, left + width, top + height))"""
VIEW = {
    "square": f"w, h = (width * n // min(image.size) for n in image.size)\n{CROPPED}",
    "shortest": f"{SCALED.replace('{ratio}', 'min')}\n{CROPPED}",
    "squash": "image = image.resize((width, height), Image.Resampling.{resampling})",
    "longest": f"{SCALED.replace('{ratio}', 'max')}\nframe = Image.new('RGB', (width, height), ({{fill}},) * 3)\n"
               "frame.paste(image.resize((w, h), Image.Resampling.{resampling}), ((width - w) // 2, (height - h) // 2))\n"
               "image = frame"}

OPEN_CLIP = """`pip install open_clip_torch`

```python
import json
from pathlib import Path
import open_clip
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

torch.set_grad_enabled(False)
about, own = json.loads(Path("classifier.json").read_text()), load_file("classifier.safetensors"){custom}
model, _, view = open_clip.create_model_and_transforms(
    {name!r}, pretrained={pretrained!r},
    image_mean={mean}, image_std={std}, image_interpolation={interpolation!r}, image_resize_mode={resize!r}){frame}
image = {image}
features = model.eval().encode_image(view(image)[None])
features = features / features.norm(dim=-1, keepdim=True)
probabilities = (own["scale"] * (features @ own["texts"].T + own["bias"])).softmax(-1)[0]
print(about["class_names"][probabilities.argmax()], float(probabilities.max()))
```
"""

CUSTOM = """
open_clip.add_model_config("{name}.json")"""

FRAME = """
view.transforms[1].fill = {fill}"""

NOT_PLAIN = """Not possible: {learner} changes the image features themselves, or what is made of them, so that CLIP's own
features and the weights in `classifier.safetensors` are not the whole classifier. `model.onnx` is.
"""


ELSEWHERE = """Not possible: the backbone is a checkpoint of transformers or a folder, which open_clip does not load by a name.
`model.onnx` is the whole classifier.
"""

NEAREST = """Not possible: open_clip does not resize to the nearest pixel, as this classifier's images are.
"""


def readme(about: Mapping[str, Any]) -> str:
    """Return the text for the content of `classifier.json`."""
    seen, came_from = about["preprocessing"], about["came_from"]
    backbone, (height, width) = came_from["backbone"], seen["size"]
    opened, upright = 'Image.open("photo.jpg")', seen["exif_rotation"]
    kind = "square" if "resize_shorter_side_to" in seen else seen["resize"]
    words = {"image": f"ImageOps.exif_transpose({opened})" if upright else opened, "resize": seen["resize"],
             "fill": seen.get("fill", 0), "height": height, "width": width,
             "interpolation": seen["interpolation"], "resampling": seen["interpolation"].upper(), "learner": about["learner"],
             "name": backbone["open_clip_name"], "pretrained": backbone["open_clip_pretrained"],
             "mean": tuple(seen["mean"]), "std": tuple(seen["std"]),
             "custom": CUSTOM.format(**backbone) if backbone["name"] in custom_models() else ""}
    words |= {"view": VIEW[kind].format(**words), "resized": RESIZED[kind].format(**words),
              "frame": FRAME.format(**words) if words["fill"] else ""}
    open_clip = OPEN_CLIP if seen["interpolation"] != "nearest" else NEAREST
    open_clip = open_clip if words["name"] and words["pretrained"] else ELSEWHERE
    open_clip = open_clip if about["is_linear_on_clip_features"] else NOT_PLAIN
    return TEXT.format(
        title=f"{came_from['run']}: {came_from['model']}".replace("\n", " "), n_classes=len(about["class_names"]),
        backbone=backbone["name"], onnxruntime=ONNXRUNTIME.format(**words), open_clip=open_clip.format(**words),
        turned="turned upright by its EXIF tag" if upright else "left as it is stored",
        **{key: words[key] for key in ("height", "width", "resized", "learner")})
