"""What a champion sees in the sandbox is written down once, when it is promoted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.adapt import baseline as baseline_module
from pipelines.adapt.play import play
from pipelines.services import up
from serving.control.samples import step_of
from serving.control.sight import BASELINE, Sight, baseline
from serving.registry.records import Start
from serving.registry.samples import Sample, keep
from srghn.envs import parse
from srghn.errors import EnvVersionError, SrghnError
from tests.conftest import Srghn
from tests.pipelines.adapt.conftest import Served
from tests.pipelines.conftest import home_at


def serve(served: Served, seed: int, moved: str | None) -> None:
    """What the server keeps of the champion's episodes; of which steps is no matter."""
    champion = served.ledger.champion()
    assert champion is not None
    candidate = served.release.store.load(champion.digest)
    perturbation = parse(moved) if moved else None
    played = play(
        candidate, served.world, "normal", 300, seed, observe=True, perturbation=perturbation,
        whole=False,
    )  # fmt: skip
    assert played.observed is not None
    of = champion.version, champion.generation
    names = (name for n in range(10**6) if step_of(name := f"{seed}-{n}") == 0)
    found = [
        Sample(*of, name, 0, 0.0, row[1:5].astype("<f4").tobytes())
        for name, row in zip(names, played.observed, strict=False)
    ]
    starts = [Start(each.episode, of[0], generation=of[1], deadline=9e9) for each in found]
    served.ledger.start_episodes(starts)
    keep(served.ledger.database(), "policy", found, 10_000)


def test_what_a_champion_sees_is_kept_once_a_generation(served: Served, srghn_here: Srghn) -> None:
    served.first(bias=0.3)
    served.rules()
    [told] = baseline_module.keep(served.settings)
    assert "version 1 sees in the sandbox, in mode normal" in told
    assert baseline_module.keep(served.settings) == []
    assert baseline_module.keep(served.settings.model_copy(update={"samples": 0})) == []
    champion = served.ledger.champion()
    assert champion is not None
    found = baseline(served.ledger, champion)
    assert found is not None
    assert found.quantiles.shape == (4, 101)
    assert 150 < found.count <= baseline_module.EPISODES
    assert np.all(np.diff(found.quantiles, axis=1) >= 0)
    [event] = served.ledger.notes("policy", BASELINE)
    assert (event.actor, event.generation) == ("watch", champion.generation)
    serve(served, 3, None)
    still = Sight(served.ledger, "policy").score(champion)
    assert still is not None
    assert not still.moved
    serve(served, 4, "force:4")
    env = {"SRGHN_HOME": str(served.settings.home)}
    shown = json.loads(srghn_here("watch", "--json", env=env).stdout)
    assert shown["observations"]["p"] < 0.001
    assert "observations moved: element" in srghn_here("watch", env=env).stdout


def test_a_champion_that_cannot_be_played_here_keeps_no_other_from_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a failed step after an alarm; and what was done is told, whatever fails after it."""
    settings = home_at(tmp_path)
    policies = [SimpleNamespace(name=name) for name in ("broken", "whole")]
    ledger = SimpleNamespace(policies=lambda: policies, champion=str, close=lambda: None)
    kept: list[str] = []
    told: list[str] = []

    def record(release: object, champion: str) -> str:
        if champion == "broken":
            raise EnvVersionError("its package is missing")
        kept.append(champion)
        return f"policy {champion}: 400 observations"

    monkeypatch.setattr(baseline_module, "Release", lambda _: SimpleNamespace(ledger=ledger))
    monkeypatch.setattr(baseline_module, "baseline", lambda *_: "whole" if kept else None)
    monkeypatch.setattr(baseline_module, "_keep", record)

    def failing(*_: object) -> list[str]:
        raise ConnectionError("Prefect is away")

    monkeypatch.setattr("pipelines.adapt.beat.beat", failing)
    monkeypatch.setattr(up, "_say", told.append)
    with pytest.raises(ConnectionError):
        up._adapt(settings)
    assert told == ["policy whole: 400 observations"]
    kept.clear()
    policies.pop()
    with pytest.raises(SrghnError, match="policy broken: its package is missing"):
        baseline_module.keep(settings)
