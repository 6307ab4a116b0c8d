"""Messages for people travel whole, also from a worker process."""

import pickle

import pytest

from domainbed_sage.core.errors import UserError, raise_all


@pytest.mark.parametrize(("error", "mistakes"), [(UserError("a"), ("a",)), (UserError("a b", ["a", "b"]), ("a", "b"))])
def test_a_mistake_survives_the_way_between_processes(error, mistakes):
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.mistakes) == (str(error), mistakes)


def test_all_mistakes_in_one_message():
    raise_all([], "nothing")
    with pytest.raises(UserError) as caught:
        raise_all(["first", "second"], "the file")
    assert str(caught.value) == "2 mistakes in the file:\n  - first\n  - second"
    assert caught.value.mistakes == ("first", "second")
