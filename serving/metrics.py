"""Prometheus metrics: the workers' counts, and figures from the ledger."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.control.shadow import TriedView
from serving.control.watch import WatchView
from serving.counts import Counts, Total
from serving.registry.ledger import POLICY
from serving.registry.records import Canary, Champion, Event, Holdback

#: The folder where the workers of one server keep their counts; set by `serving.serve`.
SHARED = "SRGHN_COUNTS_FOLDER"
_TEXTS = {
    "load_failures": ("model_load_failures", "Versions that did not load."),
    "ledger_errors": ("ledger_errors", "Times the ledger could not be used."),
    "unpinned_episodes": ("unpinned_episodes", "Episodes whose start could not be recorded."),
    "shadow_dropped": ("shadow_dropped", "Copies of requests that no shadow answered."),
    "shadow_outside": ("shadow_outside", "Those whose observation is far outside its bounds."),
    "refused_connections": ("refused_connections", "Connections turned away at the limit."),
}


class Metrics:
    """One policy's metrics: sums over the workers, and figures from the ledger."""

    def __init__(self, policy: str = POLICY) -> None:
        folder = os.environ.get(SHARED)
        self.policy = policy
        self.counts = Counts(Path(folder) if folder else None, policy)
        self.ledger = LedgerView()

    def families(self) -> Iterator[Metric]:
        """All metrics; those of a named policy have the label `policy`."""
        for family in chain(CountsView(self.counts).collect(), self.ledger.collect()):
            if self.policy != POLICY:
                labelled = [{"policy": self.policy, **s.labels} for s in family.samples]
                pairs = zip(family.samples, labelled, strict=True)
                family.samples = [sample._replace(labels=labels) for sample, labels in pairs]
            yield family


class Together(Collector):
    """The metrics of several policies; each name occurs once."""

    def __init__(self, metrics: Iterable[Metrics]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for metrics in self._metrics:
            for family in metrics.families():
                known = found.setdefault(family.name, family)
                if known is not family:
                    known.samples += family.samples
        return found.values()


def exposition(metrics: Iterable[Metrics]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Together(metrics))
    return generate_latest(registry)


class CountsView(Collector):
    """The workers' counts, read at each scrape."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        total = self._counts.total()
        requests: dict[tuple[str, ...], float] = {
            (route, str(code)): n for route, code, n in total.requests()
        }
        text = "Inference requests by route and status code."
        yield _counter("inference_requests", text, ["route", "code"], requests)
        yield HistogramMetricFamily(
            "srghn_inference_duration_seconds",
            "Time from a request's headers to its answer.",
            total.buckets(),
            total.seconds,
        )
        text = "Inference requests being answered."
        yield _gauge("inference_inflight_requests", text, total.inflight)
        for name, (shown, text) in _TEXTS.items():
            yield _counter(shown, text, [], {(): total.counter(name)})
        yield _generations(total)


def _generations(total: Total) -> Metric:
    family = GaugeMetricFamily(
        "srghn_served_generation",
        "Champion generation that a worker has loaded; differs during a swap.",
        None,
        ["worker"],
    )
    for pid, generation in total.generations.items():
        family.add_metric([str(pid)], generation)
    return family


class LedgerView(Collector):
    """Metrics from the ledger's events, so they survive restarts and count each event once."""

    def __init__(self) -> None:
        self.seq = 0
        self.champion: Champion | None = None
        self.canary: Canary | None = None
        self.watch: WatchView | None = None
        self.tried: list[TriedView] = []
        self.holdback: Holdback | None = None
        self._steps: Tally[tuple[str, ...]] = Tally()
        self._verdicts: Tally[tuple[str, ...]] = Tally()
        # 0 from the start, because Prometheus sees no increase in a series that begins at 1
        self._rollbacks: Tally[tuple[str, ...]] = Tally(
            {("rollback",): 0, ("rollback_by_holdback",): 0, ("revoke",): 0}
        )
        self._promoted: dict[int, float] = {}
        self._checks: list[Mapping[str, Any]] = []

    def add(self, events: Iterable[Event], seconds: Iterable[float]) -> None:
        """Take in new events with their times, in Unix seconds."""
        for event, at in zip(events, seconds, strict=True):
            self.seq = event.seq
            if event.to_state is None:
                continue  # an event of the policy, not of a version
            self._steps[(event.from_state or "", event.to_state)] += 1
            if event.from_state == "EVALUATING":
                self._verdicts[(event.to_state.lower(),)] += 1
            if event.to_state == "CHAMPION":
                self._promoted[event.generation] = at
                if event.action in ("rollback", "rollback_by_holdback", "revoke"):
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

    def _copies(self) -> Iterable[Metric]:
        """The results of copies of requests; the label `route` says of shadow or canary."""
        answered = _of_copies("shadow_copies", "Copies of requests answered.", ["route"])
        differ = _of_copies(
            "shadow_disagreement_ratio", "Share of copies with another action.", ["route"]
        )
        slower = _of_copies(
            "shadow_latency_ratio", "Mean time to answer over the champion's.", ["route"]
        )
        failed = _of_copies(
            "shadow_failures", "Copies on which only one of the two policies failed.",
            ["route", "kind", "version"],
        )  # fmt: skip
        near = _of_copies("guard_ratio", "Evidence of a guard; it acts at 1.", ["route", "guard"])
        for one in self.tried:
            seen = one.seen
            answered.add_metric([one.kind], seen.copies)
            differ.add_metric([one.kind], seen.disagreement or 0.0)
            slower.add_metric([one.kind], seen.latency_ratio or 0.0)
            for kind, tried, champion in (
                ("error", seen.errors, seen.champion_errors),
                ("invalid", seen.invalid, seen.champion_invalid),
            ):
                failed.add_metric([one.kind, kind, "tried"], tried)
                failed.add_metric([one.kind, kind, "champion"], champion)
            for guard in one.guards:
                near.add_metric([one.kind, guard.name], guard.capital / guard.needed)
        yield from (answered, differ, slower, failed, near)

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
        if self.watch is not None:
            share = self.watch.level / self.watch.run_length if self.watch.run_length else 0.0
            yield _gauge("watch_level_ratio", "Evidence of the watch; it alarms at 1.", share)
            alarm = float(self.watch.status == "drift")
            yield _gauge("watch_alarm", "1 while returns are below the gate's promise.", alarm)
            blind = float(self.watch.status == "blind")
            yield _gauge("watch_blind", "1 while too few episodes have an outcome.", blind)
            missing = float(self.watch.missing is not None)
            what = "1 while more outcomes are missing than when the champion came."
            yield _gauge("watch_missing", what, missing)
            if self.watch.observations is not None:
                score = self.watch.observations.distance
                what = "How far observations are from those of the sandbox, 0 to 1."
                yield _gauge("watch_observations_distance", what, score)
                moved = float(self.watch.observations.moved)
                what = "1 while observations are not where they were in the sandbox."
                yield _gauge("watch_observations_moved", what, moved)
        share = self.holdback.share if self.holdback else 0.0
        yield _gauge("holdback_share_ratio", "Episodes that stay on the predecessor.", share)
        yield from self._copies()
        weight = self.canary.weight if self.canary else 0.0
        yield _gauge("canary_weight_ratio", "The canary's share of episodes.", weight)
        promoted = self._promoted.get(generation, 0.0)
        yield _gauge(
            "last_promotion_timestamp_seconds", "Time of the champion's promotion.", promoted
        )


def _of_copies(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"srghn_{name}", text, None, labels)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"srghn_{name}", text, value)


def _counter(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(f"srghn_{name}", text, None, labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
