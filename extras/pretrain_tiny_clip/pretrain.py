"""Pre-train the embedded tiny CLIP and write its merges and weights beside `tiny_clip.json`.

Train and measure:      python -m extras.pretrain_tiny_clip.pretrain --seed 0 --output configs/models
Only measure the files: python -m extras.pretrain_tiny_clip.pretrain --evaluate --output configs/models

The shipped weights are the result of the first command: 1,900 steps in 544 s on one core of a Xeon, contrastive loss
0.955 over the last 100 steps. Zero-shot on the 1,797 real digits of scikit-learn, measured on the fp16 file read back
by open_clip, all classes together and the recall of each, in %:

    template                   all | zero  one  two three four five  six seven eight nine
    a photo of the digit {}.  70.9 |   95   50   56    59   97   63   84    40    88   79
    a photo of a {}.          69.8 |   93   49   54    59   97   62   81    36    89   79
    a handwritten {}.         71.0 |   93   52   57    60   97   64   81    40    89   78

No real digit is used in training, nor any statistic of one. But they decided how hard the drawn digits are: the values
in StreamSettings were set so that this figure is well above chance and well below what labels can reach.
The same command gives the same bytes again on the same machine; where rounding differs (another processor or torch
version) the figures may move by a point or so.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip import CLIP
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from .bank import Bank
from .evaluate import report
from .loss import AuxiliaryHeads, batch_losses
from .stream import StreamSettings
from .vocabulary import load_tokenizer, shortened_merges

# Written into the weights' header, since open_clip's model JSON has no place for it.
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "size": 32}


@dataclass(frozen=True)
class Schedule:
    """Length and rates of the training."""

    n_steps: int = 1900
    batch_size: int = 128
    learning_rate: float = 1.5e-3  # at its peak, after the warm-up
    n_warmup_steps: int = 150
    weight_decay: float = 0.05  # on matrices alone
    auxiliary_share: float = 0.8  # of the steps, over which the auxiliary heads fade out
    n_bank: int = 40_000  # examples held in memory
    n_redrawn: int = 64  # examples replaced after each step


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """Return the share of the peak rate at a step: a linear warm-up, then half a cosine down to 0."""
    if step < schedule.n_warmup_steps:
        return (step + 1) / schedule.n_warmup_steps
    done = (step - schedule.n_warmup_steps) / max(1, schedule.n_steps - schedule.n_warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(modules: list[nn.Module], schedule: Schedule) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and leaves biases, norms and the logit scale alone."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98))


def new_model(config: Path, seed: int) -> tuple[CLIP, AuxiliaryHeads]:
    """Return an untrained model and its heads; the global random state is as it was before."""
    open_clip.add_model_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(config.stem)
        return model, AuxiliaryHeads(model.visual.output_dim)


def train(model: CLIP, heads: AuxiliaryHeads, bank: Bank, schedule: Schedule) -> Iterator[float]:
    """Train in place and yield the contrastive loss of every step."""
    optimizer = build_optimizer([model, heads], schedule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, schedule))
    parameters = [*model.parameters(), *heads.parameters()]
    model.train()
    for step in range(schedule.n_steps):
        contrastive, auxiliary = batch_losses(model, heads, bank.batch(schedule.batch_size))
        auxiliary_weight = max(0.0, 1 - step / (schedule.auxiliary_share * schedule.n_steps))
        optimizer.zero_grad()
        (contrastive + auxiliary_weight * auxiliary).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        bank.refresh(schedule.n_redrawn)
        yield contrastive.item()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that others may be reading: they see the old content or the new, never a part."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def save_weights(model: CLIP, path: Path) -> None:
    """Write the weights in fp16 under open_clip's own names, the preprocessing in the file's header."""
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, save(weights, metadata={"preprocess_cfg": json.dumps(PREPROCESS)}))


def pretrain(output: Path, seed: int, settings: StreamSettings, schedule: Schedule) -> float:
    """Write the merges and the trained weights into `output`; return the mean loss of the last 100 steps."""
    write_atomically(output / "tiny_clip_bpe.txt.gz", shortened_merges())
    tokenizer = load_tokenizer(output / "tiny_clip_bpe.txt.gz")
    model, heads = new_model(output / "tiny_clip.json", seed)
    bank = Bank(schedule.n_bank, settings, tokenizer, seed)
    losses = []
    progress = tqdm(train(model, heads, bank, schedule), total=schedule.n_steps, desc="train", disable=None)
    for loss in progress:
        losses.append(loss)
        progress.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)
    save_weights(model, output / "tiny_clip.safetensors")
    last = losses[-100:]
    return sum(last) / len(last)


def main() -> None:
    """Parse the command line, train unless told only to evaluate, and print the figures of the written files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("configs/models"), help="folder that holds tiny_clip.json")
    parser.add_argument("--evaluate", action="store_true", help="measure the files in the folder; train nothing")
    arguments = parser.parse_args()
    if not (arguments.output / "tiny_clip.json").is_file():
        parser.error(f"{arguments.output} holds no tiny_clip.json; copy configs/models/tiny_clip.json there first")
    torch.set_num_threads(1)
    if not arguments.evaluate:
        start = time.perf_counter()
        loss = pretrain(arguments.output, arguments.seed, StreamSettings(), Schedule())
        print(f"loss over the last 100 steps {loss:.3f}, {time.perf_counter() - start:.0f} s")
    print(report(arguments.output))


if __name__ == "__main__":
    main()
