"""A home whose champion balances CartPole in mode normal, and what it meets in service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines.adapt import diagnose as diagnosis
from pipelines.adapt.play import play
from pipelines.versions.release import Release, trial_rules
from serving.control.watch import Watch
from serving.registry.records import Start, Who
from serving.registry.rules import DeploymentRules, parse_rules
from serving.registry.schema import POLICY
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.envs import EnvVersion, pin
from srghn.envs.perturb import parse
from srghn.files import canonical_json, sha256_file
from tests.serving.conftest import Steps, write_candidate

ANN = Who("ann", "because")


@dataclass
class Served:
    """The home, its ledger and its world."""

    settings: Settings
    world: EnvVersion
    folder: Path
    release: Release = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.release = Release(self.settings)
        self.ledger = self.release.ledger
        self.steps = Steps(self.ledger)
        self.world.save(self.settings.home / "envs" / f"{self.world.fingerprint}.json")

    def register(self, flip: bool = False, bias: float = 0.0, run_id: str = "run") -> int:
        """A candidate that balances in mode normal, or with `flip` in mode flipped."""
        self.count += 1
        digest = self.release.store.put(self._candidate(flip, bias).path)
        trial = trial_rules(RunParams(), self.world)
        return self.ledger.register(
            digest,
            env_fingerprint=self.world.fingerprint,
            mode="flipped" if flip else "normal",
            run_id=run_id,
            manifest={**self.release.store.load(digest).manifest, **trial},
            who=ANN,
        )

    def first(self, **options: Any) -> int:
        version = self.register(**options)
        self.pass_(version)
        self.ledger.promote(version, expected_generation=0, who=ANN)
        return version

    def second(self, **options: Any) -> int:
        """A later champion, by way of a trial that it wins."""
        version, champion = self.register(**options), self.ledger.champion()
        assert champion is not None
        self.pass_(version)
        self.steps.play(self.steps.canary(version), 10.0, 490.0, 12)
        self.ledger.promote(version, expected_generation=champion.generation, who=ANN)
        return version

    def rules(self, **adapt: Any) -> DeploymentRules:
        data: dict[str, Any] = self.ledger.deployment_rules().model_dump(mode="json")
        data["adapt"] |= adapt
        data["watch"]["run_length"] = 1000
        self.ledger.set_deployment_rules(parse_rules(data), who=ANN)
        return self.ledger.deployment_rules()

    def meet(
        self, mode: str, episodes: int, moved: str | None = None, *, look: bool = True
    ) -> None:
        """The champion's episodes in service, whose world nobody names; `moved`: a perturbation."""
        champion = self.ledger.champion()
        assert champion is not None
        candidate = self.release.store.load(champion.digest)
        self.count += 1
        perturbation = parse(moved) if moved else None
        seed = 1000 + self.count
        played = play(
            candidate, self.world, mode, episodes, seed, observe=False, perturbation=perturbation
        )
        for place, (value, length) in enumerate(played.pairs.tolist()):
            name, now = f"met-{self.count}-{place}", time.time()
            start = Start(
                name,
                champion.version,
                generation=champion.generation,
                started_at=now,
                deadline=now + 60,
            )
            self.ledger.start_episodes([start])
            self.ledger.record_outcome(POLICY, name, value, int(length), True)
        if look:
            Watch(self.ledger).look()

    def pass_(self, version: int) -> None:
        """Through the gate and its approval."""
        self.steps.begin(version)
        self.steps.judge(version, promise=0.9)
        self.steps.approve(version)

    def _candidate(self, flip: bool, bias: float) -> Candidate:
        folder = self.folder / f"candidate{self.count}"
        write_candidate(
            folder,
            flip=flip,
            bias=bias,
            fingerprint=self.world.fingerprint,
            params=RunParams().model_dump(mode="json"),
            architecture_digest="a" * 64,
        )
        self.world.save(folder / "env_version.json")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest |= {
            "mode": "flipped" if flip else "normal",
            "interface": self.world.interface.to_dict(),
            "env_digest": sha256_file(folder / "env_version.json"),
        }
        (folder / "manifest.json").write_bytes(canonical_json(manifest))
        return Candidate.load(folder)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diagnosis draws by the alarm's hash, which has a clock in it; here it draws the same."""
    real = diagnosis.diagnose
    fixed = lambda release, champion, rows, name: real(release, champion, rows, "test")  # noqa: E731
    monkeypatch.setattr(diagnosis, "diagnose", fixed)


@pytest.fixture(scope="session")
def world() -> EnvVersion:
    return pin(RunParams().env)


@pytest.fixture
def served(world: EnvVersion, tmp_path: Path) -> Iterator[Served]:
    made = Served(Settings(home=tmp_path / "home").resolved(), world, tmp_path)
    yield made
    made.ledger.close()
