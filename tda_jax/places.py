"""Files by their paths, in a folder or in a bucket: `gs://bucket/run` or `s3://bucket/run`.

A folder's paths are those of `pathlib`, a bucket's those of `etils.epath`, for names alone: what a
bucket holds is read and written through TensorStore, which keeps no listings that grow old while
other processes write. An object of a bucket is there as a whole or not at all, so nothing is
renamed there.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorstore as ts
from etils import epath

from tda_jax.errors import InputError

Place = Path | epath.Path
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KNOWN = ("gs://", "s3://")
_MEANT = "%?#|"  # what libraries take for more than a letter, and not all of them alike
_PATIENCE = 60.0  # seconds for a first answer
_REMEDY = "Check the address, that you are logged in, and that you may use that bucket"


def is_url(text: str | Place) -> bool:
    """Whether a path is a URL, and no folder."""
    return _URL.match(str(text)) is not None


def place(text: str | Place) -> Place:
    """The path of a folder or of a URL.

    Raises:
        InputError: a URL of something else than a bucket, or with signs that have a meaning there.
    """
    if not is_url(text):
        return Path(text)
    if not str(text).startswith(_KNOWN):
        raise InputError(f"{text}: no address of a bucket; give {' or '.join(_KNOWN)}BUCKET/PATH")
    if odd := set(str(text)) & set(_MEANT):
        raise InputError(f"{text}: {sorted(odd)} mean something in an address; give another path")
    return epath.Path(str(text))


def reach(folder: Place) -> None:
    """Refuses a bucket that cannot be read, soon: else it would be asked again for many minutes.

    Raises:
        InputError: it cannot be read, or does not answer.
    """
    if not is_url(folder):
        return
    with _asking(folder, "cannot be reached"):
        try:
            _folder_of(folder / "any").read("any").result(timeout=_PATIENCE)
        except TimeoutError as error:
            raise OSError(f"no answer within {_PATIENCE:.0f} s") from error


def exists(path: Place) -> bool:
    """Whether there is such a file; a bucket has no folders of its own. Nothing of it is read.

    Raises:
        InputError: the folder or the bucket cannot be read.
    """
    if is_url(path):
        with _asking(path, "cannot be read"):
            name = path.name.encode()
            return bool(_folder_of(path).list(ts.KvStore.KeyRange(name, name + b"\0")).result())
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); mend it") from error


def read(path: Place, start: int = 0, stop: int | None = None) -> bytes:
    """What a file holds, or some bytes of it.

    Raises:
        OSError: there is no such file, or it cannot be read.
        EOFError: an object of a bucket has no such bytes.
        InputError: the bucket cannot be read.
    """
    if not is_url(path):
        return path.read_bytes()[start:stop]
    with _asking(path, "cannot be read"):
        some = None if (start, stop) == (0, None) else slice(start, stop)
        try:
            found = _folder_of(path).read(path.name, byte_range=some).result()
        except ValueError as error:
            if "OUT_OF_RANGE" not in str(error):
                raise
            raise EOFError(f"{path} ends before byte {stop}") from error
    if found.state == "missing":
        raise FileNotFoundError(f"there is no {path}")
    return found.value


def write(path: Place, content: bytes) -> None:
    """Writes an object of a bucket, in place of what was there.

    Raises:
        InputError: the bucket refuses.
    """
    with _asking(path, "cannot be written"):
        _folder_of(path).write(path.name, content).result()


def listed(folder: Place, ending: str) -> list[Place]:
    """The files of a folder itself whose names end so, by name; none where it is not there.

    Of a bucket everything below the folder is listed for that.

    Raises:
        InputError: the bucket cannot be read.
    """
    if not is_url(folder):
        return sorted(folder.glob(f"*{ending}"))
    with _asking(folder, "cannot be listed"):
        keys = sorted(key.decode() for key in _folder_of(folder / "any").list().result())
    return [folder / key for key in keys if "/" not in key and key.endswith(ending)]


def delete(path: Place) -> None:
    """Deletes a file, if it is there.

    Raises:
        InputError: it cannot be deleted.
    """
    if not is_url(path):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error}); mend it") from error
        return
    with _asking(path, "cannot be deleted"):
        _folder_of(path).write(path.name, None).result()


def delete_folder(folder: Place) -> None:
    """Deletes a folder with all that is below it, if it is there.

    Raises:
        InputError: the bucket refuses. A folder's files that cannot be deleted stay.
    """
    if not is_url(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with _asking(folder, "cannot be deleted"):
        _folder_of(folder / "any").delete_range(ts.KvStore.KeyRange()).result()


def _folder_of(path: Place) -> ts.KvStore:
    return ts.KvStore.open(f"{path.parent}/").result()


@contextmanager
def _asking(path: Place, what: str) -> Iterator[None]:
    """Turns what TensorStore raises, of a wrong address too, into an error with its remedy."""
    try:
        yield
    except (ValueError, OSError) as error:
        cause = str(error).split(" [tensorstore_spec=")[0]
        raise InputError(f"{path}: {what} ({cause}). {_REMEDY}") from error
