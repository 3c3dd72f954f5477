"""A classifier for use elsewhere: its whole function as ONNX, and what classes are compared by as plain tensors.

There are two graphs on one file of weights, since an input of ONNX has one type:

- `model.onnx`: `images`, float32 [N, 3, height, width] in [0, 1], to `probabilities`, float32 [N, C];
- `model_uint8.onnx`: `pixels`, uint8 [N, height, width, 3] as Pillow gives them, to the same.

Normalization, prompts, maps of features, caches, biases and the temperature are inside; resizing and cropping are not.
"""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError
from trainers.core.classifier import Classifier
from trainers.core.inputs import encoder
from trainers.learner import Learner

MODEL, MODEL_UINT8, WEIGHTS = "model.onnx", "model_uint8.onnx", "weights.bin"
NEEDED = ("onnx", "onnxscript")
IN_FILE = 1024  # bytes from which a tensor stands in the file of weights
NOISY = ("onnx_ir", "onnxscript", "torch.onnx", "torch.export")


class Function(nn.Module):
    """The function of a classifier: images [N, 3, height, width] of values in [0, 1] to probabilities [N, C], in float32."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.classifier = classifier
        self.visual, self.learner = classifier.model.clip.model.visual, classifier.model.learner  # so that weights are known
        preprocessing = classifier.reading.preprocessing
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        model, own = self.classifier.model, self.classifier
        read = encoder(model.clip, self.learner.reads)((images - self.mean) / self.std)
        return model.logits(model.image_features(read, own.prompts), own.class_features).float().softmax(1)


def check_export() -> None:
    """Raise UserError unless the libraries that write ONNX are there."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"an export needs {' and '.join(missing)}: pip install {' '.join(NEEDED)}")


def write_onnx(classifier: Classifier, folder: Path) -> None:
    """Write both graphs and their weights into a folder. The classifier's towers are float32 from then on.

    Weights of half precision are kept as they are, and computed with in float32.
    """
    import onnx

    classifier.model.clip.model.visual.float()
    model = _traced(classifier)
    onnx.helper.set_model_props(model, {"class_names": json.dumps(classifier.classnames)})
    onnx.save_model(model, folder / MODEL, save_as_external_data=True, location=WEIGHTS, size_threshold=IN_FILE)
    _read_bytes(model)
    (folder / MODEL_UINT8).write_bytes(model.SerializeToString())


def class_weights(classifier: Classifier) -> dict[str, Tensor]:
    """Return what image features are compared by: probabilities are the softmax of scale * (features @ texts.T + bias).

    `texts` [C, D], `bias` [C], `scale` []; of learners with logits of their own that is not all.
    """
    model, found = classifier.model, classifier.class_features
    texts = found.texts.detach().cpu().float().contiguous()
    bias = torch.zeros(len(texts)) if found.bias is None else found.bias.detach().cpu().float().contiguous()
    return {"texts": texts, "bias": bias, "scale": torch.tensor(model.clip.logit_scale / model.temperature)}


def is_plain(classifier: Classifier) -> bool:
    """Tell whether `class_weights` and the features of the frozen CLIP are the whole classifier."""
    learner = type(classifier.model.learner)
    return (classifier.model.learner.reads == "features" and learner.features is Learner.features
            and learner.logits is Learner.logits)


def _traced(classifier: Classifier) -> Any:
    """Return the graph, an onnx.ModelProto, for any number of images."""
    height, width = classifier.reading.preprocessing.size
    images = torch.linspace(0, 1, 2 * 3 * height * width).view(2, 3, height, width)
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad(), _quiet():
        program = torch.export.export(Function(classifier).eval(), (images,), dynamic_shapes=shapes, strict=False)
        model = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=["probabilities"],
                                  verbose=False).model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]  # traces of this code, with the paths of this machine
    return model


def _read_bytes(model: Any) -> None:
    """Let a graph read `pixels`, see the head of this file, and make `images` of them."""
    from onnx import TensorProto, helper

    graph = model.graph
    batch, _, height, width = (place.dim_param or place.dim_value for place in graph.input[0].type.tensor_type.shape.dim)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, height, width, 3]))
    graph.initializer.append(helper.make_tensor("pixels_most", TensorProto.FLOAT, [], [255.0]))
    nodes = (("Cast", ["pixels"], "pixels_float", {"to": TensorProto.FLOAT}),
             ("Div", ["pixels_float", "pixels_most"], "pixels_unit", {}),
             ("Transpose", ["pixels_unit"], "images", {"perm": [0, 3, 1, 2]}))
    for place, (kind, inputs, output, attributes) in enumerate(nodes):
        graph.node.insert(place, helper.make_node(kind, inputs, [output], name=f"pixels/{kind}", **attributes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from talking of its own insides."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [own.level for own in loggers]
    for own in loggers:
        own.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for own, level in zip(loggers, levels, strict=True):
            own.setLevel(level)
