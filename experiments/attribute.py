"""Attributes queries to the tracks of a corpus by unlearning: latents in, tables of scores out.

python -m experiments.attribute --config=configs/arrays.py --config.model=FOLDER
    --config.corpus=FOLDER --config.queries=FOLDER --config.corpus_size=N --config.workdir=DIR

Corpus and queries are folders of arrays (`corpus.arrays`) or datasets (`corpus.dataset`). The
workdir may be in a bucket, and so may datasets (gs://BUCKET/PATH). Several
processes share the work where each is started with --config.hosts (see the card).
"""

import math
from collections.abc import Sized
from typing import Any

from ml_collections import ConfigDict

from experiments import attribute_inputs as inputs
from experiments import attribute_outputs as outputs
from experiments import attribute_plan, cards, synthetic_default
from experiments.progress import Bars, Clock, Progress
from experiments.status import Status
from tda_jax import devices, hosts, places
from tda_jax.attribution import by_unlearning, sizes
from tda_jax.attribution.contract import Model
from tda_jax.attribution.plan import Stage, plan
from tda_jax.attribution.prepare import silent
from tda_jax.attribution.table import Table, tables
from tda_jax.attribution.workdir import job_of
from tda_jax.baselines.likeness import likeness
from tda_jax.errors import InputError
from tda_jax.evaluation.synthetic import query_ids
from tda_jax.places import Place


def run(
    config: ConfigDict, progress: Progress = silent, among: hosts.Hosts = hosts.ALONE
) -> dict[str, Any]:
    """Runs a card: reads, checks, attributes, writes tables, figures and a summary.

    Args:
        config: as `configs/arrays.py` gives it. Without `model` and `corpus`, both are made.
        progress: told of work done.
        among: this process of those that share the work, each of which calls this.

    Returns:
        What `summary.json` holds; nothing for a plan, and for a process other than the first.

    Raises:
        InputError: something given cannot be used, before any work; or no query could be
            unlearned.
    """
    config, clock = config.copy_and_resolve_references(), Clock(progress)
    inputs.refuse_card(config)
    workdir, synthetic = places.place(config.workdir), not config.corpus
    if synthetic:
        model, given = hosts.first_then_all(
            among, "synthetic", lambda: _synthetic(config, clock, among)
        )
    else:
        model, given = _read(config, among)
    given, stages = _sized(model, given, clock, max(among.count, config.hosts.count))
    if config.plan:
        _plan(model, given, stages, workdir, max(1, config.hosts.count))
        return {}
    found = by_unlearning.run(
        model, given.corpus, given.queries, given.settings, given.compute, workdir, clock
    )
    if not among.first:
        hosts.meet(among, "tables written")
        _refuse_nothing(found.sweeps, workdir / "summary.json")
        return {}
    written = _write_tables(found, given, workdir, clock, synthetic)
    content = outputs.summarise(model, given, found, written, stages)
    content["seconds"] = clock.seconds(workdir / "summary.json")
    path = outputs.write_summary(workdir, content)
    hosts.meet(among, "tables written")
    _say(content, written.lines, path)
    return content


def _sized(
    model: Model, given: inputs.Inputs, clock: Clock, processes: int
) -> tuple[inputs.Inputs, dict[str, Stage]]:
    """Chooses the sizes that the card leaves open, and tells what is about to be done.

    A plan for several processes is made by one, with the sizes that they would take.
    """
    among, asked = given.compute.hosts, (model, given.corpus, given.queries, given.settings)
    for warning in given.warnings if among.first else ():
        cards.warn(warning)
    room = devices.room(given.compute.devices)
    if processes > 1:  # JAX lowers no pmap of shapes where there are several
        few = sizes.unpredicted(model, given.queries, given.settings, given.compute, room)
        given = given._replace(compute=few)
    if among.count > 1:
        if among.first:
            print(outputs.describe(given, {}), flush=True)
        return given, {}
    clock("predicting memory", 0, 1)
    chosen = sizes.fitting(*asked, given.compute, room)
    given, stages = given._replace(compute=chosen), plan(*asked, chosen)
    clock("predicting memory", 1, 1)
    print(outputs.describe(given, stages), flush=True)
    return given, stages


def _plan(
    model: Model, given: inputs.Inputs, stages: dict[str, Stage], workdir: Place, processes: int
) -> None:
    """Says what the run would take if so many processes shared it; computes nothing of it."""
    job = job_of(model, given.corpus, given.settings, given.compute, workdir)
    found = attribute_plan.costs(model, given, stages, job, processes)
    print(attribute_plan.describe(found, given, job, processes))
    content = attribute_plan.as_json(found, given, job, processes)
    print(f"wrote {outputs.write_summary(workdir, content, 'plan.json')}")


def _read(config: ConfigDict, among: hosts.Hosts = hosts.ALONE) -> tuple[Model, inputs.Inputs]:
    """The folders that the card names."""
    given = inputs.read(config, inputs.unet_config(config), among)
    return inputs.load_model(config), given


def _synthetic(
    config: ConfigDict, progress: Progress, among: hosts.Hosts
) -> tuple[Model, inputs.Inputs]:
    """A corpus and a model that are made as folders, and then read as anybody's are."""
    folder, settings = places.place(config.workdir) / "synthetic", config.synthetic
    unet = synthetic_default.unet_config(settings)
    config.corpus = str(synthetic_default.make_corpus(folder, settings))
    if not (config.queries or config.query_ids):
        made = inputs.read_arrays(places.place(config.corpus))
        config.query_ids = ",".join(query_ids(made, settings.queries, settings.seed))
    given = inputs.read(config, unet, among)
    config.model = str(synthetic_default.make_model(folder, settings, given.corpus, progress))
    return inputs.load_model(config), given


def _write_tables(
    found: by_unlearning.Run, given: inputs.Inputs, workdir: Place, clock: Clock, synthetic: bool
) -> outputs.Written:
    """Writes the tables and figures of each query, one query after the other."""
    written, total = outputs.Written([], [], set(), set(), {}), len(found.sweeps)
    clock("tables and figures", 0, total)
    alike = likeness(given.queries, given.corpus, given.tracks, given.heard)
    for i, (query, table) in enumerate(tables(found, given.corpus, given.settings)):
        clock("tables and figures", i, total)
        row = given.queries.ids.index(query)
        beside = {name: values[row][table.order] for name, values in alike.items()}
        outputs.write_query(workdir, query, table, beside, given.corpus, given.tracks, found)
        entry = outputs.of_query(query, table, given, found)
        if synthetic and query in given.corpus.ids:
            entry["auc"] = _relate(query, table, given)
        written = outputs.with_query(written, entry, table, given)
    clock("tables and figures", total, total)
    return written


def _relate(query: str, table: Table, given: inputs.Inputs) -> dict[str, float | None]:
    """What is known of a synthetic corpus of a query that is a track."""
    found = synthetic_default.relations(query, table, given.corpus)
    return {name: x if math.isfinite(x) else None for name, x in found.items()}


def _say(content: dict[str, Any], lines: list[str], path: Place) -> None:
    for query, line in zip(content["queries"], lines, strict=True):
        print(line)
        if "auc" in query:
            known = {name: value for name, value in query["auc"].items() if value is not None}
            aucs = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
            print(f"  area under the curve: {aucs}")
    for skipped in content["skipped_queries"]:
        cards.warn(f"skipped query {skipped['id']!r}: {skipped['reason']}")
    _refuse_nothing(lines, path)
    print(
        f"wrote {path} and, for each of {len(lines)} queries, scores.csv, scores.parquet, "
        f"distribution.png and top.png in {path.parent / 'queries'}/"
    )


def _refuse_nothing(found: Sized, path: Place) -> None:
    if not found:
        raise InputError(f"no query could be unlearned; {path} says why")


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that are kept."""
    among = hosts.ALONE if config.plan else cards.hosts_of(config)  # one process plans for all
    inputs.refuse_card(config.copy_and_resolve_references())  # before anything is written
    workdir = places.place(config.workdir)
    cards.keep_compiled(places.place(config.cache) if config.cache else workdir / "cache")
    with Bars() as bars:
        if config.plan:
            run(config, bars, among)
            return
        with Status(bars, workdir / "status", among) as kept:
            run(config, kept, among)


if __name__ == "__main__":
    buckets = ("workdir", "corpus", "queries")
    cards.start(main, "configs/arrays.py", {"plan": "config.plan"}, buckets)
