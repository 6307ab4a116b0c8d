"""Messages for people travel whole, also from a worker process."""

import pickle
import threading

import pytest

from domainbed_sage.core.errors import ErrorReport, NoSpace, UserError, raise_all


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


class PickyError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class PickyUserError(UserError):
    def __init__(self, first, second, third):
        super().__init__(f"{first}, {second} and {third}", [first, second, third])


class LockedError(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class UnreadableError(Exception):
    def __str__(self):
        raise ZeroDivisionError


def local_error():
    class LocalError(KeyError):
        pass

    return LocalError("k")


def reported(error):
    """The exception after its way through a pipe, raised from two functions deep."""

    def deep():
        raise error

    try:
        deep()
    except BaseException as caught:
        report = pickle.loads(pickle.dumps(ErrorReport.of(caught)))
    return report.error()


@pytest.mark.parametrize(
    "error", [KeyError("k"), OSError(24, "Too many open files", "f"), UserError("a b", ["a", "b"]), NoSpace("full")]
)
def test_an_exception_arrives_as_itself(error):
    again = reported(error)
    assert (type(again), again.args) == (type(error), error.args)
    assert getattr(again, "filename", None) == getattr(error, "filename", None)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (PickyError("a", "b"), "PickyError", "a and b"),
        (LockedError("held"), "LockedError", "held"),
        (local_error(), "LocalError", "'k'"),
        (UnreadableError(), "UnreadableError", "<exception str() failed>"),
        (SystemExit(3), "SystemExit", "3"),
    ],
)
def test_an_exception_that_cannot_travel_arrives_under_its_name(error, kind, message):
    again = reported(error)
    assert isinstance(again, RuntimeError)
    assert (type(again).__name__, str(again)) == (kind, message)


def test_a_mistake_of_the_user_stays_one():
    again = reported(PickyUserError("a", "b", "c"))
    assert (type(again), str(again), again.mistakes) == (UserError, "a, b and c", ("a", "b", "c"))


@pytest.mark.parametrize("error", [KeyError("k"), PickyError("a", "b")])
def test_its_stack_trace_comes_along(error):
    (note,) = reported(error).__notes__
    assert note.startswith("In another process:\nTraceback")
    assert "in deep" in note
