"""Real, tiny candidates: a linear policy in ONNX, with every file and digest of a frozen one."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.reports import NUMBERS
from serving.settings import Settings
from serving.tokens import Tokens
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.errors import TransitionRefused
from srghn.files import canonical_json, sha256_bytes, sha256_file

POLICY_DIGEST = "p" * 64
SUITE = "1"


def write_policy(path: Path, weights: np.ndarray, brittle: bool = False) -> None:
    """argmax(obs @ weights) with weights (4, n); brittle: thirds, and NaN at zero."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if brittle:
        shape = ["batch", weights.shape[0]]
        graph = helper.make_graph(
            [
                helper.make_node("Div", ["obs", "obs"], ["one"]),
                helper.make_node("Mul", ["one", "third"], ["action"]),
            ],
            "policy",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("action", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.float32([1 / 3]), "third")],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
            path,
        )
        return
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["obs", "w"], ["out"]),
            helper.make_node("ArgMax", ["out"], ["action"], axis=1, keepdims=0),
        ],
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def write_candidate(
    folder: Path,
    *,
    bias: float = 0.0,
    flip: bool = False,
    brittle: bool = False,
    fingerprint: str = "e" * 64,
    more: int = 0,
    **extra: Any,
) -> Path:
    """A candidate that pushes the cart to where the pole falls, or away; `bias` makes others.

    `more`: so many numbers of an observation after the four, which change nothing.
    """
    folder.mkdir(parents=True)
    way = -1 if flip else 1
    rows = [[0, 0], [0, bias], [-way, way], [-way, way], *[[0, 0]] * more]
    weights = np.array(rows, np.float32)
    write_policy(folder / "policy.onnx", weights, brittle)
    observations = np.linspace(-1, 1, 8 * (4 + more), dtype=np.float32).reshape(8, 4 + more)
    actions = OnnxPolicy(folder / "policy.onnx")(observations)
    golden = {"observations": observations.tolist(), "actions": actions.tolist()}
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "genome.safetensors").write_bytes(save({"genome": weights.ravel()}))
    (folder / "ancestry.json").write_text("{}")
    world = {"fingerprint": fingerprint, "modes": ["normal", "flipped"]}
    (folder / "env_version.json").write_bytes(canonical_json(world))
    manifest = {
        "format": 1,
        "name": "linear",
        "run_id": "run",
        "generation": 3,
        "mode": "normal",
        "env_fingerprint": fingerprint,
        "genome_digest": sha256_file(folder / "genome.safetensors"),
        "policy_digest": sha256_file(folder / "policy.onnx"),
        "lineage_digest": sha256_file(folder / "ancestry.json"),
        "golden_digest": sha256_file(folder / "golden.json"),
        "env_digest": sha256_file(folder / "env_version.json"),
        "interface": {"observation_size": 4 + more, "kind": "discrete", "n": 2},
        "bias": bias,
        **extra,
    }
    (folder / "manifest.json").write_bytes(canonical_json(manifest))
    return folder


def maker(folder: Path) -> Callable[..., Candidate]:
    count = iter(range(1000))

    def make(**options: Any) -> Candidate:
        return Candidate.load(write_candidate(folder / f"candidate{next(count)}", **options))

    return make


@pytest.fixture
def make_candidate(tmp_path: Path) -> Callable[..., Candidate]:
    return maker(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def numbers(verdict: dict[str, Any], gate: dict[str, Any] | None = None) -> bytes:
    """A report's `report.json`: the gate rules, and the verdict but for the report's files."""
    left = ("report_digest", "evidence")
    said = {k: v for k, v in verdict.items() if k not in left}
    return canonical_json({"verdict": said, "params": gate or {}})


class Steps:
    """The usual way of a version through the ledger, one call a stage."""

    def __init__(self, ledger: Ledger, policy: str = POLICY) -> None:
        self.ledger, self.policy = ledger, policy
        self.count = 0
        self.gate: dict[str, Any] = {}

    def register(self, digest: str | None = None, fingerprint: str = "e" * 64, **more: Any) -> int:
        self.count += 1
        return self.ledger.register(
            digest or sha256_bytes(str(self.count).encode()),
            env_fingerprint=fingerprint,
            mode="normal",
            run_id="run",
            manifest=more.get("manifest", {}),
            who=Who("pipeline", "frozen"),
            policy=self.policy,
            submitter=more.get("submitter"),
        )

    def rules(self) -> dict[str, Any]:
        champion = self.ledger.champion(self.policy)
        return {
            "suite_version": SUITE,
            "policy_digest": POLICY_DIGEST,
            "incumbent_digest": champion.digest if champion else None,
            "who": Who("pipeline", "judge"),
        }

    def begin(self, version: int, **more: Any) -> Any:
        return self.ledger.begin_evaluation(version, **{**self.rules(), **more})

    def resume(self, version: int, **more: Any) -> Any:
        attempt = self.ledger.version(version).attempt
        return self.ledger.resume_evaluation(
            version, **{"attempt": attempt, **self.rules(), **more}
        )

    def verdict(self, version: int, word: str = "passed", **more: Any) -> dict[str, Any]:
        found = self.ledger.version(version)
        said = {
            "verdict": word,
            "checks": [{"name": "primary", "outcome": word, "reason": "as the test wants it"}],
            "bound_by": "primary",
            "summary": f"{word} by primary",
            "candidate_digest": found.digest,
            "env_fingerprint": found.env_fingerprint,
            "mode": self.ledger.leased_mode(version) or found.mode,
            "suite_version": found.suite_version,
            "policy_digest": found.policy_digest,
            "incumbent_digest": found.incumbent_digest,
            "attempt": found.attempt,
            "report_digest": sha256_bytes(self._page(version)),
            "lease": self._lease(version),
            **more,
        }
        return {
            **said,
            "evidence": {
                NUMBERS: sha256_bytes(numbers(said, self.gate)),
                **said.get("evidence", {}),
            },
        }

    def _lease(self, version: int) -> str | None:
        events = self.ledger.events(version, newest=True)
        return next((e.hash for e in events if e.action == "begin_evaluation"), None)

    def _page(self, version: int) -> bytes:
        return f"<p>version {version}, attempt {self.ledger.version(version).attempt}</p>".encode()

    def report(self, version: int, verdict: dict[str, Any]) -> Path:
        """The page of a report, written beside its verdict where a home keeps them."""
        home = self.ledger.database().home
        assert home is not None
        folder = home / "reports" / sha256_bytes(self._page(version))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "verdict.json").write_bytes(canonical_json(verdict))
        (folder / NUMBERS).write_bytes(numbers(verdict, self.gate))
        (folder / "report.html").write_bytes(self._page(version))
        return folder / "report.html"

    def judge(
        self, version: int, word: str = "passed", report: Path | None = None, **more: Any
    ) -> str:
        verdict = self.verdict(version, word, **more)
        written = self.report(version, verdict)
        return self.ledger.record_verdict(
            version,
            verdict,
            report_path=report or written,
            report_digest=written.parent.name,
            who=Who("gate", "judged"),
        )

    def approve(self, version: int, **more: Any) -> None:
        digest = str(self.ledger.version(version).report_digest)
        said = {"report_digest": digest, "who": Who("ann", "read it"), **more}
        self.ledger.approve(version, **said)

    def approved(self, digest: str | None = None, **more: Any) -> int:
        version = self.register(digest, **more)
        self.begin(version)
        self.judge(version)
        self.approve(version)
        return version

    def first(self, digest: str | None = None, **more: Any) -> int:
        version = self.approved(digest, **more)
        self.ledger.promote(version, expected_generation=0, who=Who("ann", "first"))
        return version

    def canary(self, version: int, **more: Any) -> Any:
        from srghn.config import CanaryParams

        loaded = {"digest": self.ledger.version(version).digest, "golden": 8}
        return self.ledger.start_canary(
            version,
            **{
                "params": CanaryParams(min_episodes=5, return_low=0.0, return_high=500.0),
                "loaded": loaded,
                "who": Who("server", "try it"),
                **more,
            },
        )

    def play(self, canary: Any, champion_return: float, canary_return: float, count: int) -> None:
        """`count` episodes of each arm, with their outcomes."""
        champion = self.ledger.champion(self.policy)
        assert champion is not None
        arms = [(0, champion.version, champion_return), (1, canary.version, canary_return)]
        for arm, version, value in arms:
            for _ in range(count):
                self.count += 1
                name = f"episode-{self.count}"
                now = time.time()
                start = Start(
                    name,
                    version,
                    arm,
                    canary.weight,
                    canary.epoch,
                    champion.generation,
                    now,
                    now + canary.rules.deadline,
                    self.policy,
                )
                self.ledger.start_episodes([start])
                self.ledger.record_outcome(self.policy, name, value, 10, True)

    def recalled(self, version: int) -> int:
        """A former champion under a new number, which wins its way back."""
        again = self.ledger.recall(
            version, env_fingerprint="e" * 64, mode="normal", who=Who("ann", "it was better")
        )
        self.begin(again)
        self.judge(again)
        self.approve(again)
        return self._won(again)

    def second(self, digest: str | None = None, **more: Any) -> int:
        """A second champion, by way of a trial it wins."""
        return self._won(self.approved(digest, **more))

    def _won(self, version: int) -> int:
        self.play(self.canary(version), 10.0, 490.0, 12)
        champion = self.ledger.champion(self.policy)
        assert champion is not None
        with contextlib.suppress(TransitionRefused):  # a server that watches may be quicker
            self.ledger.promote(
                version, expected_generation=champion.generation, who=Who("server", "better")
            )
        found = self.ledger.champion(self.policy)
        assert found is not None
        assert found.version == version
        return version


@pytest.fixture
def steps(ledger: Ledger) -> Steps:
    return Steps(ledger)


class Home:
    """A home folder with a ledger and a store, and candidates that went through both."""

    def __init__(self, folder: Path, make: Callable[..., Candidate]) -> None:
        self.settings = Settings(home=folder).resolved()
        self.ledger = Ledger(self.settings.database_url)
        self.store = ArtefactStore(folder / "artefacts")
        self.steps = Steps(self.ledger)
        self._make = make

    def of(self, policy: str) -> Home:
        """The same home, for another policy, which is made where there is none of that name."""
        self.ledger.add_policy(policy, who=Who("ann", "another one"))
        other = copy.copy(self)
        other.steps = Steps(self.ledger, policy)
        return other

    def candidate(self, **options: Any) -> str:
        return self.store.put(self._make(**options).path)

    def first(self, **options: Any) -> int:
        return self.steps.first(**self._new(**options))

    def approved(self, **options: Any) -> int:
        return self.steps.approved(**self._new(**options))

    def second(self, **options: Any) -> int:
        return self.steps.second(**self._new(**options))

    def _new(self, **options: Any) -> dict[str, Any]:
        digest = self.candidate(**options)
        return {"digest": digest, "manifest": self.store.load(digest).manifest}


@pytest.fixture
def home(tmp_path: Path, make_candidate: Callable[..., Candidate]) -> Iterator[Home]:
    made = Home(tmp_path / "home", make_candidate)
    yield made
    made.ledger.close()


@pytest.fixture
def tokens(home: Home) -> Tokens:
    """Of a ledger with two policies: the default one's champion is version 1, arm's is 2."""
    home.first()
    home.of("arm").first(more=2, flip=True)
    return Tokens(Database(home.settings.database_url))


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with one champion, for tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("shared")
    made = Home(folder / "home", maker(folder))
    made.first()
    yield made
    made.ledger.close()


@contextlib.contextmanager
def run_server(
    home: Any, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`srghn serve` on a free port, until the block ends; gives its URL and process."""
    command = [sys.executable, "-m", "srghn.start", "serve", "--port", "0"]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SRGHN_")}
    variables |= {"SRGHN_HOME": str(home.settings.home), **(environment or {})}
    log = (home.settings.home / "server.log").open("w")
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=variables
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.match(r"srghn serves https?://127\.0\.0\.1:", line), line
        url = line.split()[-1]
        with contextlib.suppress(httpx.TransportError):  # one that ends at once is looked at, too
            httpx.get(f"{url}/health/live", verify=False, timeout=120)  # until it has started
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(120)
        process.stdout.close()
        log.close()


@pytest.fixture
def running() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """`with running(home, *options) as (url, process)`: a real server."""
    return run_server
