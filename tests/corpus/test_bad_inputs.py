"""Bad input of every kind: the outcome of each alone, and of all of them in one run."""

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from experiments import attribute, attribute_inputs, encode_corpus
from tda_jax.audio import reading
from tda_jax.audio.mel import MelSettings
from tda_jax.corpus import chunking, dataset, encoding, folder
from tda_jax.errors import InputError
from tests.corpus import bad_audio, bad_inputs
from tests.corpus.bad_inputs import GOOD, METADATA, Read, Refused, Skipped, Unlisted
from tests.experiments import arrays_card, pipelines

ROOT = Path(__file__).parent.parent.parent
CUT = chunking.Cut(0.16)
LIMIT = 200  # seconds, after which a test hangs


@pytest.fixture(autouse=True)
def _no_test_hangs():
    """What waits, as for the other end of a pipe, fails."""

    def stop(*_):
        raise TimeoutError(f"not done after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def names(kind):
    return kind.name.replace(" ", "-")


def spectrograms(tracks, cut=CUT):
    files = [chunking.File(track.id, track.path) for track in tracks]
    return encoding.spectrograms(files, cut, MelSettings())


def as_it_should_sound(path, want):
    """Whether a file has the length, rate and channels that were written, and their wave."""
    found = reading.check(path)
    assert (found.rate, found.channels) == (want.rate, want.channels)
    assert want.frames in (None, found.frames)
    if want.close is not None:
        wave = bad_audio.tones(found.frames / found.rate, found.rate, found.channels).mean(axis=1)
        error = np.abs(reading.read(path, found.rate) - wave)
        assert np.median(error) < want.close


def test_there_are_many_kinds_each_once():
    every = [kind.name for kind in bad_inputs.KINDS]
    assert len(set(every)) == len(every) > 150
    every = [kind.name for kind in bad_inputs.METADATA_KINDS]
    assert len(set(every)) == len(every) > 40


@pytest.mark.parametrize("kind", bad_inputs.KINDS, ids=names)
def test_a_kind_alone_has_its_outcome(tmp_path, kind):
    lines = bad_inputs.write_files(tmp_path / "in", [kind])[kind.name]
    listing = folder.list_folder(tmp_path / "in")
    seen = spectrograms(listing.tracks)
    reasons = {skipped.file_name: skipped.reason for skipped in listing.skipped}
    reasons |= {t.file_name: seen.skipped[t.id] for t in listing.tracks if t.id in seen.skipped}
    used = [listing.tracks[i] for i in seen.file if listing.tracks[i].file_name != GOOD]
    assert len(used) + len(reasons) == len(lines)
    assert np.isfinite(seen.mel).all()
    match kind.outcome:
        case Read() as want:
            assert len(used) == want.tracks
            for track in used:
                as_it_should_sound(track.path, want)
        case Skipped(reason):
            (found,) = reasons.values()
            assert re.search(reason, found)
        case Unlisted(name):
            assert listing.unlisted == (name,)


@pytest.mark.parametrize("kind", bad_inputs.METADATA_KINDS, ids=names)
def test_metadata_of_a_kind_has_its_outcome(tmp_path, kind):
    bad_inputs.write_metadata(tmp_path, kind)
    if isinstance(kind.outcome, Refused):
        with pytest.raises(InputError, match=kind.outcome.message) as caught:
            folder.list_folder(tmp_path)
        assert str(tmp_path / METADATA) in str(caught.value)
        assert len(str(caught.value)) < 1000
    else:
        assert [track.id for track in folder.list_folder(tmp_path).tracks] == ["good"]


def test_sound_after_an_hour_is_found_where_every_window_is_taken(tmp_path):
    path = tmp_path / "hour.flac"
    path.write_bytes(bad_audio.hour(sound_at_end=True))
    (window,) = reading.windows(path, 16000, 10.24)
    assert window.start + len(window.samples) / 16000 == pytest.approx(bad_audio.HOUR)


def test_neither_a_pipe_nor_a_device_is_waited_for(tmp_path):
    # In a process of its own, since what the decoder waits for no signal ends.
    os.mkfifo(tmp_path / "pipe.wav")
    code = """if 1:
        import sys
        from pathlib import Path
        from tda_jax.audio import reading
        from tda_jax.errors import InputError
        for path in map(Path, sys.argv[1:]):
            for read in (reading.check, reading.info, lambda p: reading.windows(p, 16000, 1.0)):
                try:
                    read(path)
                except InputError as error:
                    print(error)
    """
    paths = [str(tmp_path / "pipe.wav"), "/dev/zero", "/dev/null"]
    command = [sys.executable, "-c", code, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 9
    assert all("cannot be read as audio (it is no file)" in line for line in said)


def test_a_file_without_permission_is_skipped():
    """Of a user who may not read it; a test that runs as root becomes another for a while."""

    def look(place):
        tracks = folder.list_folder(place).tracks
        files = [chunking.File(track.id, track.path) for track in tracks]
        return tracks, spectrograms(tracks).skipped, *chunking.prints_of(files)

    with tempfile.TemporaryDirectory() as name:
        place, user = Path(name), os.geteuid()
        place.chmod(0o755)
        bad_inputs.write_files(place, [])
        bad_inputs.audio(place, "own.wav")
        with (place / METADATA).open("a") as file:
            file.write("\n" + json.dumps(bad_inputs.line("own.wav")))
        assert not look(place)[1]  # the other may not read Python's own files either: load them now
        (place / "own.wav").chmod(0)
        try:
            if user == 0:
                os.seteuid(65534)
            tracks, skipped, prints, unread = look(place)
        finally:
            os.seteuid(user)
    assert [t.id for t in tracks] == ["good", "own"]
    assert list(prints) == ["good"]
    for reasons in (skipped, unread):
        assert list(reasons) == ["own"]
        assert "cannot be read as audio ([Errno 13] Permission denied" in reasons["own"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "pipeline"
    pipelines.write(place, (bad_inputs.SAID, "drum"))
    return place


def default_card():
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "encode_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def card(model, audio, workdir, **changes):
    config = default_card()
    given = {"model": str(model), "audio": str(audio), "workdir": str(workdir), "seconds": 0.64}
    for name, value in (given | {"batch": 16} | changes).items():
        config[name] = value
    return config


def silent(*_):
    pass


@pytest.fixture(scope="module")
def everything(model, tmp_path_factory):
    """Every kind in one folder, encoded in one run."""
    place = tmp_path_factory.mktemp("everything")
    lines = bad_inputs.write_files(place / "in")
    summary = encode_corpus.run(card(model, place / "in", place / "out"), silent)
    return lines, place / "out", summary


def test_all_that_can_be_read_is_in_the_dataset_and_nothing_else(everything):
    lines, workdir, summary = everything
    read = [kind for kind in bad_inputs.KINDS if isinstance(kind.outcome, Read)]
    wanted = [entry for kind in read for entry in lines[kind.name]]
    rows = list(dataset.read_rows(workdir / "dataset"))
    assert len(rows) == len({row.id for row in rows}) == len(wanted) + 1
    found = {row.metadata["file_name"]: row for row in rows}
    assert {entry["file_name"] for entry in wanted} | {GOOD} == set(found)
    ids = {entry["id"] for entry in wanted if "id" in entry}
    assert ids <= {row.track for row in rows}
    for row in rows:
        assert np.isfinite(row.mean).all()
        assert 1 <= row.frames <= 16
    decoys = [entry for entry in wanted if entry.get("split")]
    assert summary["decoys"] == len(decoys)
    assert summary["tracks"] == len(rows) - len(decoys)


def test_every_rejected_file_stands_on_disk_with_its_reason(everything):
    lines, workdir, summary = everything
    with (workdir / "skipped.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert listed == summary["skipped"]
    reasons = {entry["file"]: entry["reason"] for entry in listed}
    assert len(reasons) == len(listed)
    assert "BufferedReader" not in str(listed)  # numbered anew in every run
    for kind in bad_inputs.KINDS:
        if isinstance(kind.outcome, Skipped):
            (entry,) = lines[kind.name]
            assert re.search(kind.outcome.reason, reasons.pop(entry["file_name"]))
    assert reasons == {}


def test_the_counts_add_up_and_nothing_else_is_there(everything):
    lines, workdir, summary = everything
    total = 1 + sum(map(len, lines.values()))
    skipped = sum(isinstance(kind.outcome, Skipped) for kind in bad_inputs.KINDS)
    assert summary["files"]["listed"] == total
    assert summary["files"]["read"] == total - skipped == summary["windows"]
    assert summary["files"]["skipped"] == skipped == len(summary["skipped"])
    # That of its kind, and files of five kinds whose lines give another name.
    assert summary["files"]["without_a_line"] == 1 + 5
    assert json.loads((workdir / "summary.json").read_text("utf-8")) == summary
    there = {path.name for path in workdir.iterdir()}
    assert there == {"chunks", "dataset", "summary.json", "skipped.csv"}
    assert {path.suffix for path in (workdir / "chunks").iterdir()} == {".safetensors"}


def test_a_second_run_says_the_same_of_every_file(everything, model, monkeypatch):
    _, workdir, summary = everything
    monkeypatch.setattr(encoding, "spectrograms", None)  # what is encoded is not read again
    again = encode_corpus.run(card(model, workdir.parent / "in", workdir), silent)
    assert again["skipped"] == summary["skipped"]
    assert again["files"] == summary["files"]


def test_of_two_lines_of_one_file_both_are_listed(model, tmp_path):
    bad_inputs.write_files(tmp_path / "in", [])
    bad = [bad_inputs.line("gone.wav", id=name) for name in "ab"]
    bad += [bad_inputs.line("zeros.wav", id="gone.wav")]
    (tmp_path / "in" / "zeros.wav").write_bytes(bytes(99))
    text = "\n".join(json.dumps(entry) for entry in [bad_inputs.line(GOOD), *bad])
    (tmp_path / "in" / METADATA).write_text(text)
    summary = encode_corpus.run(card(model, tmp_path / "in", tmp_path / "out"), silent)
    assert [s["file"] for s in summary["skipped"]] == ["gone.wav", "gone.wav", "zeros.wav"]
    assert summary["files"] == {"listed": 4, "read": 1, "skipped": 3, "without_a_line": 0}


def test_a_file_that_goes_away_during_the_run_is_skipped(model, tmp_path):
    bad_inputs.write_files(tmp_path / "in", [])
    bad_inputs.audio(tmp_path / "in", "brief.wav")
    with (tmp_path / "in" / METADATA).open("a") as file:
        file.write("\n" + json.dumps(bad_inputs.line("brief.wav")))

    def progress(stage, *_):
        if stage == "encoding":
            (tmp_path / "in" / "brief.wav").unlink(missing_ok=True)

    summary = encode_corpus.run(card(model, tmp_path / "in", tmp_path / "out"), progress)
    (skipped,) = summary["skipped"]
    assert skipped["file"] == "brief.wav"
    assert "cannot be read as audio" in skipped["reason"]
    assert summary["files"]["read"] == 1


def test_where_nothing_is_left_the_error_says_so_and_where_the_reasons_are(model, tmp_path):
    place = tmp_path / "in"
    bad_inputs.write_files(place, [])
    for name in (GOOD, "two\nlines.wav"):
        (place / name).write_bytes(b"no music")
    with (place / METADATA).open("a") as file:
        file.write("\n" + json.dumps(bad_inputs.line("two\nlines.wav")))
    with pytest.raises(InputError, match="none of its 2 files can be used, such as 'good") as e:
        encode_corpus.run(card(model, place, tmp_path / "out"), silent)
    assert f"{tmp_path / 'out' / 'skipped.csv'} says why of each" in str(e.value)
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [GOOD, "two\nlines.wav"]
    assert all("cannot be read as audio" in row["reason"] for row in rows)
    assert not (tmp_path / "out" / "dataset").exists()


def test_two_windows_of_one_name_are_refused(model, tmp_path):
    place = tmp_path / "in"
    bad_inputs.write_files(place, [])
    bad_inputs.audio(place, "other.wav")
    with (place / METADATA).open("a") as file:
        file.write("\n" + json.dumps(bad_inputs.line("other.wav", id="good at 0 s")))
    config = card(model, place, tmp_path / "out", seconds=0.32, windows=2)
    encode_corpus.run(config, silent)  # "good at 0 s at 0 s" is another name
    (place / "other.wav").write_bytes(bad_audio.encoded(bad_audio.tones(0.32)))
    config.workdir = str(tmp_path / "again")
    with pytest.raises(InputError, match="'good' and 'good at 0 s' are both called 'good at 0 s'"):
        encode_corpus.run(config, silent)


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be listed, loaded or encoded."""

    def work(*_, **__):
        raise AssertionError("work was begun")

    for module in (encode_corpus, attribute_inputs):
        monkeypatch.setattr(module, "load_pipeline", work)
    monkeypatch.setattr(folder, "list_folder", work)
    monkeypatch.setattr(encoding, "encode", work)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", sorted(default_card()))
def test_a_missing_setting_is_refused_before_any_work(tmp_path, name):
    config = card("model", "audio", tmp_path / "out")
    with config.unlocked():
        del config[name]
    with pytest.raises(
        InputError, match=rf"the card has no setting '{name}(\.\w+)?'; configs/encode_corp"
    ):
        encode_corpus.run(config, silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_work")
def test_an_unknown_setting_is_refused_before_any_work(tmp_path):
    config = card("model", "audio", tmp_path / "out")
    with config.unlocked():
        config.widnows = 3
    with pytest.raises(InputError, match="the card has a setting 'widnows' that nothing reads"):
        encode_corpus.run(config, silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    "change", [{"seconds": 0.0}, {"seconds": -0.64}, {"seconds": float("nan")}, {"hop": 0.0}]
)
def test_lengths_that_are_none_are_refused_before_any_work(tmp_path, change):
    with pytest.raises(InputError, match="give a number of seconds above 0"):
        encode_corpus.run(card("model", "audio", tmp_path / "out", **change), silent)


def test_an_unknown_setting_on_the_command_line_is_refused(tmp_path):
    command = [sys.executable, "-m", "experiments.encode_corpus", "--config.widnows=3"]
    command += [f"--config.workdir={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "the card has no setting 'widnows'; did you mean 'windows'?" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_work")
def test_an_unknown_group_is_refused_before_any_work(model, tmp_path):
    config = arrays_card.shrunk(tmp_path / "out", group="cross_atention")
    config.update({"model": str(model), "corpus": "none", "query_ids": "a", "corpus_size": 3})
    with pytest.raises(InputError, match=r"no parameter group 'cross_atention'; choose one of \["):
        attribute.run(config, silent)
    assert not (tmp_path / "out").exists()


def stamps(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("*")}


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("done")
    bad_inputs.write_files(place / "in", [])
    encode_corpus.run(card(model, place / "in", place / "out"), silent)
    return place


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seconds": 0.32}, "windows.seconds is 0.64 there and 0.32 here"),
        ({"windows": 0}, "windows.windows is 1 there and 0 here"),
        ({"hop": 0.32}, "windows.hop is null there and 0.32 here"),
        ({"tokens": 7}, "tokens is 0 there and 7 here"),
    ],
)
def test_a_workdir_of_other_settings_is_refused_before_any_work(done, model, changes, says):
    before = stamps(done)
    with pytest.raises(InputError, match=re.escape(f"made from something else: {says}. Delete")):
        encode_corpus.run(card(model, done / "in", done / "out", **changes), silent)
    assert stamps(done) == before


def test_a_workdir_of_another_model_is_refused_before_a_file_is_read(
    done, tmp_path, monkeypatch, model
):
    pipelines.write(tmp_path / "other", ("other words", "altogether"))
    monkeypatch.setattr(encoding, "encode", None)
    before = stamps(done)
    with pytest.raises(InputError, match=r"made from something else: .*tokenizer is"):
        encode_corpus.run(card(tmp_path / "other", done / "in", done / "out"), silent)
    assert stamps(done) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("taken", ["out/dataset/notes.txt", "out"])
def test_a_workdir_in_which_something_else_is_is_refused(tmp_path, taken):
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="is in the way, where a dataset will be written"):
        encode_corpus.run(card("model", "audio", tmp_path / "out"), silent)
    assert (tmp_path / taken).read_text() == "mine"
