"""A run's parameters (`RunParams`) and how a machine evaluates (`EngineSettings`).

Parameters decide the result and are pinned by DVC in `params.yaml`; settings (which engine, how
many workers) never change a byte of it. Models are frozen, unknown keys are refused,
and an error names the path of the bad value and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from srghn.errors import ConfigError
from srghn.old_params import by_hand, modern_gate, modernised
from srghn.params import EVERY_FIELD as EVERY_FIELD
from srghn.params import Params as Params
from srghn.params import Worded, set_otherwise, unknown
from srghn.params import explain as explain
from srghn.suites import Suite
from srghn.yaml_files import dump_yaml, parse_yaml, read_yaml


class Switch(Params):
    """From `generation` on, the environment is in `mode`."""

    generation: int = Field(ge=0)
    mode: str


class Returns(Params):
    """The range of an episode's return that gate, trial and watch scale by."""

    low: float
    high: float

    @model_validator(mode="after")
    def _range(self) -> Returns:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        return self


class Wrapper(Params):
    """A wrapper by import path, called with the environment and these arguments."""

    path: str
    kwargs: dict[str, Any] = Field({})


class EnvParams(Params):
    """Which environment. Its pinned, fingerprinted form is `srghn.envs.EnvVersion`."""

    late = frozenset(
        {"returns", "failure_return", "max_episode_steps", "window", "fresh", "normalise"}
    )

    id: str = Field(
        "CartPoleSwitch-v1", description="a registered id, package:Id-v0, or module:Class"
    )
    kwargs: dict[str, Any] = Field({}, description="arguments of the environment's constructor")
    wrappers: tuple[str | Wrapper, ...] = Field(
        (), description="applied in order: import paths, or {path: ..., kwargs: {...}}"
    )
    schedule: tuple[Switch, ...] = Field((), description="mode switches, by lineage generation")
    backend: Literal["gymnasium", "envpool"] = Field(
        "gymnasium", description="which implementation of the environment steps it"
    )
    max_episode_steps: int | None = Field(
        None, ge=1, description="steps until truncation; None: the environment's own limit"
    )
    window: int | None = Field(None, ge=1, description="steps of one episode of an endless task")
    fresh: bool = Field(
        False,
        description="build a new environment for each episode: a used one behaves differently",
    )
    normalise: bool = Field(
        False, description="networks see (observation - mean) / deviation, measured at the pin"
    )
    returns: Returns | None = Field(
        None, description="range of returns; None: the environment's own, if it comes with srghn"
    )
    failure_return: float | None = Field(
        None, description="an episode up to this return has failed; None: its own"
    )

    @model_validator(mode="after")
    def _ordered(self) -> EnvParams:
        generations = [s.generation for s in self.schedule]
        if generations != sorted(set(generations)):
            raise ValueError("schedule must be in order of generation, each generation once")
        if self.window is not None and self.max_episode_steps is not None:
            raise ValueError("give window (a task that never ends) or max_episode_steps, not both")
        if "max_episode_steps" in self.kwargs and (self.window or self.max_episode_steps):
            raise ValueError(
                "kwargs.max_episode_steps is the old place of max_episode_steps; give one of them"
            )
        return self

    @field_validator("wrappers")
    @classmethod
    def _plain(cls, wrappers: tuple[str | Wrapper, ...]) -> tuple[str | Wrapper, ...]:
        """A wrapper without arguments is its path alone, whichever way it was written."""
        return tuple(w.path if isinstance(w, Wrapper) and not w.kwargs else w for w in wrappers)


#: The network where none is named. The default arguments are its own.
MLP = "srghn.policies:MLP"


class NetworkParams(Params):
    """Which network the genome generates. Any `torch.nn.Module` by import path."""

    late = frozenset({"stack"})

    module: str = Field(MLP, description="import path module:Class or module:make")
    stack: int = Field(
        1, ge=1, le=64, description="how many of the latest observations the network sees at once"
    )
    kwargs: dict[str, Any] = Field(
        {"hidden": [8], "activation": "tanh"}, description="arguments of the module's constructor"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_arguments(cls, data: Any) -> Any:
        """Another module named without arguments gets none: the default's are the MLP's."""
        if isinstance(data, Mapping) and "kwargs" not in data and data.get("module", MLP) != MLP:
            return {**data, "kwargs": {}}
        return data


class GHNParams(Params):
    """The self-referential graph hypernetwork (Pedersen et al. 2025, arXiv:2512.16406)."""

    late = frozenset({"frequencies", "shapes"})

    hidden: int = Field(16, ge=1, le=512, description="width of a node's vector")
    rounds: int = Field(1, ge=1, le=16, description="rounds of messages, forward and backward")
    messages: Literal["generations", "synchronous"] = Field(
        "generations", description="update nodes level by level, or all at once (with 3 rounds)"
    )
    head: Literal["dense", "chunked", "basis", "dct"] = Field(
        "dense",
        description="from a node's vector to weights: a full matrix, chunks, a basis, or cosines "
        "over outputs and inputs, which suit any width",
    )
    chunk: int = Field(64, ge=1, le=4096, description="outputs per chunk of the chunked head")
    frequencies: int = Field(
        4, ge=1, le=16, description="frequencies per dimension of the dct head"
    )
    shapes: bool = Field(False, description="whether node vectors see their tensor's shape")
    basis_width: int = Field(16, ge=1, le=1024, description="columns of the fixed random basis")
    basis_seed: int = Field(0, ge=0, description="seed of the fixed basis, constant in a lineage")
    initial_rate: float = Field(0.1, gt=0, lt=1, description="founders' rates lie around it")
    rate_min: float = Field(2e-3, gt=0, description="smallest rate, but for meta_floor")
    rate_max: float = Field(2.0, gt=0, le=10, description="largest rate, but for meta_floor")
    rate_bounds: Literal["fold", "clip"] = Field(
        "fold", description="at its bounds a rate is reflected (fold) or clipped"
    )
    rate_step: float = Field(2.0, ge=0, description="unit of the step of all rates' logarithm")
    mutator_decay: float = Field(
        0.05, ge=0, lt=1, description="share that weights which tell nodes apart lose at birth"
    )
    meta_floor: float = Field(1.0, ge=0, description="smallest rate of the rate head's own tensors")
    output_gain: float = Field(1.0, gt=0, description="scale of generated policy weights")
    birth_decay: float = Field(0.0, ge=0, lt=1, description="share of each weight lost at birth")
    keep_spread: bool = Field(
        False,
        description="at birth, a weight shrinks by as much as its mutation adds to its spread; "
        "without it, evolvability wears out (experiment many-switches)",
    )
    stress: bool = Field(
        False,
        description="after a sharp drop of fitness, births get a minimum rate until fitness has "
        "recovered; for strategies whose mutation rates evolve, such as self-referential",
    )

    @model_validator(mode="after")
    def _bounded(self) -> GHNParams:
        if not self.rate_min <= self.initial_rate <= self.rate_max:
            raise ValueError(
                f"rate_min <= initial_rate <= rate_max must hold, got {self.rate_min}, "
                f"{self.initial_rate}, {self.rate_max}"
            )
        return self


class EvolutionParams(Params):
    """Budgets, population sizes and selection.

    A run ends with `generations`, or before if a budget (`seconds`, `evaluations`, `until`) is met.
    """

    late = frozenset(
        {"companions", "mode", "seconds", "evaluations", "until", "until_episodes", "newcomers"}
    ) | {"architectures"}
    former: ClassVar[Mapping[str, Any]] = {"newcomers": 0.0}

    strategy: str = Field("self-referential", description="a name in srghn.evolution.STRATEGIES")
    options: dict[str, Any] = Field({}, description="options of that strategy")
    seed: int = Field(0, ge=0, lt=2**31, description="root of every random stream of the run")
    generations: int = Field(60, ge=1, description="generations that this run adds to its lineage")
    seconds: float | None = Field(
        None,
        gt=0,
        description="stop after this much time evolving, without pauses; not reproducible by seed",
    )
    evaluations: int | None = Field(
        None, ge=1, description="stop once this many episodes were evaluated"
    )
    until: float | None = Field(
        None,
        description="stop once the best individual reaches this mean return, on its own episodes "
        "and again on until_episodes fresh ones, which are not counted",
    )
    until_episodes: int = Field(64, ge=1, description="fresh episodes on which until is tested")
    parents: int = Field(6, ge=1, description="individuals that survive a generation")
    children: int = Field(10, ge=1, description="children per parent")
    episodes: int = Field(8, ge=1, description="episodes per individual and generation")
    selection: Literal["plus", "comma", "tournament"] = Field(
        "plus",
        description="plus: parents compete with their children; comma: they do not. Experiment "
        "ablation found both equal in recovery, and tournaments slower",
    )
    tournament_size: int = Field(
        3, ge=2, description="individuals in a tournament, where selection is tournament"
    )
    elites: int = Field(1, ge=0, description="best individuals kept, with comma and tournament")
    family_limit: int = Field(
        2, ge=0, description="most survivors of a parent and its children; 0: no limit"
    )
    ties: Literal["parents", "children", "random"] = Field(
        "random",
        description="who survives at equal fitness. At a ceiling, 'parents' keeps the rates that "
        "reached it; 'random' favours those whose children stay there",
    )
    racing: int = Field(
        0, ge=0, description="episodes after which only the best play the rest; 0: all do"
    )
    racing_share: float = Field(0.34, gt=0, lt=1, description="share that plays the rest")
    memory: int | None = Field(
        None,
        ge=0,
        le=64,
        description="former best individuals, stored when fitness drops, that then compete once; "
        "None: 8 in strategies with births, but for restart",
    )
    newcomers: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of births that are new founders, from a drop of fitness until it has "
        "recovered; None: 0.5 in strategies with births, but for restart",
    )
    architectures: tuple[dict[str, Any], ...] = Field(
        (),
        description="network.kwargs of further networks of each genome; fitness is the mean of all",
    )
    checkpoint_every: int = Field(
        256, ge=1, description="generations between checkpoints that begin a new part of the tables"
    )
    ancestor: str | None = Field(
        None, description="digest of the candidate that this lineage continues"
    )
    companions: tuple[str, ...] = Field(
        (), description="digests of further candidates that found it, beside the ancestor"
    )
    mode: str | None = Field(
        None, description="the one mode to evolve in; None: the world's, by its schedule"
    )

    @model_validator(mode="after")
    def _raced(self) -> EvolutionParams:
        if self.racing and self.racing >= self.episodes:
            raise ValueError(
                f"racing must leave episodes to play: expected less than episodes "
                f"({self.episodes}), got {self.racing}"
            )
        if self.companions and self.ancestor is None:
            raise ValueError("companions join an ancestor: name the candidate it goes on from")
        return self


class EvaluateParams(Params):
    """Which finalist becomes the candidate: finalists are evaluated again on fresh seeds.

    Those within `tolerance` of the best mean return are equals; of them the one whose worst
    perturbed cell is best is chosen.
    """

    finalists: int = Field(8, ge=1, description="best individuals that are evaluated again")
    episodes: int = Field(64, ge=1, description="fresh episodes for each finalist")
    cell_episodes: int = Field(8, ge=0, description="episodes in each perturbed cell; 0: none")
    tolerance: float = Field(0.01, ge=0, lt=1, description="share of the best mean return")


class GateParams(Params):
    """The gate rules: what a candidate must show. Their digest is part of every verdict.

    Margins and gains are shares of the range of returns; returns beyond it are clipped. Range and
    failure are the world's where they are not given (`regression_suite.suite.resolved`). What a
    suite file says of them (`srghn.suites.RULES`) holds; saying otherwise here is refused.
    """

    late = frozenset({"suite"})

    episodes: int = Field(600, ge=20, description="planned paired episodes in the primary cell")
    cell_episodes: int = Field(300, ge=20, description="planned paired episodes in every other")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="probability that a verdict is right")
    return_low: float | None = Field(
        None, description="lower end of the range of returns; None: the environment's"
    )
    return_high: float | None = Field(None, description="its upper end; None: the environment's")
    margin: float = Field(0.05, gt=0, lt=1, description="non-inferiority margin, primary cell")
    cell_margin: float = Field(0.1, gt=0, lt=1, description="... in every other cell")
    tail_margin: float = Field(0.3, gt=0, lt=1, description="... of the worst tenth of episodes")
    min_gain: float = Field(0.01, ge=0, lt=1, description="smallest gain that counts as better")
    failure_return: float | None = Field(
        None, description="episodes up to this return failed; None: the environment's"
    )
    failure_margin: float = Field(
        0.05, gt=0, lt=1, description="how far its failure rate may exceed the champion's"
    )
    cell_failure_margin: float = Field(0.1, gt=0, lt=1, description="... in every other cell")
    max_failure_rate: float = Field(
        0.05, gt=0, lt=1, description="largest failure rate of a first champion"
    )
    max_cell_failure_rate: float = Field(0.25, gt=0, lt=1, description="... in every other cell")
    ceiling: float | None = Field(500.0, description="highest possible return, if there is one")
    min_return: float = Field(475.0, description="the first champion's mean return must reach this")
    min_cell_return: float = Field(100.0, description="... and in every other cell this")
    superiority: bool = Field(True, description="must beat the incumbent, not merely match it")
    secondary_gains: tuple[Literal["worst_tenth", "cells", "size"], ...] = Field(
        (), description="gains that may pass a candidate that is no worse otherwise"
    )
    modes_bind: bool = Field(False, description="other modes bind like perturbed cells")
    perturbations: tuple[str, ...] | None = Field(
        None, description="the cells as a list of kind:severity; None: the suite's"
    )
    suite: Suite | None = Field(
        None, description="a suite file (srghn suite new); None: the world's own suite"
    )
    max_latency_ms: float = Field(
        5.0, gt=0, description="largest latency, where the reference network takes 0.02 ms"
    )
    max_policy_bytes: int = Field(10_000_000, gt=0, description="largest size of policy.onnx")
    attempts: int = Field(
        3, ge=1, le=10, description="most evaluations of a candidate under the same rules"
    )
    spending: Literal["none", "candidates"] = Field(
        "none", description="candidates: divide alpha among all candidates against one champion"
    )
    salt: str = Field(
        "srghn-gate-1",
        description="part of the seed of the gate's episodes, with the ledger's lease; without a "
        "ledger with the candidate's digest",
    )

    @model_validator(mode="after")
    def _one_list_of_cells(self) -> GateParams:
        if self.suite is not None and self.perturbations is not None:
            raise ValueError("give gate.suite or gate.perturbations, not both")
        return self

    @model_validator(mode="before")
    @classmethod
    def _without_incumbent(cls, data: Any) -> Any:
        """Until 0.2 the incumbent's digest was a parameter; now the lease holds it."""
        if isinstance(data, Mapping):
            return {name: value for name, value in data.items() if name != "incumbent"}
        return data

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        modern = modern_gate(data)
        if modern.get("suite") is None:
            return modern
        suite = Suite.read(modern["suite"])
        for name, value in suite.rules.items():
            given, default = modern.get(name), cls.model_fields[name].default
            if name in modern and given not in (default, value):
                worlds = f" (for {', '.join(suite.worlds)})" if suite.worlds else ""
                raise ValueError(
                    f"gate.{name} is {given!r}, but suite {suite.name}{worlds} says {value!r}; "
                    "change it in one of them"
                )
        return {**modern, **suite.rules, "suite": suite}


class CanaryParams(Params):
    """How a candidate is tried on a share of live episodes."""

    weight: float = Field(0.5, gt=0, lt=1, description="share of episodes routed to the canary")
    min_episodes: int = Field(20, ge=1, description="outcomes needed before it may be promoted")
    max_episodes: int = Field(2000, ge=2, description="episodes after which the trial expires")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="probability that a decision is right, whenever it is made"
    )
    return_low: float | None = Field(None, description="lowest return; None: the gate's")
    return_high: float | None = Field(None, description="highest return; None: the gate's")
    margin: float = Field(
        0.05, gt=0, lt=1, description="share of the range that the canary may be worse"
    )

    @model_validator(mode="after")
    def _range(self) -> CanaryParams:
        low, high = self.return_low, self.return_high
        if low is not None and high is not None and not low < high:
            raise ValueError(f"return_low must be below return_high, got {low:g} and {high:g}")
        return self


class RunParams(Params):
    """All that decides the outcome of a run: the contents of `params.yaml`."""

    env: EnvParams = EnvParams()
    network: NetworkParams = NetworkParams()
    ghn: GHNParams = GHNParams()
    evolution: EvolutionParams = EvolutionParams()
    evaluate: EvaluateParams = EvaluateParams()
    gate: GateParams = GateParams()
    canary: CanaryParams = CanaryParams()

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: Any) -> Any:
        return modernised(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _different(self) -> RunParams:
        for k, network in enumerate(self.networks):
            if network in self.networks[:k]:
                raise ValueError(f"evolution.architectures gives {network.kwargs} again")
        return self

    @property
    def networks(self) -> tuple[NetworkParams, ...]:
        """The network and those of `evolution.architectures`, whose kwargs are laid over its."""
        others = ({**self.network.kwargs, **each} for each in self.evolution.architectures)
        return (self.network, *(self.network.model_copy(update={"kwargs": k}) for k in others))

    def to_yaml(self) -> str:
        data = self.model_dump(mode="json")
        data["evolution"].setdefault("newcomers", self.evolution.newcomers)  # no record: a file
        return dump_yaml(data)


class EngineSettings(Worded):
    """How a machine evaluates: settings, not parameters, for they never change a byte of a result.

    `serving.settings.Settings` adds where things are kept and served, and reads `SRGHN_*`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["inprocess", "processes", "dask"] = Field(
        "inprocess", description="where episodes are played: in this process, in several, on Dask"
    )
    workers: int = Field(0, ge=0, description="worker processes; 0: one per core")
    dask_address: str = Field("", description="the Dask scheduler that the dask engine uses")
    shard_deadline: float = Field(300.0, gt=0, description="seconds a shard may take")


def parse_params(data: Mapping[str, Any], source: str, *, recorded: bool = False) -> RunParams:
    """Validate a mapping as `RunParams`; `source` (a file's name) opens the message on failure.

    What it leaves out is today's default, or where a run `recorded` it, that of the run's version.
    """
    try:
        return RunParams.model_validate(data if recorded else by_hand(data))
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, model=RunParams)}") from error


def load_params(path: Path | str, *, recorded: bool = False) -> RunParams:
    """Read `params.yaml`, as `parse_params`; raises `ConfigError` naming the file and the value.

    A suite file that it names lies beside it, unless its path is absolute.
    """
    path = Path(path)
    data = read_yaml(path)
    gate = data.get("gate")
    if isinstance(gate, Mapping) and isinstance(gate.get("suite"), str):
        data = {**data, "gate": {**gate, "suite": str(path.parent / gate["suite"])}}
    return parse_params(data, str(path), recorded=recorded)


def with_overrides(params: RunParams, assignments: Iterable[str]) -> RunParams:
    """Apply `section.key=value` strings (values are YAML); unknown keys name the nearest known.

    Where they name a module in place of the MLP, the MLP's arguments do not go to it.
    """
    data = params.model_dump(mode="json", context=EVERY_FIELD)
    assignments = tuple(assignments)
    if params.network.module == MLP and set_otherwise(assignments, "module", MLP):
        data["network"]["kwargs"] = {}
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign:
            raise ConfigError(f"--set takes section.key=value, got {assignment!r}")
        keys, node = path.strip().split("."), data
        keys[:1] = modernised({keys[0]: None})  # the name of a section, as any version wrote it
        for depth, key in enumerate(keys):
            free = depth >= 2  # below section.key lie free-form mappings such as env.kwargs
            if not isinstance(node, dict) or (key not in node and not free):
                raise ConfigError(unknown(".".join(keys[: depth + 1]), node))
            if depth == len(keys) - 1:
                node[key] = parse_yaml(text, f"--set {assignment}")
            else:
                if node.get(key) is None:  # a group that was not set
                    node[key] = {}
                node = node[key]
    return parse_params(data, "--set")
