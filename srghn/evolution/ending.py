"""Why a run ended before its last generation, as its folder says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FINALISTS = "finalists.json"  # written last: the run is finished
EVALUATIONS, UNTIL, SECONDS, ASKED = "evaluations", "until", "seconds", "asked"
_WORDS = {
    EVALUATIONS: "its evaluations are used up (evolution.evaluations)",
    UNTIL: "its return is reached (evolution.until)",
    SECONDS: "its time is up (evolution.seconds)",
    ASKED: "its caller asked it to stop",
}


@dataclass(frozen=True)
class End:
    """Why a run ended after `done` generations, before its last one.

    by          evaluations, until, seconds, or asked (the `stop` that `evolve` was given)
    validated   mean return of the best individual on `episodes` fresh seeds, with `until`
    individual  whose it is
    """

    done: int
    by: str
    validated: float | None = None
    episodes: int | None = None
    individual: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | int | None) -> End | None:
        """Also what 0.3's first runs wrote: the number of generations alone."""
        if isinstance(data, int):
            return cls(data, ASKED)
        return None if data is None else cls(**data)

    def __str__(self) -> str:
        words = f"evolution ended after {self.done} generations: {_WORDS[self.by]}"
        if self.validated is None:
            return words
        return f"{words}: {self.validated:.1f} over {self.episodes} fresh episodes"


def ended(run_dir: Path) -> End | None:
    """What ended a finished run before its last generation; None where nothing has."""
    path = run_dir / FINALISTS
    found = json.loads(path.read_text(encoding="utf-8")).get("ended") if path.exists() else None
    return End.from_json(found)
