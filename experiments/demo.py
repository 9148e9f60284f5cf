"""The main job, end to end and small: music, model, generated pieces, attribution, a report.

python -m experiments.demo --workdir demo
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict
from pyarrow import parquet

from configs.demo import get_config
from experiments import attribute, cards, generate, preflight, report, train
from experiments import attribute_inputs as inputs
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Progress, added
from tda_jax import fingerprint
from tda_jax.artifact import claim
from tda_jax.attribution.workdir import query_folder
from tda_jax.corpus import folder
from tda_jax.demo.design import refuse_works
from tda_jax.demo.music import make_music, read_provenance
from tda_jax.errors import InputError
from tda_jax.evaluation import retrieval
from tda_jax.models.groups import group_pattern
from tda_jax.training import parts

_DECIDES_NOTHING = ("workdir", "no_audio", "report")
_COMPUTE = {"devices", "batch", "fisher_batch", "queries_per_pass", "chunk", "every", "cache"}
_Found = TypeVar("_Found")


def run(config: ConfigDict, progress: Progress) -> dict[str, Any]:
    """Runs a card; what a stage made already is not made again.

    Args:
        config: as `configs/demo.py` gives it.
        progress: told of work done.

    Returns:
        What `summary.json` holds.

    Raises:
        InputError: something given cannot be used, or the folder holds another run.
    """
    workdir, seconds = Path(config.workdir), {}
    _refuse(config, workdir)
    remedy = "Give another --workdir, or delete that folder to make it again"
    claim(workdir / "made_of.json", _decides(config), remedy)

    def timed(stage: str, work: Callable[[], _Found]) -> _Found:
        start = time.monotonic()
        print(f"== {stage}")
        found = work()
        seconds[stage] = time.monotonic() - start
        return found

    timed("music", lambda: _music(config, workdir, progress))
    trained = timed("train", lambda: train.run(_train(config, workdir), progress))
    checked = timed("preflight", lambda: preflight.run(_preflight(config, workdir), progress))
    queries = _queries(config, workdir)
    asked = _generate(config, workdir, _prompts(config, workdir))
    timed("generate", lambda: generate.run(asked, progress))
    of_queries = _attribute(config, workdir, queries, trained["tracks"])
    found = timed("attribute", lambda: attribute.run(of_queries, progress))
    scored = {query["id"] for query in found["queries"]}
    rows = timed("evaluate", lambda: evaluate(workdir, [q for q in queries if q in scored]))
    page = timed("report", lambda: report.run(_report(config, workdir), progress))
    own = next(row for row in rows if row["method"] == "unlearning")
    content = {
        "tracks": found["tracks"],
        "decoys": found["decoys"],
        "queries": len(found["queries"]),
        "skipped_queries": len(found["skipped_queries"]),
        **{name: own[name] and own[name]["mean"] for name in retrieval.METRICS},
        "preflight": checked["verdict"],
        "report": str(page.relative_to(workdir)),
        "seconds": added(seconds, workdir / "summary.json"),
    }
    path = write_summary(workdir, content)
    _say(content, rows, page, path)
    return content


def evaluate(workdir: Path, queries: list[str]) -> list[dict[str, Any]]:
    """What scores find of the queries' relatives, caption-mates and training set, beside likeness.

    Args:
        workdir: of a demo whose queries are attributed.
        queries: training tracks among them.

    Returns:
        The rows of `evaluation.json`, which is written.
    """
    works = {name: p.work for name, p in read_provenance(workdir / "provenance.jsonl").items()}
    tables = {
        query: parquet.read_table(
            query_folder(workdir / "attributed", query) / "scores.parquet"
        ).to_pydict()
        for query in queries
    }
    values = retrieval.of_queries(tables, works)
    rows = retrieval.as_json(retrieval.rows(values, retrieval.chance(tables)))
    note = (
        f"Means over {len(queries)} training tracks as queries, with 95 % t-intervals over them. "
        "Relatives are other trained versions of the query's work under other captions; members "
        "are relatives against held-out versions of the work that are as like the query "
        f"(log-mel similarity within {retrieval.CALIPER})."
    )
    by_query = {
        method: {
            name: [x if math.isfinite(x) else None for x in v.tolist()]
            for name, v in figures.items()
        }
        for method, figures in values.items()
    }
    content = {"note": note, "rows": rows, "queries": queries, "by_query": by_query}
    write_summary(workdir, content, "evaluation.json")
    return rows


def _decides(config: ConfigDict) -> dict[str, Any]:
    """The settings that decide what is made; the report is made anew in any case."""
    found = {k: v for k, v in config.to_dict().items() if k not in _DECIDES_NOTHING}
    for name, card in found.items():
        if isinstance(card, dict):
            found[name] = {k: v for k, v in card.items() if k not in _COMPUTE}
    return found


def _refuse(config: ConfigDict, workdir: Path) -> None:
    """Refuses the card, and what any stage would refuse of its own after the ones before it."""
    cards.refuse_keys(config, get_config(), "configs/demo.py")
    refuse_works(config.works)
    if not 1 <= config.queries <= config.works:
        raise InputError(f"queries = {config.queries}; give 1 to {config.works}, the works")
    if config.pieces < 1:
        raise InputError(f"pieces = {config.pieces}; give 1 at least")
    train.refuse(_train(config, workdir))
    preflight.refuse(_preflight(config, workdir))
    generate.refuse(_generate(config, workdir, ["a caption"]))
    inputs.refuse_card(_attribute(config, workdir, ["a track"], 1))
    groups = parts.unet_groups(config.train.kind, train.sizes_of(config.train))
    group_pattern(groups, config.attribute.group)
    report.refuse(_report(config, workdir))


def _music(config: ConfigDict, workdir: Path, progress: Progress) -> None:
    make_music(
        workdir / "music",
        workdir / "provenance.jsonl",
        config.seed,
        config.works,
        lambda done, total: progress("composing and playing", done, total),
    )


def _train(config: ConfigDict, workdir: Path) -> ConfigDict:
    given = {"audio": workdir / "music", "workdir": workdir / "trained"}
    return _given(config.train, given | {"seed": config.seed})


def _preflight(config: ConfigDict, workdir: Path) -> ConfigDict:
    given = {"model": workdir / "trained" / "model", "workdir": workdir / "preflight"}
    given |= {"corpus": workdir / "trained" / "encoded" / "dataset", "seed": config.seed}
    return _given(config.preflight, given)


def _generate(config: ConfigDict, workdir: Path, prompts: list[str]) -> ConfigDict:
    given = {"model": workdir / "trained" / "model", "workdir": workdir / "generated"}
    given |= {"seconds": config.train.seconds}
    return _given(config.generate, given | {"seed": config.seed, "prompts": json.dumps(prompts)})


def _attribute(config: ConfigDict, workdir: Path, queries: list[str], members: int) -> ConfigDict:
    given = {"model": workdir / "trained" / "model", "workdir": workdir / "attributed"}
    given |= {"corpus": workdir / "trained" / "encoded" / "dataset", "seed": config.seed}
    given |= {"queries": workdir / "generated" / "queries", "query_ids": json.dumps(queries)}
    return _given(config.attribute, given | {"corpus_size": members})


def _report(config: ConfigDict, workdir: Path) -> ConfigDict:
    given = {"attributed": workdir / "attributed", "audio": workdir / "music"}
    given |= {"generated": workdir / "generated", "evaluation": workdir / "evaluation.json"}
    given |= {"preflight": workdir / "preflight" / "preflight.json", "workdir": workdir / "report"}
    truth = workdir / "truth.json"  # experiments.truth makes it later, if at all
    given |= {"truth": truth if truth.is_file() else "", "no_audio": config.no_audio}
    return _given(config.report, given)


def _given(card: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A card with what the demo decides; paths as text, as a command line gives them."""
    card = card.copy_and_resolve_references()
    for name, value in values.items():
        card[name] = str(value) if isinstance(value, Path) else value
    return card


def _members(workdir: Path) -> list[folder.Track]:
    return [t for t in folder.list_folder(workdir / "music").tracks if t.member]


def _queries(config: ConfigDict, workdir: Path) -> list[str]:
    """Training tracks, each of another work: which, is a function of the seed and the ids."""
    works = {name: p.work for name, p in read_provenance(workdir / "provenance.jsonl").items()}
    by_work: dict[str, str] = {}
    for name in _drawn([t.id for t in _members(workdir)], f"queries {config.seed}"):
        by_work.setdefault(works[name], name)
    return sorted(list(by_work.values())[: config.queries])


def _prompts(config: ConfigDict, workdir: Path) -> list[str]:
    """Captions of training tracks: which, is a function of the seed and the captions."""
    said = {text for track in _members(workdir) for text in track.captions}
    return _drawn(sorted(said), f"prompts {config.seed}")[: config.pieces]


def _drawn(names: list[str], salt: str) -> list[str]:
    return sorted(names, key=lambda name: fingerprint.of_text(salt, name))


def _say(content: Mapping[str, Any], rows: list[dict[str, Any]], page: Path, summary: Path) -> None:
    print(f"{'':>20}  own rank  relatives  caption-mates  members   (areas: 0.5 by chance)")
    for row in rows:
        figures = [row[name] and row[name]["mean"] for name in retrieval.METRICS]
        shown = ["none" if x is None else f"{x:.2f}" for x in figures]
        print(f"{row['method']:>20}  {shown[0]:>8}  {shown[1]:>9}  {shown[2]:>13}  {shown[3]:>7}")
    total = sum(content["seconds"].values())
    print(
        f"{content['queries']} queries attributed to {content['tracks']} tracks and "
        f"{content['decoys']} decoys in {total / 60:.1f} minutes, earlier runs here counted; wrote "
        f"{summary}\n"
        f"open {page.resolve()}"
    )


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that are kept."""
    cards.keep_compiled(Path(config.workdir) / "cache")
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(
        main, "configs/demo.py", {"workdir": "config.workdir", "no-audio": "config.no_audio"}
    )
