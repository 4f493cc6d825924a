"""`srghn demo`: the whole loop on CartPole, through every real part, in one terminal.

Every step checks the present state before it acts. So a killed demo resumes where it was, and a
finished one shows its results and asks the server again.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import closing, nullcontext
from typing import Any
from uuid import uuid4

import numpy as np
from rich.table import Table

from pipelines.demo.clients import Client, play_many
from pipelines.progress import bar, console, spinner
from pipelines.runs.prepare import prepare
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace, require_writable
from pipelines.runs.worlds import pin_world
from pipelines.services.prefect_server import prefect_server
from pipelines.services.processes import free_port
from pipelines.services.up import http_server
from pipelines.versions.judge import judge_version
from pipelines.versions.release import Release, outcome
from serving.registry.records import Champion, Version, Who
from serving.registry.rules import DeploymentRules
from serving.registry.schema import POLICY
from serving.settings import Settings
from serving.trial.rules import TrialTerms
from srghn import seeding
from srghn.candidates.play import play_candidate
from srghn.envs import EnvVersion
from srghn.errors import ConfigError, SrghnError
from srghn.files import atomic_write
from srghn.inference.verdict import Verdict

PRESET = "cartpole-switch"
FIRST, SECOND, BAD = "demo-first", "demo-second", "demo-bad"
EPISODES = 100
#: Simulated episodes after which the demo stops waiting for the canary's evidence.
TRIAL_EPISODES = 400
#: Seconds after which an episode of a killed client counts as missing. Evidence is in order of
#: start, so the trial waits for it. The longest episode takes some seconds.
TRIAL_DEADLINE_SECONDS = 45.0


def run_demo(settings: Settings, seed: int) -> dict[str, Any]:
    """Run the loop; returns the figures of the last table.

    Raises `SrghnError` that names the failed step. A home with a champion that is not the demo's
    own is refused, because the demo would judge against it.
    """
    require_writable(settings.home)
    demo = _Demo(settings, seed)
    demo.check_home()
    left = not (demo.is_done(FIRST) and demo.is_done(SECOND))
    with prefect_server(settings, spinner("starting a Prefect server")) if left else nullcontext():
        version = demo.pin()
        demo.first()
        told = settings.model_copy(update={"unblind": True})  # the story shows both arms
        with http_server(told, free_port()) as url:
            demo.ask(url, version, "normal")
            demo.set_rules()
            demo.second()
            demo.trial(url, version)
            demo.refuse(version)
            result = demo.sum_up(version)
    return result


class _Demo:
    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.release = Release(settings)
        self.ledger = self.release.ledger

    # ------------------------------------------------------------------------------- steps

    def check_home(self) -> None:
        champion = self.ledger.champion()
        if champion and not self.ledger.version(champion.version).run_id.startswith("demo-"):
            raise ConfigError(
                f"{self.settings.home} serves version {champion.version}, which is not the "
                "demo's; give the demo a home of its own: SRGHN_HOME=demo-home srghn demo"
            )
        workspace = self._workspace(FIRST)
        if workspace.params_file.exists() and workspace.params().evolution.seed != self.seed:
            raise ConfigError(
                f"{self.settings.home} holds a demo with seed {workspace.params().evolution.seed}, "
                f"not {self.seed}; use that seed, or another home: SRGHN_HOME=demo-home srghn demo"
            )

    def pin(self) -> EnvVersion:
        _step(1, "Pin the environment: CartPole whose actions swap meaning at generation 60")
        with spinner("running fixed actions on fixed seeds"):
            version, path = pin_world(self.settings, PRESET, ())
        _say(f"{version.id}, modes {' and '.join(version.modes)}")
        _say(f"fingerprint {version.fingerprint}")
        _say(f"[dim]{path}[/dim]")
        return version

    def first(self) -> None:
        _step(2, "Evolve, freeze, judge and promote the first champion (mode normal)")
        self._run(FIRST, "scratch")

    def ask(self, url: str, version: EnvVersion, mode: str) -> None:
        _step(3, f"Ask the served champion for every action of an episode ({mode})")
        seed = seeding.seed(self.seed, "demo-ask", self._champion().digest) & 0x7FFFFFFF
        with closing(Client(url)) as client, bar("episode over HTTP", 1) as update:
            served = client.get("/v1/champion")
            played = client.play(version, served["mode"], seed, f"ask-{uuid4().hex}")
            update(1, "")
        chance = _random_return(version, served["mode"], seed)
        _say(
            f"version {played.version} answered {played.length} requests at {url}: return "
            f"[bold]{played.return_:.0f}[/bold]; a random policy gets {chance:.0f} on this episode"
        )

    def set_rules(self) -> None:
        """The operator's rule for trials: these episodes are short."""
        wanted = DeploymentRules(trial=TrialTerms(deadline=TRIAL_DEADLINE_SECONDS))
        if self.ledger.deployment_rules() != wanted:
            who = Who("demo", "an episode of CartPole takes seconds")
            self.ledger.set_deployment_rules(wanted, who=who)

    def second(self) -> None:
        _step(
            4, "The environment switches: actions are flipped. Evolution goes on from the champion"
        )
        if self.ledger.service_mode() != "flipped":
            who = Who("demo", "the world has switched: actions are flipped")
            self.ledger.set_mode(POLICY, "flipped", who=who)
        self._run(SECOND, "champion")

    def trial(self, url: str, version: EnvVersion) -> None:
        _step(
            5, "Try it as a canary: it answers some of the episodes of clients in the flipped mode"
        )
        if self.ledger.canary() is None:
            self._tell_trial()
            return
        self._wait_for_open_episodes()
        # New seeds for each start: a killed demo's episodes are evidence already, and a seed that
        # is played twice would count twice.
        start = uuid4().hex
        seeds = seeding.seeds(self.seed, "demo-clients", TRIAL_EPISODES, start).tolist()
        returns: dict[str, list[float]] = {"champion": [], "canary": []}
        with bar("clients' episodes", TRIAL_EPISODES) as update:
            episodes = play_many(url, version, "flipped", seeds, f"trial-{start}")
            for count, played in enumerate(episodes, start=1):
                if played.route in returns:  # after the decision, running episodes have no arm
                    returns[played.route].append(played.return_)
                update(count, _arms(returns))
                if self.ledger.canary() is None:
                    break
        self._tell_trial()

    def refuse(self, version: EnvVersion) -> None:
        _step(6, "A bad candidate: the founder, with which evolution began")
        number = self._bad_version(version)
        if self.ledger.version(number).report_digest is None:
            self._judge_bad(number)
        _, verdict = self._verdict(number)
        state = self.ledger.version(number).state
        _say(f"version {number} is [bold]{state}[/bold]")
        _say(verdict.summary, markup=False)
        if verdict.passed:
            raise SrghnError(
                "the bad candidate passed the gate; this is a defect, please report it"
            )

    def sum_up(self, version: EnvVersion) -> dict[str, Any]:
        champion = self._champion()
        candidate = self.release.store.load(champion.digest)
        with spinner(f"running {EPISODES} fresh episodes in every mode"):
            returns = {
                mode: float(play_candidate(candidate, EPISODES, mode=mode).fitness[0])
                for mode in version.modes
            }
        report = str(self.release.report_page(champion.version))
        self.release.deliver()
        rows = Table(title="champion", title_justify="left", show_header=False)
        rows.add_row("version", f"{champion.version}, champion generation {champion.generation}")
        rows.add_row("since, by", f"{champion.since}, {champion.by}")
        for mode, mean in returns.items():
            rows.add_row(f"return, {mode}", f"{mean:.1f} (mean of {EPISODES} fresh episodes)")
        console.print()
        console.print(rows)
        console.print(f"report: {report}", markup=False, soft_wrap=True)
        console.print("\nNext steps:")
        for command, what in (
            ('srghn schedule add nightly --cron "0 3 * * *"', "schedule evolution runs"),
            (f"srghn report {champion.version} --open", "review the promotion report"),
            ("srghn serve", "query the champion over HTTP"),
        ):
            console.print(f"  [bold]{command:<48}[/bold] {what}")
        return {
            "champion": vars(champion),
            "returns": returns,
            "report": report,
            "env_fingerprint": version.fingerprint,
            "versions": {v.version: str(v.state) for v in self.ledger.versions()},
        }

    # ------------------------------------------------------------------------------- pieces

    def is_done(self, run_id: str) -> bool:
        """Whether that run's version has a verdict, and nothing more is to be done with it."""
        judged = self._judged(run_id)
        return bool(judged) and judged[-1].state not in ("PASSED", "APPROVED")

    def _run(self, run_id: str, start: str) -> None:
        """Evolve and gate in a workspace with a fixed name, unless that is done."""
        if self.is_done(run_id):
            _say("[dim]done before; kept[/dim]")
        else:
            workspace = self._workspace(run_id)
            if not workspace.params_file.exists():
                overrides = (f"evolution.seed={self.seed}",)
                params = prepare(self.settings, PRESET, overrides, start)
                create_workspace(self.settings, run_id, params)
            from pipelines.runs.flow import evolve_and_gate

            evolve_and_gate(approve="auto", run_id=run_id)
        version, verdict = self._verdict(self._judged(run_id)[-1].version)
        manifest = self.ledger.version(version).manifest
        _say(
            f"candidate of generation {manifest['generation']}, "
            f"mean return {manifest['validation']['mean']:.0f} over "
            f"{manifest['validation']['episodes']} fresh episodes, mode {manifest['mode']}"
        )
        _say(verdict.summary, markup=False)
        _say(f"version {version} is [bold]{self.ledger.version(version).state}[/bold]")
        _say(f"[dim]{self.release.report_page(version)}[/dim]")
        if not verdict.passed:
            raise SrghnError(f"the demo's candidate did not pass the gate: {verdict.summary}")

    def _wait_for_open_episodes(self) -> None:
        """Wait until a killed demo's episodes count as missing: evidence is in order of start."""
        trial = self.ledger.canary()
        assert trial is not None
        rows = self.ledger.resolved(trial.policy, trial.epoch, 0, math.inf)
        left = max((row.deadline for row in rows if row.ended_at is None), default=0) - time.time()
        if left > 0:
            with spinner(f"a killed demo left episodes without an outcome: {left:.0f} s"):
                time.sleep(left)

    def _tell_trial(self) -> None:
        events = [e for e in self.ledger.events() if e.from_state == "CANARY"]
        if self.ledger.canary() is not None or not events:
            _say(f"no decision after {TRIAL_EPISODES} episodes; run the demo again to continue")
            return
        last = events[-1]
        _say(f"version {last.version} is [bold]{last.to_state}[/bold], decided by {last.actor}")
        _say(last.reason, markup=False)

    def _bad_version(self, version: EnvVersion) -> int:
        known = [v.version for v in self.ledger.versions() if v.run_id == BAD]
        if known:
            return known[-1]
        from srghn.candidates.individual import freeze_founder
        from srghn.evolution.run import load_run

        first, bad = self._workspace(FIRST), self._workspace(BAD)
        if not bad.params_file.exists():
            create_workspace(self.settings, BAD, first.params())
        version.save(bad.env_version)
        with spinner("freezing it"):
            freeze_founder(load_run(first.run), bad.candidate, "flipped")
        return self.release.register(bad.candidate, BAD, first.params())

    def _judge_bad(self, number: int) -> None:
        """Judge by calling the stage function, because there is no run for DVC to depend on."""
        workspace, key = self._workspace(BAD), f"{BAD}:{self._champion().digest[:12]}"
        verdict = judge_version(self.release, number, workspace, key, sit=STAGES["gate"])
        found = self.ledger.version(number)
        page = self.release.report_page(number)
        summed = outcome(workspace, found, verdict, found.manifest, page)
        atomic_write(workspace.outcome, json.dumps(summed, indent=1))

    def _verdict(self, number: int) -> tuple[int, Verdict]:
        found = self.ledger.version(number)
        folder = self.release.reports(str(found.report_digest))
        return number, Verdict.from_json((folder / "verdict.json").read_bytes())

    def _judged(self, run_id: str) -> list[Version]:
        return [v for v in self.ledger.versions() if v.run_id == run_id and v.report_digest]

    def _champion(self) -> Champion:
        champion = self.ledger.champion()
        assert champion is not None
        return champion

    def _workspace(self, run_id: str) -> Workspace:
        return Workspace(self.settings.workspaces / run_id)


def _random_return(version: EnvVersion, mode: str, seed: int) -> float:
    env = version.make(mode)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    total, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total


def _arms(returns: dict[str, list[float]]) -> str:
    said = [f"{arm} {np.mean(r):.0f} ({len(r)})" for arm, r in returns.items() if r]
    return "  ".join(said)


def _step(number: int, title: str) -> None:
    console.print(f"\n[bold cyan]{number}[/bold cyan] [bold]{title}[/bold]")


def _say(text: str, markup: bool = True) -> None:
    console.print(f"  {text}", markup=markup, soft_wrap=True)
