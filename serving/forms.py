"""The forms of a request's observation: how each version that may answer it takes it.

A form is named by an interface or by the number of a version, which stands for its interface. So
no name tells the arms of a trial apart while both have one interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from serving.control.routing import Served
from serving.predictor import Predictor
from serving.schemas import BadRequest

T = TypeVar("T")


class Forms(Generic[T]):
    """A request's observation, or observations, as each predictor takes them; each is read once.

    `read` gives them in a predictor's form, or raises `BadRequest`. `names` are those that the
    request has forms for, and `plain` says whether it has one without a name. `joins`: both arms
    find their form in it, so an episode that it begins may join the trial. `long`: reading them
    takes so long that it is left to another thread.
    """

    def __init__(
        self,
        served: Served,
        read: Callable[[Predictor], T],
        names: Iterable[str] = (),
        plain: bool = True,
        long: bool = False,
    ) -> None:
        self._served, self._read, self.long = served, read, long
        self.joins = served.able(names, plain)
        self._known: dict[int, T] = {}

    def __call__(self, predictor: Predictor) -> T:
        reader = self._served.reader(predictor)
        if reader.version not in self._known:
            self._known[reader.version] = self._read(reader)
        return self._known[reader.version]

    def check(self, arms: Iterable[Predictor]) -> None:
        """Read them for all arms, so that a refusal is the same whichever arm would answer.

        Raises `BadRequest`, also if the forms have different numbers of observations.
        """
        counts = {getattr(found, "shape", (1,))[0] for found in map(self, arms)}
        if len(counts) > 1:
            got = " and ".join(map(str, sorted(counts)))
            raise BadRequest(422, "observations", "as many of them in each form", got)


def form_named(
    given: Iterable[str], names: frozenset[str], field: str, status: int = 422
) -> str | None:
    """The name, among those given, of one interface's form; None if none of them names it.

    `names` are all that the interface has (`Served.names`). Raises `BadRequest` for two of them.
    """
    found = sorted(names.intersection(given))
    if len(found) > 1:
        got = f"{found[0]} and {found[1]}, which name the same interface"
        raise BadRequest(status, field, "one form for each interface", got)
    return found[0] if found else None
