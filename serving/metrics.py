"""Prometheus metrics: what this worker counts, and what the ledger says."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from serving.registry.records import Canary, Champion, Event

_BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
#: Set by `serving.__main__` for several workers; prometheus_client shares counts through its files.
_SHARED = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """One worker's metrics. Counts of workers are summed; the ledger's are the same in each."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.requests = Counter(
            "srghn_inference_requests",
            "Inference requests by route and status code.",
            ["route", "code"],
            registry=own,
        )
        self.seconds = Histogram(
            "srghn_inference_duration_seconds",
            "Time from a request's body to its answer.",
            buckets=_BUCKETS,
            registry=own,
        )
        self.inflight = Gauge(
            "srghn_inference_inflight_requests",
            "Inference requests being answered.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self.load_failures = Counter(
            "srghn_model_load_failures", "Versions that did not load.", registry=own
        )
        self.ledger_errors = Counter(
            "srghn_ledger_errors", "Times the ledger could not be used.", registry=own
        )
        self.served_generation = Gauge(
            "srghn_served_generation",
            "Champion generation this worker has loaded; differs while workers follow.",
            ["worker"],
            multiprocess_mode="liveall",
            registry=own,
        )
        self.ledger = LedgerView()
        self._shown = CollectorRegistry()
        if _SHARED in os.environ:
            forget_dead_workers(Path(os.environ[_SHARED]))
            MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]
        else:
            self._shown = own
        self._shown.register(self.ledger)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._shown)


def forget_dead_workers(folder: Path) -> None:
    """Drop the gauges of workers that ended; called by the worker that takes their place."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class LedgerView(Collector):
    """Metrics read off the ledger's events, so that they survive restarts and count once."""

    def __init__(self) -> None:
        self.seq = 0
        self.champion: Champion | None = None
        self.canary: Canary | None = None
        self._steps: Tally[tuple[str, ...]] = Tally()
        self._verdicts: Tally[tuple[str, ...]] = Tally()
        self._rollbacks: Tally[tuple[str, ...]] = Tally()
        self._promoted: dict[int, float] = {}
        self._checks: list[Mapping[str, Any]] = []

    def add(self, events: Iterable[Event], seconds: Iterable[float]) -> None:
        """Take in new events with their times, in Unix seconds."""
        for event, at in zip(events, seconds, strict=True):
            self.seq = event.seq
            if event.to_state is None:
                continue  # of the policy, and of no version
            self._steps[(event.from_state or "", event.to_state)] += 1
            if event.from_state == "EVALUATING":
                self._verdicts[(event.to_state.lower(),)] += 1
            if event.to_state == "CHAMPION":
                self._promoted[event.generation] = at
                if event.action in ("rollback", "revoke"):
                    self._rollbacks[(event.action,)] += 1

    def add_checks(self, verdict: Mapping[str, Any]) -> None:
        """The checks of the latest verdict."""
        self._checks = [check for check in verdict.get("checks", []) if "name" in check]

    def collect(self) -> Iterable[Metric]:
        yield from self._pointer()
        yield _counter("transitions", "Steps of versions.", ["from", "to"], self._steps)
        yield _counter("gate_decisions", "Verdicts of the gate.", ["verdict"], self._verdicts)
        yield _counter("rollbacks", "Champions brought back.", ["reason"], self._rollbacks)
        for name in ("value", "threshold"):
            family = GaugeMetricFamily(
                f"srghn_gate_check_{name}",
                f"The {name} of a check, latest verdict.",
                None,
                ["check"],
            )
            for check in self._checks:
                if isinstance(check.get(name), int | float):
                    family.add_metric([str(check["name"])], float(check[name]))
            yield family

    def _pointer(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "srghn_champion_info", "The champion.", None, ["version", "digest", "env"]
        )
        champion = self.champion
        if champion is not None:
            info.add_metric([str(champion.version), champion.digest, champion.env_fingerprint], 1)
        yield info
        generation = champion.generation if champion else 0
        yield _gauge("champion_generation", "Champions so far.", generation)
        weight = self.canary.weight if self.canary else 0.0
        yield _gauge("canary_weight_ratio", "The canary's share of episodes.", weight)
        promoted = self._promoted.get(generation, 0.0)
        yield _gauge("last_promotion_timestamp_seconds", "When the champion became it.", promoted)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"srghn_{name}", text, value)


def _counter(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(f"srghn_{name}", text, None, labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
