"""Time a step of each learner that tunes the image tower, against plain open_clip's forward and backward of the same batch.

    OMP_NUM_THREADS=1 python -m benchmarks.image_steps > benchmarks/image_steps.md

ViT-B/32 of random weights in fp32, DTD's 47 classes, 32 images that are in memory. Plain open_clip encodes the images, with as
many prompt tokens behind theirs in every block as the learner has, and each text of a class at 77 tokens; its gradients reach
the first block, where prompts enter. Texts that are not tuned are encoded once, ahead of the steps, on both sides. Of
ours, patches are embedded ahead too, as in a run on the fixed view, and the optimizer's step is included. Learners
have the sizes of the MaPLe repository, where that names them. All take turns; a figure is the median CPU seconds of one thread.
GFLOP are those of the matrix products of our step, as torch counts them. With what a core can do they give the least time.
"""

import argparse
import platform
from collections.abc import Callable

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.learner_speed import medians
from benchmarks.trainers import build_clip, class_names
from benchmarks.trainers_gpu import Sizes, one_step
from trainers.clip.frozen_clip import FrozenCLIP, normalized

SIZES = Sizes("ViT-B/32")
TUNED = {"VPT": (8, 0), "MaPLe": (2, 1), "IVLP": (2, 1), "DualPrompt": (20, 2)}  # prompt tokens of an image, texts of a class


def plain_step(clip: FrozenCLIP, n_tokens: int, n_texts: int) -> Callable[[], Tensor]:
    """Return a function that does a forward and a backward pass by open_clip's own code and returns the loss."""
    model = build_clip().model.requires_grad_(False)  # of its own, which is changed below
    images = torch.randn(SIZES.batch, 3, *clip.preprocessing.size, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(SIZES.batch) % SIZES.n_classes
    tokens = clip.tokenizer([f"a photo of a {name}." for name in class_names(SIZES.n_classes)])
    with torch.no_grad():
        fixed = normalized(model.encode_text(tokens))
    prompts = torch.zeros(1, n_tokens, model.visual.transformer.width, requires_grad=True)
    model.visual.ln_pre.register_forward_hook(lambda _, __, x: torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1))
    model.positional_embedding.requires_grad_(n_texts > 0)

    def step() -> Tensor:
        prompts.grad = model.positional_embedding.grad = None
        texts = sum(normalized(model.encode_text(tokens)) for _ in range(n_texts)) if n_texts else fixed
        loss = F.cross_entropy(clip.logit_scale * normalized(model.encode_image(images)) @ texts.T, targets)
        loss.backward()
        return loss

    return step


def row(name: str, n_turns: int) -> list:
    """Return a learner's row: CPU seconds of plain open_clip and of its step, by torch's product and by oneDNN's; ratios.

    At the end stand the GFLOP of the step, and what it does of them in a second by oneDNN's product.
    """
    clip, with_onednn = build_clip(), build_clip()
    with_onednn.use_onednn()
    ours = one_step(name, clip, SIZES)
    found = medians({"plain": plain_step(clip, *TUNED[name]), "ours": ours,
                     "onednn": one_step(name, with_onednn, SIZES)}, n_turns)
    with FlopCounterMode(display=False) as counter:
        ours()
    gflop = counter.get_total_flops() / 1e9
    return [name, *found.values(), found["plain"] / found["ours"], found["plain"] / found["onednn"], gflop,
            gflop / found["onednn"]]


def main(argv: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--learners", nargs="+", choices=TUNED, default=list(TUNED))
    flags.add_argument("--turns", type=int, default=5)
    arguments = flags.parse_args(argv)
    torch.set_num_threads(1)
    rows = [row(name, arguments.turns) for name in arguments.learners]
    print("# Steps of learners that tune the image tower\n\nCommand: `OMP_NUM_THREADS=1 python -m benchmarks.image_steps > "
          "benchmarks/image_steps.md`\n")
    print(f"ViT-B/32, random weights, fp32, one thread of {platform.machine()}, torch {torch.__version__}; {SIZES.n_classes} "
          f"classes, {SIZES.batch} images; medians of\n{arguments.turns} turns, CPU seconds. The head of the script says what "
          "plain open_clip does. \"times\" is how many of our steps take as long\nas one of plain open_clip's; oneDNN is "
          "`MODEL.LINEAR onednn`.\n")
    print(tabulate(rows, ["learner", "plain", "ours", "ours, oneDNN", "times", "times, oneDNN", "GFLOP", "GFLOP/s, oneDNN"],
                   tablefmt="github", floatfmt=("", *[".2f"] * 5, ".0f", ".0f")))


if __name__ == "__main__":
    main()
