"""Records written by hand, as runs would leave them."""

from pathlib import Path
from typing import Any

from active.record.results import RoundRecord, RunResult, query_hash


def write_run(folder: Path, accuracies: list[float], *, dataset: str = "Toy", learner: str = "CoOp", backbone: str = "tiny",
              method: str = "random", seed: int = 1, query_size: str = "1%", label: str = "", status: str = "finished",
              n_train: int = 100, n_query: int = 10, n_rounds: int | None = None, n_saved: int = 0, zero_shot: float = 0.3,
              certificate: dict[str, str] | None = None, **config: Any) -> Path:
    """Write the record of a run with one round for each accuracy into a folder, and return the file.

    Of the `n_query` labels of each round but the first, `n_saved` are the model's own and not paid for. `n_rounds` were
    asked for, or just these.
    """
    tree = {"SEED": seed, "DATASET": {"NAME": dataset, "ROOT": "data"}, "TRAINER": {"NAME": learner},
            "MODEL": {"BACKBONE": {"NAME": backbone}, "PREC": "fp32"}, "LABEL": {"METHOD": label, "LEARNER": ""},
            "ACTIVE": {"SAMPLER": method, "QUERY_SIZE": query_size, "ROUNDS": n_rounds or len(accuracies)}, **config}
    rounds = []
    for index, accuracy in enumerate(accuracies):
        queried = [f"toy/{seed}_{index}_{row}.png" for row in range(n_query)]
        n_labeled = n_query * (index + 1)
        rounds.append(RoundRecord(
            round=index, sampler=method, queried=queried, n_labeled=n_labeled, n_paid=n_labeled - n_saved * index,
            n_pseudo=n_saved * index, n_saved=n_saved * index,
            metrics={"accuracy": accuracy, "macro_f1": accuracy, "ece": 0.1},
            class_counts=[n_labeled // 2, n_labeled - n_labeled // 2],
            query_hash=query_hash(queried), seconds={"select": 0.1, "fit": 1.0, "evaluate": 0.1}, peak_memory_mb=100.0))
    result = RunResult(tree, {"torch": "2", "python": "3"}, {"name": dataset, "n_train": n_train, "n_test": 50, "n_classes": 2,
                       "classnames": ["a", "b"]}, {"accuracy": zero_shot}, rounds, status,
                       certificate=certificate or {"code": "c", "data": "d", "weights": "w"})
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder / "results.json")
    return folder / "results.json"
