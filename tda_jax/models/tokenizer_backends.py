"""The tokenizers of CLIP and RoBERTa, and small ones trained on captions, as `tokenizers` objects.

The only module that needs the package `tokenizers`. It is imported when a function is called, so
that accelerator images without it can import every module of the library.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tda_jax.errors import InputError

# A special token in transformers' configs: its text, or its text and how it is matched.
Specials = Mapping[str, str | Mapping[str, Any]]

CLIP_SPECIALS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
ROBERTA_SPECIALS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
# The first ids of RoBERTa's vocabulary; `<mask>` is its last.
_ROBERTA_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]

# CLIP's words: its special tokens, English endings, runs of letters, single digits, runs of other
# signs (Radford et al. 2021; the pattern of openai/CLIP's simple_tokenizer.py).
_CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "captions need the package tokenizers, which is not installed; run `pip install "
            "tokenizers`, or encode captions on a machine that has it"
        ) from error
    return tokenizers


def text_of(token: str | Mapping[str, Any]) -> str:
    """The text of a special token."""
    return token if isinstance(token, str) else token["content"]


def _add_specials(backend: Any, specials: Specials) -> None:
    """Special tokens are found in a text as they stand, before it is split."""
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    for token in specials.values():
        given = {} if isinstance(token, str) else {k: token[k] for k in flags if k in token}
        added = _library().AddedToken(text_of(token), special=True, **given)
        backend.add_special_tokens([added])


def _surround(backend: Any, end: str, start: str, *, prefix_space: bool) -> None:
    """Puts `start` before and `end` after each text."""
    pairs = [(token, backend.token_to_id(token)) for token in (end, start)]
    made = _library().processors.RobertaProcessing(*pairs, add_prefix_space=prefix_space)
    backend.post_processor = made


def _clip_splitting(backend: Any) -> None:
    """CLIP's normalisation and words, which it reads as bytes."""
    library = _library()
    n, p = library.normalizers, library.pre_tokenizers
    space = n.Replace(library.Regex(r"\s+"), " ")
    backend.normalizer = n.Sequence([n.NFC(), space, n.Lowercase()])
    words = p.Split(library.Regex(_CLIP_WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = p.Sequence([words, p.ByteLevel(add_prefix_space=False)])


def clip(vocab: dict[str, int], merges: Sequence[Any], specials: Specials) -> Any:
    """CLIP's tokenizer: lower case, byte-level BPE, `</w>` at the end of a word."""
    library = _library()
    model = library.models.BPE(
        vocab=vocab,
        merges=list(merges),
        unk_token=text_of(specials["unk_token"]),
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
    )
    backend = library.Tokenizer(model)
    _clip_splitting(backend)
    backend.decoder = library.decoders.ByteLevel()
    _add_specials(backend, specials)
    end, start = (text_of(specials[key]) for key in ("eos_token", "bos_token"))
    _surround(backend, end, start, prefix_space=False)
    return backend


def roberta(
    vocab: dict[str, int], merges: Sequence[Any], specials: Specials, *, prefix_space: bool = False
) -> Any:
    """RoBERTa's tokenizer: byte-level BPE, where a space belongs to the word that follows it."""
    library = _library()
    model = library.models.BPE(vocab=vocab, merges=list(merges))
    backend = library.Tokenizer(model)
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = library.decoders.ByteLevel()
    _add_specials(backend, specials)
    end, start = (text_of(specials[key]) for key in ("sep_token", "cls_token"))
    _surround(backend, end, start, prefix_space=prefix_space)
    return backend


def _parsed(what: str, read: Callable[[], Any]) -> Any:
    """What `read` returns; the package raises plain Exceptions for files that it cannot parse."""
    try:
        return read()
    except Exception as error:
        raise InputError(
            f"{what}: cannot be read as a tokenizer ({error}); restore the files that belong to "
            f"the text encoder"
        ) from error


def from_json(path: Path) -> Any:
    """The tokenizer of a `tokenizer.json`, without the padding and truncation stated there."""
    backend = _parsed(str(path), lambda: _library().Tokenizer.from_file(str(path)))
    backend.no_padding()
    backend.no_truncation()
    return backend


def from_bpe_files(folder: Path, make: Callable[[dict[str, int], Sequence[Any]], Any]) -> Any:
    """The tokenizer that `make` builds of the tables in `vocab.json` and `merges.txt`."""
    paths = [str(folder / name) for name in ("vocab.json", "merges.txt")]
    return _parsed(" and ".join(paths), lambda: make(*_library().models.BPE.read_file(*paths)))


def _trained_merges(
    backend: Any, captions: Sequence[str], merges: int, suffix: str
) -> list[list[str]]:
    """Byte-pair merges of the captions' most frequent pairs, the same in whatever order they come.

    The bytes have their ids before training, which settles ties: else the ids would follow the
    order of the captions.
    """
    library = _library()
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    ends = [byte + suffix for byte in alphabet] if suffix else []
    trainer = library.trainers.BpeTrainer(
        vocab_size=len(alphabet) + len(ends) + merges,
        min_frequency=2,
        special_tokens=ends,
        initial_alphabet=alphabet,
        **({"end_of_word_suffix": suffix} if suffix else {}),
        show_progress=False,
    )
    backend.train_from_iterator(sorted(captions), trainer)
    return json.loads(backend.to_str())["model"]["merges"]


def _ids(tokens: Sequence[str]) -> dict[str, int]:
    """Tokens numbered in their order; two merges may make the same token."""
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def train_clip(captions: Sequence[str], merges: int) -> Any:
    """A small tokenizer of CLIP's kind; end-of-text has the highest id, as in CLIP's own."""
    library = _library()
    learner = library.Tokenizer(library.models.BPE(end_of_word_suffix="</w>"))
    _clip_splitting(learner)
    pairs = _trained_merges(learner, captions, merges, "</w>")
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *map("".join, pairs)]
    ends = [CLIP_SPECIALS["bos_token"], CLIP_SPECIALS["eos_token"]]
    return clip(_ids(tokens + ends), [tuple(pair) for pair in pairs], CLIP_SPECIALS)


def train_roberta(captions: Sequence[str], merges: int) -> Any:
    """A small tokenizer of RoBERTa's kind, its special tokens numbered as RoBERTa's."""
    library = _library()
    learner = library.Tokenizer(library.models.BPE())
    learner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs = _trained_merges(learner, captions, merges, "")
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*_ROBERTA_FIRST, *alphabet, *map("".join, pairs), "<mask>"]
    return roberta(_ids(tokens), [tuple(pair) for pair in pairs], ROBERTA_SPECIALS)


def train_words(captions: Sequence[str], words: int) -> Any:
    """A tokenizer with one token for each word or run of signs, the most frequent ones.

    Lower case; other words become `<unk>`; special tokens as RoBERTa's.
    """
    library = _library()
    backend = library.Tokenizer(library.models.WordLevel(unk_token="<unk>"))
    n = library.normalizers
    backend.normalizer = n.Sequence([n.NFC(), n.Lowercase()])
    backend.pre_tokenizer = library.pre_tokenizers.Whitespace()
    first = [*_ROBERTA_FIRST, "<mask>"]
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=len(first) + words, special_tokens=first, show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    _add_specials(backend, ROBERTA_SPECIALS)
    _surround(backend, "</s>", "<s>", prefix_space=False)
    return backend
