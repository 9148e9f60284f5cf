"""Results as `experiments.attribute` saves them, small, with names that try to break a page."""

import json
from pathlib import Path

import numpy as np
import soundfile

from tda_jax.attribution import calibration, summary
from tda_jax.attribution.directions import Calibration
from tda_jax.attribution.table import Table
from tda_jax.attribution.workdir import query_folder
from tda_jax.evaluation.ranking import ranks
from tda_jax.export import with_metadata, write_parquet
from tests.experiments import cards

EVIL = "</script><script>alert('x')</script>"
PIECE = "piece 001"
MEMBERS, DECOYS = 14, 6
# Ids, files and titles of the first tracks; the others are plain.
NAMES = (
    ("slash/and\nnew line", "slash/a.wav", "A title"),
    (EVIL, "evil.flac", EVIL),
    ("Zoë ☂ «λ»", "Zoë ☂.wav", 'Quo"ted & <b>bold</b>'),
    ("broken", "broken.wav", "No sound"),
    ("missing", "missing.wav", None),
)


def ids():
    return [name for name, _, _ in NAMES] + [f"t{i:02d}" for i in range(len(NAMES), tracks())]


def tracks():
    return MEMBERS + DECOYS


def metadata():
    """Of each track. The last of the named ones has several windows and captions."""
    found = []
    for i, name in enumerate(ids()):
        file, title = NAMES[i][1:] if i < len(NAMES) else (f"{name}.wav", f"Title of {name}")
        entry = {"file_name": file, "caption": f"caption {i}", "artist": f"Artist {i % 3}"}
        found.append(entry | {"window_start": 0.0, "track": name, "label": EVIL})
        if title is not None:
            found[-1]["title"] = title
    found[4]["window_start"] = 0.25
    found[2] |= {"caption": ["one", "two"], "window_start": [0.0, 0.5]}
    return found


def columns(seed, own=None, extra=True):
    """A table before it is sorted: what a query gives each track."""
    rng, n = np.random.default_rng(seed), tracks()
    score = 1e-3 * rng.standard_normal(n) ** 3
    score[:5] += 0.01 * np.arange(5, 0, -1)  # so that the names that matter are shown
    score[MEMBERS] = 0.012  # a decoy among them
    score[9] = np.nan
    if own is not None:
        score[own] = 0.9
    members = np.arange(n) < MEMBERS
    others = score.copy()
    if own is not None:
        others[own] = np.nan
    found = {
        "score": score,
        "standard_error": rng.uniform(1e-5, 1e-3, n),
        "direction_error": rng.uniform(1e-5, 1e-3, n) if extra else np.full(n, np.nan),
        "p_value": calibration.empirical_p_values(score, members),
        "q_value": calibration.q_values(others, members),
        "loss_before": rng.uniform(0.1, 0.4, n),
        "loss_after": rng.uniform(0.1, 0.4, n),
        "member": members,
    }
    if extra:
        found["max_start"] = np.where(np.arange(n) == 2, 0.5, 0.0)
        found["max_start"][4] = np.nan
        found["score_max"] = score
        found["log_mel_similarity"] = rng.uniform(-1, 1, n)
        found["latent_similarity"] = np.full(n, np.nan)
        found["condition_similarity"] = rng.uniform(-1, 1, n)
    return found


def table(found, own):
    score, names = found["score"], ids()
    order = np.array(sorted(range(len(score)), key=lambda i: (np.isnan(score[i]), -score[i])))
    rank = ranks(np.where(found["member"], score, np.nan))[order]
    rows = {"rank": [None if np.isnan(r) else int(r) for r in rank]}
    rows |= {"id": [names[i] for i in order]}
    rows |= {name: values[order] for name, values in found.items()}
    unscored = tuple((names[i], f"a reason <{i}>") for i in np.flatnonzero(np.isnan(score)))
    return Table(rows, order, unscored, None if own is None else names[own])


def write_results(workdir, queries=((0, 0), (1, None)), extra=True):
    """Writes a workdir of queries (seed, the track that each is); without one, a generated piece.

    Returns:
        The tables by query id.
    """
    tables, numbers = {}, []
    for seed, own in queries:
        name = PIECE if own is None else ids()[own]
        tables[name] = one = table(columns(seed, own, extra), own)
        about = metadata()
        if not extra:
            about = [{k: v for k, v in m.items() if k != "file_name"} for m in about]
        rows = with_metadata(one.columns, [about[i] for i in one.order])
        folder = query_folder(workdir, name)
        write_parquet(folder / "scores.parquet", rows)
        said = summary.of_query(name, one, Calibration(0.3, 1.0, 2.0, 1.9), 0.01, 1)
        about = {} if own is not None else {"caption": "a hum", "file_name": "query.wav"}
        said |= {"metadata": about, "latent": f"latent of {name}"}
        numbers.append(said | {"folder": str(query_folder(Path(), name))})
    content = {
        "tracks": MEMBERS,
        "decoys": DECOYS,
        "queries": numbers,
        "skipped_queries": [{"id": EVIL, "reason": "its loss is not finite"}],
        "warnings": [f"6 decoys are few {EVIL}"],
        "settings": {"corpus_size": MEMBERS, "method": "linearised", "rate": None},
        "compute": {"devices": ["cpu:0"]},
        "fingerprints": {"checkpoint": "ab" * 32, "versions": {"jax": "0.10"}},
        "stages": {"linearised sweep": {"pairs": 1200, "bytes": None}},
        "seconds": {"linearised sweep": 75.2},
    }
    (workdir / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    return tables


def write_audio(folder):
    """The tracks' files; one is broken and one is missing."""
    lines = []
    for i, entry in enumerate(metadata()):
        path = folder / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        rate, channels = ((16000, 1), (44100, 2), (22255, 1))[i % 3]
        time = np.arange(rate * (2 + i % 2)) / rate
        wave = 0.5 * np.sin(2 * np.pi * (220 + 20 * i) * time)
        if entry["file_name"] == "broken.wav":
            path.write_bytes(b"RIFF, but no more")
        elif entry["file_name"] != "missing.wav":
            soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
        lines.append(json.dumps({"id": ids()[i], **entry}, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def write_pieces(folder):
    (folder / "audio").mkdir(parents=True)
    wave = 0.4 * np.sin(np.arange(32000) / 9)
    soundfile.write(folder / "audio" / f"{PIECE}.wav", wave, 16000)
    piece = {"id": PIECE, "prompt": f"slow {EVIL}", "audio": f"audio/{PIECE}.wav"}
    piece["latent"] = f"latent of {PIECE}"
    made_of = {"negative": "", "sampler": "dpm", "steps": 3, "guidance": 2.5, "seed": 0}
    said = {"pieces": [piece], "made_of": made_of}
    (folder / "summary.json").write_text(json.dumps(said), encoding="utf-8")


def write_evidence(folder):
    """An evaluation and what a preflight says: the paths of both."""
    known = {"mean": 0.912, "low": 0.871, "high": 0.953, "count": 5}
    alone = {"mean": 7.5, "low": None, "high": None, "count": 1}
    rows = [
        {"method": "unlearning", "self_influence_mean_rank": alone, "relatives_auc": known}
        | {"caption_mates_auc": None, "member_auc": {**known, "mean": None}},
        {"method": "chance"},
    ]
    checks = [
        {"name": "Losses fall", "passed": True, "says": "by 12 %"},
        {"name": "Latents fit", "passed": False, "says": EVIL},
        {"name": "Decoys match", "passed": None, "says": "too few"},
    ]
    evaluation, preflight = folder / "evaluation.json", folder / "preflight.json"
    evaluation.write_text(json.dumps({"note": f"Of 5 models {EVIL}", "rows": rows}))
    said = {"verdict": "Something is wrong.", "passed": False, "checks": checks}
    preflight.write_text(json.dumps(said))
    return evaluation, preflight


def truth():
    """What holding scores against retraining gives: a row without an LDS, and one without ends."""

    def lds(mean, low, high):
        return {"mean": mean, "low": low, "high": high, "count": 11}

    rows = [
        {"method": "the demo's scores", "own": True, "lds": lds(0.416, 0.2, 0.61)},
        {"method": "TRAK", "own": False, "lds": lds(0.5, None, None)},
        {"method": EVIL, "own": False, "lds": lds(-0.1, -0.25, 0.05)},
        {"method": "chance", "own": False, "lds": lds(None, None, None)},
    ]
    return {
        "note": f"Of 40 models, 11 queries {EVIL}",
        "ceiling": lds(0.75, 0.7, 0.8),
        "rows": rows,
        "verdict": ["The scores are above chance.", f"TRAK is {EVIL}."],
    }


def write_truth(folder, content):
    """A comparison with retraining: its path."""
    path = folder / "truth.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_all(folder):
    """Everything that a report can be made of: the settings of its card."""
    write_results(folder / "attributed")
    write_audio(folder / "music")
    write_pieces(folder / "generated")
    evaluation, preflight = write_evidence(folder)
    return {
        "attributed": str(folder / "attributed"),
        "audio": str(folder / "music"),
        "generated": str(folder / "generated"),
        "evaluation": str(evaluation),
        "preflight": str(preflight),
        "truth": str(write_truth(folder, truth())),
    }


def card(workdir, **changes):
    return cards.card("report", **({"workdir": str(workdir)} | changes))


def silent(*_):
    """Progress that nobody watches."""
