"""The README of an exported classifier, with lines to be copied."""

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

Normalization is inside. An image is {turned}, resized so that its shorter side is {side} pixels
({interpolation}), and cropped around its center to {height} x {width}. In training, transparent pixels lay on white.

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
(height, width), side = about["preprocessing"]["size"], {side}
image = {image}.convert("RGB")
w, h = (side * n // min(image.size) for n in image.size)
left, top = round((w - width) / 2), round((h - height) / 2)
image = image.resize((w, h), Image.Resampling.{resampling}).crop((left, top, left + width, top + height))
session = onnxruntime.InferenceSession("model_uint8.onnx")
probabilities = session.run(None, {{"pixels": np.asarray(image)[None]}})[0][0]
print(about["class_names"][probabilities.argmax()], probabilities.max())"""

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
    image_mean={mean}, image_std={std}, image_interpolation={interpolation!r})
image = {image}
features = model.eval().encode_image(view(image)[None])
features = features / features.norm(dim=-1, keepdim=True)
probabilities = (own["scale"] * (features @ own["texts"].T + own["bias"])).softmax(-1)[0]
print(about["class_names"][probabilities.argmax()], float(probabilities.max()))
```
"""

CUSTOM = """
open_clip.add_model_config("{name}.json")"""

NOT_PLAIN = """Not possible: {learner} changes the image features themselves, or what is made of them, so that CLIP's own
features and the weights in `classifier.safetensors` are not the whole classifier. `model.onnx` is.
"""


NEAREST = """Not possible: open_clip does not resize to the nearest pixel, as this classifier's images are.
"""


def readme(about: Mapping[str, Any]) -> str:
    """Return the text for what `classifier.json` says."""
    seen, came_from = about["preprocessing"], about["came_from"]
    backbone, (height, width) = came_from["backbone"], seen["size"]
    opened, upright = 'Image.open("photo.jpg")', seen["exif_rotation"]
    words = {"image": f"ImageOps.exif_transpose({opened})" if upright else opened, "side": seen["resize_shorter_side_to"],
             "interpolation": seen["interpolation"], "resampling": seen["interpolation"].upper(), "learner": about["learner"],
             "name": backbone["open_clip_name"], "pretrained": backbone["open_clip_pretrained"],
             "mean": tuple(seen["mean"]), "std": tuple(seen["std"]),
             "custom": CUSTOM.format(**backbone) if backbone["name"] in custom_models() else ""}
    open_clip = OPEN_CLIP if seen["interpolation"] != "nearest" else NEAREST
    open_clip = open_clip if about["is_linear_on_clip_features"] else NOT_PLAIN
    return TEXT.format(
        title=f"{came_from['run']}: {came_from['model']}".replace("\n", " "), height=height, width=width,
        n_classes=len(about["class_names"]), backbone=backbone["name"], onnxruntime=ONNXRUNTIME.format(**words),
        turned="turned upright by its EXIF tag" if upright else "left as it is stored", open_clip=open_clip.format(**words),
        **{key: words[key] for key in ("side", "interpolation", "learner")})
