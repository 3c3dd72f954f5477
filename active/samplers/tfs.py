"""TFS: tail first, the most uncertain image predicted to be of the class with fewest labels.

Source: the tail-first sampling of ALOR (its authors' code, leowangtong/ALOR): until the query is full, take the class with
fewest labels that is still predicted somewhere, ask its image of largest entropy, and count that image as one of the class.
That is PCB, repaired, with entropy as its base and the whole pool as candidates. The first round is the sampler itself, on
zero-shot probabilities.
What the authors' code gets wrong: it asks for exactly one label per class; 200 classes are hard-coded; labeled images are
removed from a list while it is being read, by parts of their names; it may return fewer rows than asked for.
"""

from active.context import Query, SelectionContext
from active.registry import SAMPLERS
from active.samplers.entropy import entropy
from active.samplers.pcb import pcb


@SAMPLERS.register("tfs")
def tfs(ctx: SelectionContext) -> Query:
    """Return `n_query` pool rows, balanced over labels so far and predicted classes."""
    return pcb(ctx, base=entropy, gamma=1.0)
