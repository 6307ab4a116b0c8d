"""DomainBed's splits, to the bit: recorded fingerprints, and DomainBed's code restated."""

import hashlib
import logging

import numpy as np
import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import generator, seed_hash, step_seed
from domainbed_sage.data.splits import Split, check_sizes, split

# Dataset, environment (index = position within its dataset), images, out and in split (20 %), and for the trials 0, 1
# and 2 the first 12 hexadecimal digits of the sha256 of the out split's indices, joined by commas.
FINGERPRINTS = """
PACS           art_painting  2048   409   1639  590e9df6c6e5 b18e165b1948 f5e8ffa85246
PACS           cartoon       2344   468   1876  dcc713b678d2 44dd006b16db 078f6f378121
PACS           photo         1670   334   1336  7140c6cdd832 8ca93ed073fb 9ccfb9adc09b
PACS           sketch        3929   785   3144  427501f9a48c a1fd36cd06f1 e197d0a51418
VLCS           Caltech101    1415   283   1132  1f82132e5bca 1ec17726942f 5433f4bedc6c
VLCS           LabelMe       2656   531   2125  efbe6b1648b8 05f409458fcb 2f643a5eb6f0
VLCS           SUN09         3282   656   2626  a4735c46ac10 2cb80236e330 ff410b685c17
VLCS           VOC2007       3376   675   2701  f8dc844c5078 1e6d2fdd04d7 49e724ed42a3
OfficeHome     Art           2427   485   1942  f3db7a2693f1 3626714759c6 488f384ecf8d
OfficeHome     Clipart       4365   873   3492  823f7f9cee97 f6d17b145aa8 9079fd043cae
OfficeHome     Product       4439   887   3552  e485f4c02b72 22ae4364b0d5 d432d3f080ac
OfficeHome     Real_World    4357   871   3486  7d490a04ebc3 f644fca3b32d 804ae67509c3
Terra24788     location_100  4879   975   3904  22f99b00d812 efc4860ff5a2 4205573e7385
Terra24788     location_38   9767   1953  7814  1af50cd932f5 0ae8473466e7 825ed0eb9eb3
Terra24788     location_43   4020   804   3216  c983872133e0 db1e6b99de46 df0ead19b6b1
Terra24788     location_46   6122   1224  4898  d1e29ef4a875 3d330c7570b2 43ac0433fa14
Terra24330     location_100  4741   948   3793  d880e09df3ad 35fd2a09461f 9d9ba2c5f465
Terra24330     location_38   9736   1947  7789  7f7d368da441 504998520a26 d2990495b90a
Terra24330     location_43   3970   794   3176  12acf17a01ee 19b022c68264 6b12fd72b10a
Terra24330     location_46   5883   1176  4707  4dea7e2f2810 bc8f981dcaaf 1330e4ef2165
DomainNet      clipart       48129  9625  38504  5f9b6731ab99 dbabbb14656e d2fe555b2125
DomainNet      infograph     51605  10321 41284  e037c82b2e85 47ef5b40ee2d aabd4e51652c
DomainNet      painting      72266  14453 57813  a3045825600d 930ac2c395aa 7f642ffd1b4e
DomainNet      quickdraw     172500 34500 138000 83f44d2d05c4 17b3c635aa9e 8eec33fb6d0c
DomainNet      real          172947 34589 138358 946a7606dcf1 701a095dce1f 53381992dfa5
DomainNet      sketch        69128  13825 55303  4453061be82c dd875f34a268 c7e92c6602fd
"""
TOTALS = {"PACS": 9991, "VLCS": 10729, "OfficeHome": 15588, "Terra24788": 24788, "Terra24330": 24330}
TOTALS |= {"DomainNet": 586575}


def rows() -> list[tuple]:
    """Dataset, environment, index, images, sizes of the out and in splits, and fingerprints."""
    lines = [line.split() for line in FINGERPRINTS.strip().splitlines()]
    seen = [line[0] for line in lines]
    return [
        (dataset, name, at - seen.index(dataset), int(n), int(out), int(in_), digests)
        for at, (dataset, name, n, out, in_, *digests) in enumerate(lines)
    ]


def fingerprint(indices):
    return hashlib.sha256(",".join(map(str, indices)).encode()).hexdigest()[:12]


def test_the_table_has_every_environment():
    sums = {dataset: sum(n for d, _, _, n, *_ in rows() if d == dataset) for dataset in TOTALS}
    assert sums == TOTALS
    assert len(rows()) == 26


@pytest.mark.parametrize(("dataset", "name", "index", "n", "out", "in_", "digests"), rows())
def test_fingerprints_and_sizes(dataset, name, index, n, out, in_, digests):
    parts = [split(n, index, trial) for trial in range(3)]
    assert [fingerprint(part.out) for part in parts] == digests
    assert {(len(part.out), len(part.in_)) for part in parts} == {(out, in_)}
    for part in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([part.out, part.in_])), np.arange(n))


@pytest.mark.parametrize(
    ("index", "n", "first"),
    [
        (0, 2048, [548, 677, 1997, 977]),
        (1, 2344, [1488, 562, 461, 570]),
        (2, 1670, [1441, 1432, 282, 669]),
        (3, 3929, [2743, 2083, 2744, 3449]),
    ],
)
def test_first_out_indices_of_pacs(index, n, first):
    assert split(n, index, 0).out[:4].tolist() == first


def test_equals_domainbeds_code():
    """DomainBed's `split_dataset`, literally: a shuffled list, and the first ⌊fraction · n⌋ of it."""
    for n, index, trial, fraction in [(10, 0, 0, 0.2), (297, 3, 2, 0.2), (297, 1, 7, 0.5), (3, 2, 1, 0.2)]:
        keys = list(range(n))
        np.random.RandomState(seed_hash(trial, index)).shuffle(keys)
        size = int(n * fraction)
        part = split(n, index, trial, fraction)
        assert (part.out.tolist(), part.in_.tolist()) == (keys[:size], keys[size:])


@pytest.mark.parametrize(
    ("trial", "seeds"),
    [
        (0, [894182419, 1514274641, 1325548499, 1796103049, 1773288162, 1833038383]),
        (1, [785910682, 1442673865, 1981683110, 1739848239, 582996474, 65219121]),
        (2, [472130416, 181139023, 248334461, 1709828778, 402558190, 941488192]),
    ],
)
def test_split_seeds(trial, seeds):
    assert [seed_hash(trial, env) for env in range(6)] == seeds


def test_training_seed():
    assert seed_hash("PACS", "ERM", [0], 0, 0) == 94828300


def test_streams_of_a_run_are_apart():
    """Every stream, step and counter has draws of its own; equal arguments have equal draws."""
    places = [("rows", 0, 0), ("rows", 0, 1), ("rows", 1, 0), ("augment", 0, 0)]
    draws = [generator(seed, *place).integers(2**62) for seed in (0, 1) for place in places]
    again = [generator(seed, *place).integers(2**62) for seed in (0, 1) for place in places]
    assert draws == again
    assert len(set(draws)) == len(draws)
    seeds = [step_seed(seed, stream, step) for seed in (0, 1) for stream in ("update", "augment") for step in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


# Halves that are empty


def check(sizes, test_envs, fraction=0.2):
    names = "abcdefgh"[: len(sizes)]
    check_sizes(names, [split(n, i, 0, fraction) for i, n in enumerate(sizes)], test_envs, fraction)


def test_a_source_environment_without_an_out_split_is_named():
    check([12, 12, 5], [0])
    with pytest.raises(UserError) as caught:
        check([12, 1, 4], [0])
    assert str(caught.value).splitlines() == [
        "2 mistakes in the sizes of the environments:",
        "  - b has 1 image, of which holdout_fraction 0.2 puts none into the out split, so that models could not be "
        "selected; it takes 5 images, or a larger holdout_fraction",
        "  - c has 4 images, of which holdout_fraction 0.2 puts none into the out split, so that models could not be "
        "selected; it takes 5 images, or a larger holdout_fraction",
    ]


def test_the_number_that_it_takes_is_the_least():
    for fraction, least in ((0.2, 5), (0.3, 4), (0.5, 2), (0.01, 100)):
        check([least, least], [0], fraction)
        with pytest.raises(UserError, match=f"it takes {least} images, or a larger holdout_fraction"):
            check([least, least - 1], [0], fraction)


def test_a_held_out_environment_without_an_out_split_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check([12, 12, 4], [2])
    assert caplog.messages == [
        "Environment c has 4 images, of which holdout_fraction 0.2 puts none into the out split: oracle selection has "
        "nothing to select by."
    ]


@pytest.mark.parametrize(("test_envs", "purpose"), [([0], "train on"), ([1], "test on")])
def test_an_in_split_of_which_all_images_are_left_out(test_envs, purpose):
    splits = [split(10, 0, 0), Split(np.arange(0), np.arange(3))]
    with pytest.raises(UserError, match=f"b has 3 images, .* puts none into the in split, to {purpose}$"):
        check_sizes("ab", splits, test_envs, 0.2)
