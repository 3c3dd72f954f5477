"""What workers on a Ray cluster take of its nodes."""

import pytest

from dassl.utils.errors import UserError
from scripts.experiments.cluster import shares

HEAD, CARD = {"CPU": 64.0, "memory": 1e11}, {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(("nodes", "asked", "n", "cpus", "gpus"), [
    ([{"CPU": 8}], None, 8, 1, None),
    ([{"CPU": 8}], 3, 3, 2, None),
    ([{"CPU": 8}], 99, 8, 1, None),
    ([{"CPU": 3}, {"CPU": 3}], 3, 3, 1, None),  # two CPUs each would leave the third without a place
    ([{"CPU": 3}, {"CPU": 3}], 2, 2, 3, None),
    ([{"CPU": 16, "GPU": 4}], None, 4, 4, 1),
    ([HEAD, CARD, CARD], None, 2, 8, 1),  # 40 of the 80 CPUs are nowhere beside a GPU
    ([HEAD, CARD, CARD], 3, 3, 4, 0.5),  # two thirds of a GPU would leave the third without a place
    ([HEAD, CARD], 6, 6, 1, 0.1666),  # Ray counts in ten thousandths: 0.1667 six times is more than a GPU
    ([HEAD, {"CPU": 2, "GPU": 1}], 5, 2, 1, 0.2),
    ([{}, {"CPU": 2}], None, 2, 1, None),
])
def test_each_worker_s_share_fits_on_a_node(nodes, asked, n, cpus, gpus):
    assert shares(nodes, asked) == (n, {"num_cpus": cpus} | ({} if gpus is None else {"num_gpus": gpus}))


@pytest.mark.parametrize(("nodes", "words"), [([HEAD, {"GPU": 1}], "a CPU beside its GPU"), ([{"memory": 1}], "a CPU for")])
def test_a_cluster_without_room_for_any_worker_is_said(nodes, words):
    with pytest.raises(UserError, match=words):
        shares(nodes, None)
