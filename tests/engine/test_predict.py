"""Encoding all images, row by row."""

import pytest
import torch
from torch import Tensor, nn

from dassl.engine.predict import in_batches, in_parts, predict, predict_some
from dassl.utils.errors import UserError

BATCH_SIZE = 4


def images(n_images: int) -> Tensor:
    return torch.randn(n_images, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def encode(batch: Tensor) -> Tensor:
    return batch.flatten(1)[:, :5] * 2


@pytest.mark.parametrize("n_images", [1, 3, 4, 5, 7, 8, 9])
def test_row_i_is_image_i_whatever_the_last_batch_holds(n_images):
    """Row 7 of the faults table: N mod B is 0, 1 and B - 1, with one batch and with several."""
    pool = images(n_images)
    rows = predict(pool.split(BATCH_SIZE), encode, n_rows=n_images)
    assert torch.equal(rows, torch.stack([encode(pool[i:i + 1])[0] for i in range(n_images)]))


@pytest.mark.parametrize(("n_announced", "reason"), [(6, "6 images announced, but 5 came"), (4, "more than the 4"), (0, "0")])
def test_another_number_of_images_than_announced_is_refused(n_announced, reason):
    """Row 7 of the faults table: no row is left unwritten, dropped or shifted."""
    with pytest.raises(RuntimeError, match=reason):
        predict(images(5).split(BATCH_SIZE), encode, n_rows=n_announced)


def test_no_images_where_some_were_announced_are_refused():
    """An empty loader does not pass for an empty split."""
    with pytest.raises(RuntimeError, match="5 images announced, but 0 came"):
        predict([], encode, n_rows=5)


def test_an_encoder_that_drops_a_row_is_refused():
    """Rows are counted, not batches."""
    with pytest.raises(RuntimeError, match="5 images announced, but 3 came"):
        predict(images(5).split(BATCH_SIZE), lambda batch: encode(batch[1:]), n_rows=5)


SOME = [[0], [3], [7], [8], [3, 4], [0, 1, 2, 3], [2, 5, 6, 8], list(range(9)), []]


@pytest.mark.parametrize("rows", SOME)
@pytest.mark.parametrize("n_fit", [4, 3, 1])
def test_some_images_are_encoded_in_their_places(rows, n_fit):
    """Row 8: batches have the usual size, so results that depend on the batch shape stay the same."""
    pool, sizes = images(9), []

    def encode_few(batch: Tensor) -> Tensor:
        if len(batch) > n_fit:
            raise torch.OutOfMemoryError("no room")
        sizes.append(len(batch))
        return encode(batch)

    wanted = in_batches(rows, BATCH_SIZE)
    parts = predict_some([pool[own] for own in wanted], encode_few, wanted, batch_size=BATCH_SIZE, n_rows=9, description="some")
    assert torch.equal(torch.cat([torch.empty(0, 5), *parts]), encode(pool)[rows])
    assert sum(sizes) == sum(min(BATCH_SIZE, 9 - row) for row in {row // BATCH_SIZE * BATCH_SIZE for row in rows})


def test_some_images_have_the_bits_of_a_pass_over_all(clip):
    """Row 8: a changed image is encoded alone, and that must not show in its features."""
    pool = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    everything = predict(pool.split(5), clip.encode_image, n_rows=13)
    for rows in ([7], [0, 4, 12], [3, 4, 5, 6, 7, 8, 9]):
        wanted = in_batches(rows, 5)
        parts = predict_some([pool[own] for own in wanted], clip.encode_image, wanted, batch_size=5, n_rows=13, description="")
        assert torch.equal(torch.cat(list(parts)), everything[rows])


def test_fewer_images_than_asked_for_are_refused():
    """Row 7 of the faults table."""
    with pytest.raises(RuntimeError, match="2 images were asked for, but 1 came"):
        list(predict_some([images(1)], encode, [[0, 2]], batch_size=4, n_rows=9, description="some"))


def test_no_graph_is_kept_and_gradients_are_on_again_afterwards():
    """Neither the rows nor the encoder's parameters know of a gradient."""
    layer, graphs = nn.Linear(12, 2), []

    def encode_by_layer(batch: Tensor) -> Tensor:
        graphs.append(layer(batch.flatten(1)).requires_grad)
        return layer(batch.flatten(1))

    assert not predict(images(5).split(BATCH_SIZE), encode_by_layer, n_rows=5).requires_grad
    assert graphs == [False, False]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_are_float32_whatever_the_tower_is(dtype):
    """Stored and compared features have a single type."""
    assert predict([images(2).to(dtype)], encode, n_rows=2).dtype == torch.float32


def fits(n_rows: int, seen: list[int]):
    """Return an encoder that runs out of memory on more rows than that, and notes how many came."""

    def encode(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        if len(batch) > n_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")
        return batch * 2

    return encode


def test_a_batch_that_finds_no_memory_is_halved_with_all_that_follow(caplog):
    """Row 18 of the faults table: 10 rows in batches of 8 where 3 fit: 8, 4, then 2 at a time; every row is in its place."""
    seen, rows = [], torch.arange(10.0)[:, None]
    assert torch.equal(predict(rows.split(8), fits(3, seen), n_rows=10), rows * 2)
    assert seen == [8, 4, 2, 2, 2, 2, 2]
    assert "going on with batches of 2 images" in caplog.text


def test_a_single_image_that_finds_no_memory_is_a_clear_error():
    """Row 18 of the faults table: the error is one line."""
    with pytest.raises(UserError, match=r"^out of memory with a single image: CUDA out of memory. Tried to allocate 2 GiB.$"):
        predict([torch.zeros(3, 1)], fits(0, []), n_rows=3)


def test_kept_rows_of_a_half_precision_tower_are_float32():
    assert predict([torch.ones(2, 3)], lambda rows: rows.bfloat16(), n_rows=2, keep=True).dtype == torch.float32


def test_later_batches_are_taken_in_parts_at_once():
    """They would not find room either."""
    tried = []

    def function(rows: Tensor) -> Tensor:
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows

    assert len(list(in_parts([torch.ones(4, 1), torch.ones(4, 1)], function))) == 4
    assert tried == [4, 2, 2, 2, 2]
