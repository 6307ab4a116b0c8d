"""The training minibatches: a pure function of (seed, step), over the rows of the in splits."""

import numpy as np
import pytest
import torch

from domainbed_sage.data import emoji
from domainbed_sage.data.splits import split
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.data.transforms import DataOptions, train_transform
from domainbed_sage.models.base import ImageSpec

HALF = (0.5, 0.5, 0.5)
SOURCES = emoji.load_small().environments[1:]
IN = [split(len(env), i + 1, 0).in_ for i, env in enumerate(SOURCES)]


def stream(seed=0, batch_size=4, indices=IN, augment="crop_flip"):
    transform = train_transform(DataOptions(augment=augment), ImageSpec(32, HALF, HALF))
    return TrainStream(SOURCES, indices, batch_size, transform, seed)


def same(a, b):
    return torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and a.sizes == b.sizes


@pytest.mark.parametrize("augment", ["crop_flip", "domainbed"])
def test_any_order_of_asking(augment):
    forwards = [stream(augment=augment)[step] for step in range(5)]
    backwards = stream(augment=augment)
    assert all(same(backwards[step], forwards[step]) for step in (4, 1, 1, 3, 0, 2))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_any_number_of_workers_and_any_start(num_workers, start):
    expected = [stream(augment="domainbed")[step] for step in range(start, 7)]
    batches = list(stream(augment="domainbed").batches(start, 7, num_workers))
    assert len(batches) == len(expected)
    assert all(same(ours, theirs) for ours, theirs in zip(batches, expected, strict=True))


def test_nothing_is_left_at_the_end():
    assert list(stream().batches(3, 3)) == []


def test_rows_and_images_belong_together():
    """Without augmentation a minibatch is the images of `rows`, domain after domain."""
    batch, rows = stream(augment="none")[5], stream().rows(5)
    images = [env.image(i) for env, keys in zip(SOURCES, rows, strict=True) for i in keys]
    labels = [env.labels[i] for env, keys in zip(SOURCES, rows, strict=True) for i in keys]
    assert torch.equal(batch.x, torch.stack(images))
    assert batch.y.tolist() == labels
    assert batch.sizes == (4, 4, 4)
    assert batch.x.shape == (12, 3, 32, 32)


def test_steps_seeds_and_domains_differ():
    same_split = [np.arange(297)] * 3  # so that only the domain's number can tell the rows apart
    draws = [
        tuple(rows.tolist()) for seed in (0, 1) for step in (0, 1, 2) for rows in stream(seed, 8, same_split).rows(step)
    ]
    assert len(set(draws)) == 2 * 3 * 3


def test_augmentation_differs_between_steps_and_seeds():
    one_row = [np.array([7])] * 3
    batches = [stream(seed, 1, one_row)[step] for seed in (0, 1) for step in (0, 1)]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    assert not any(torch.equal(batches[i].x, batches[j].x) for i, j in pairs)


def test_rows_are_of_the_in_split():
    seen = [set(), set(), set()]
    for step in range(200):
        for k, rows in enumerate(stream(batch_size=16).rows(step)):
            seen[k] |= set(rows.tolist())
    assert seen == [set(keys.tolist()) for keys in IN]  # 3200 draws from 238 rows


def test_rows_are_uniform():
    """Chi-square of 24 000 draws over 238 rows: 237 degrees of freedom, standard deviation 22."""
    draws = np.concatenate([stream(batch_size=40).rows(step)[1] for step in range(600)])
    counts = np.array([(draws == key).sum() for key in IN[1]])
    expected = len(draws) / len(IN[1])
    assert counts.sum() == len(draws)
    assert abs(((counts - expected) ** 2 / expected).sum() - 237) < 6 * 22


def test_rows_of_neighbouring_steps_are_independent():
    """Correlation of the draws at the same place of steps t and t + 1: standard deviation 0.01."""
    draws = np.array([stream(batch_size=10).rows(step)[0] for step in range(1000)], dtype=float)
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.06


def test_a_batch_larger_than_the_split_repeats_rows():
    batch = stream(batch_size=5, indices=[np.array([3, 9])] * 3)
    assert all(set(rows.tolist()) <= {3, 9} and len(rows) == 5 for rows in batch.rows(0))
    assert batch[0].sizes == (5, 5, 5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_are_not_touched(num_workers):
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(3)
    np.random.seed(3)
    list(stream(augment="domainbed").batches(0, 3, num_workers))
    torch.testing.assert_close(torch.rand(3), expected[0], rtol=0, atol=0)
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


def test_global_generators_have_no_say():
    torch.manual_seed(1)
    np.random.seed(1)
    first = stream(augment="domainbed")[0]
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(stream(augment="domainbed")[0], first)
