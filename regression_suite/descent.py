"""Is the candidate who its lineage says it is, and was it born in the run it names?"""

from __future__ import annotations

import math

from regression_suite.identity import say
from regression_suite.tables import RunTables
from srghn.candidates.candidate import Candidate
from srghn.errors import ArtefactError
from srghn.evolution.ancestry import Ancestor, Ancestry, genome_digest
from srghn.inference.verdict import Check

NAME = "lineage"
REMEDY = "Freeze the candidate again from its run; its lineage is part of what is promoted."


def found(candidate: Candidate | None) -> Ancestry | None:
    """The candidate's lineage, where there is one to read."""
    try:
        return None if candidate is None else Ancestry.from_json(candidate.ancestry)
    except ArtefactError:
        return None


def judge_lineage(candidate: Candidate, run: RunTables | None) -> Check:
    """The lineage ends in this genome, under this architecture, in the run's own tables."""
    try:
        ancestry = Ancestry.from_json(candidate.ancestry)
    except ArtefactError as error:
        return Check(NAME, "failed", say(error), remedy=REMEDY)
    if problem := _problem(candidate, ancestry, run):
        return Check(NAME, "failed", problem, remedy=REMEDY)
    return Check(NAME, "passed", f"{ancestry} lead from the founder to this genome")


def _problem(candidate: Candidate, ancestry: Ancestry, run: RunTables | None) -> str | None:
    if not ancestry.chain:
        return "the lineage is empty"
    actual, expected = genome_digest(candidate.load_genome()), ancestry.genome_digest
    if actual != expected:
        return f"the lineage ends in genome {expected[:16]}…, the candidate has {actual[:16]}…"
    architecture = str(candidate.manifest.get("architecture_digest"))
    if architecture != ancestry.architecture:
        return (
            f"the lineage is of architecture {ancestry.architecture[:16]}…, the candidate of "
            f"{architecture[:16]}…"
        )
    if run is None:
        return None
    return _strange(candidate, ancestry.chain, run) or _told_otherwise(ancestry, run)


def _strange(candidate: Candidate, chain: tuple[Ancestor, ...], run: RunTables) -> str | None:
    """Why this is not an individual of that run. A run's own ancestor may be its candidate too."""
    last, worlds = chain[-1], set(run.worlds["fingerprint"])
    if worlds != {candidate.env_fingerprint}:
        named = ", ".join(sorted(f"{world[:16]}…" for world in worlds))
        own = candidate.env_fingerprint[:16]
        return f"the run was in environment {named}, the candidate in {own}…"
    rows = run.lineage
    born = (rows["id"] == last.id) & (rows["noise_seed"] == last.noise_seed)
    unchanged = last.generation < int(rows["generation"].min())
    if not born.any() and not unchanged:
        return f"individual {last.id} with noise seed {last.noise_seed} is not in the run's lineage"
    return _other_fitness(chain, run)


def _other_fitness(chain: tuple[Ancestor, ...], run: RunTables) -> str | None:
    """The first ancestor born in this run that its tables know with another fitness."""
    births = run.lineage.drop_duplicates("id").set_index("id")
    for ancestor in chain:
        if ancestor.id not in births.index:
            continue
        row = births.loc[ancestor.id].to_dict()
        if row["noise_seed"] != ancestor.noise_seed or row["birth"] != ancestor.generation:
            continue  # an id of an earlier run
        fitness = float(row["fitness"])
        known = fitness if math.isfinite(fitness) else None
        if known != ancestor.fitness:
            return (
                f"the lineage says that individual {ancestor.id} scored {ancestor.fitness}, the "
                f"run's tables say {known}"
            )
    return None


def _told_otherwise(ancestry: Ancestry, run: RunTables) -> str | None:
    """The first generation of a search in this run that its tables know with another fitness."""
    first, last = int(run.lineage["generation"].min()), ancestry.chain[-1].generation
    if not ancestry.told or last < first:  # the run's own ancestor
        return None
    told = ancestry.told[-1]
    known = run.lineage.groupby("generation")["fitness"]
    tables = {g: [f if math.isfinite(f) else None for f in rows] for g, rows in known}
    for generation, fitness in enumerate(told.fitness, told.start):
        if tables.get(generation) != list(fitness):
            return (
                f"the lineage says that the search was told another fitness of generation "
                f"{generation} than the run's tables have"
            )
    return None
