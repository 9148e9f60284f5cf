"""Makes a report of saved results that opens in a browser, without a network.

python -m experiments.report --config=configs/report.py --config.attributed=DIR
    --config.audio=FOLDER --config.generated=DIR --config.workdir=DIR [--no-audio]
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.report import get_config
from experiments import cards
from experiments.progress import Bars, Progress
from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tda_jax.report import agreement, contents, evidence, page, players, sources
from tda_jax.report.players import Missing, Player, Recording
from tda_jax.report.sections import Play, Section, section
from tda_jax.report.words import count

_NO_AUDIO = "This copy of the report holds no sound and no picture of it, because it was made "
_NO_AUDIO += "with --no-audio: the recordings may not be copied."
_NO_FOLDER = "No recordings were given to this report, so it holds no sound."


def run(config: ConfigDict, progress: Progress) -> Path:
    """Runs a card: reads results, makes excerpts, writes the page.

    Args:
        config: as `configs/report.py` gives it.
        progress: told of queries done.

    Returns:
        The page.

    Raises:
        InputError: something given cannot be used, before anything is written; or the disk
            refuses.
    """
    refuse(config)
    results = contents.read(Path(config.attributed))
    folders = (_path(config[name]) for name in ("audio", "generated", "query_audio"))
    found = sources.find(results, *folders)
    known = ("evaluation", "preflight", "truth")
    evaluation, preflight, truth = (_path(config[name]) for name in known)
    evaluation = evaluation and evidence.read_evaluation(evaluation)
    preflight = preflight and evidence.read_preflight(preflight)
    truth = truth and agreement.read_truth(truth)
    workdir, silent = Path(config.workdir), _silent(config)
    play, sections = None if silent else _play(config), []
    for i, query in enumerate(results.queries):
        progress("report", i, len(results.queries))
        sections.append(section(query, found, config.top, play))
    progress("report", len(results.queries), len(results.queries))
    shown = page.Page(results.summary, tuple(sections), silent, evaluation, preflight, truth)
    path = workdir / "index.html"
    with whole_file(path) as part:
        part.write_text(page.render(shown), encoding="utf-8")
    kept = [player for one in sections for player in one.players]
    players.remove_others(workdir, kept)
    _say(path, sections, len(set(kept)))
    return path


def _play(config: ConfigDict) -> Play:
    """Makes players; of a recording that several queries show, once."""
    made: dict[tuple[Recording | Missing, float], Player | Missing] = {}

    def play(recording: Recording | Missing, start: float) -> Player | Missing:
        key = recording, start
        if key not in made:
            made[key] = players.player(Path(config.workdir), recording, start, config.seconds)
        return made[key]

    return play


def _silent(config: ConfigDict) -> str | None:
    if config.no_audio:
        return _NO_AUDIO
    return None if config.audio or config.generated else _NO_FOLDER


def _path(given: str) -> Path | None:
    return Path(given) if given else None


def refuse(config: ConfigDict) -> None:
    """Refuses a card that cannot be run, whatever the folders hold.

    Raises:
        InputError: names the setting.
    """
    cards.refuse_keys(config, get_config(), "configs/report.py")
    if not config.attributed:
        raise InputError("no results are given; give --config.attributed=DIR")
    if config.top < 1:
        raise InputError(f"top = {config.top}; give 1 at least")
    if config.seconds <= 0:
        raise InputError(f"seconds = {config.seconds}; give a length above 0")


def _say(path: Path, sections: list[Section], excerpts: int) -> None:
    every = [one.player for one in sections] + [s.player for one in sections for s in one.tracks]
    missing = sum(isinstance(player, Missing) for player in every)
    lacking = f", {count(missing, 'place')} without a player" if missing else ""
    queries = count(len(sections), "query", "queries")
    print(f"{queries}, {count(excerpts, 'excerpt')}{lacking}; open {path}")


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress."""
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/report.py", {"no-audio": "config.no_audio"})
