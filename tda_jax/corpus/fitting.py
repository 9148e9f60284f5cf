"""Whether the arrays of tracks are what a UNet takes, and what is odd about them."""

import math
from pathlib import Path

import numpy as np

from tda_jax import columns, examples
from tda_jax.attribution import calibration
from tda_jax.corpus import fields
from tda_jax.errors import InputError
from tda_jax.examples import Corpus
from tda_jax.models.denoiser import Condition
from tda_jax.models.unet_config import UNetConfig

_PARTS = {"embedding": "class_input_dim", "text": "text_dim"}
USUAL = (0.3, 3.0)  # standard deviations of latents in a network's scaling, with room
_LEVEL = 0.05  # the usual false-discovery rate
_SINGLED_OUT = 20  # members that pass it together at least, where there are as many decoys
LEAST = 0.1  # standardised differences below it are small (Austin 2009, Stat. Med. 28)


def refuse_stored(folder: Path, config: UNetConfig, what: str, layout: str) -> None:
    """Refuses a folder of latents that the UNet does not take, from their headers alone.

    Before `read_arrays`, which knows no UNet: of latents in the other layout it can only say that
    their frames are not those of the masks.

    Args:
        folder: as `read_arrays` takes it; one without latents passes.
        config: of the UNet.
        what: what to call them in an error, "tracks" or "queries".
        layout: of the latents, "HWC" or "CHW".

    Raises:
        InputError: the latents have another number of axes or channels; see `fields.read_headers`.
    """
    place = fields.find(folder, "latent")
    if place is None:
        return
    shape = fields.read_headers(place).shape
    refuse_latents((*shape[1:], *shape[:1]) if layout == "CHW" else shape, config, what, layout)


def refuse_unfit(corpus: Corpus, config: UNetConfig, what: str, layout: str) -> None:
    """Refuses latents and conditions that the UNet does not take.

    Args:
        corpus: tracks or queries, as `read_arrays` gives them.
        config: of the UNet.
        what: what to call them in an error, "tracks" or "queries".
        layout: that the latents were read with, "HWC" or "CHW".

    Raises:
        InputError: latents of another number of axes or channels, a condition that the UNet needs
            is missing, one that it does not take is there, or has another width.
    """
    refuse_latents(corpus.examples.latent.shape[1:], config, what, layout)
    condition = corpus.examples.condition or Condition()
    for part, key in _PARTS.items():
        _refuse_condition(what, part, getattr(condition, part), getattr(config, key))


def scale_warnings(corpus: Corpus, what: str) -> list[str]:
    """Says if the latents' standard deviation over valid frames is far from 1."""
    count, total, squares = examples.moments(corpus).sum(axis=0)
    deviation = math.sqrt(max(0.0, squares / count - (total / count) ** 2))
    if USUAL[0] <= deviation <= USUAL[1]:
        return []
    return [
        f"the latents of the {what} have a standard deviation of {deviation:.3g}, far from 1: were "
        "they multiplied by the VAE's scaling_factor?"
    ]


def decoy_warnings(corpus: Corpus) -> list[str]:
    """Says if decoys are missing, few, or not like the members."""
    members, decoys = int(corpus.members.sum()), int((~corpus.members).sum())
    if decoys == 0:
        return [
            "there are no decoys, so p_value and q_value stay empty; add tracks of the same source "
            'that were not trained on, with "member": false in metadata.jsonl'
        ]
    warnings = []
    least = math.ceil(members / (_LEVEL * (1 + decoys)))  # see `calibration.q_values`
    if least > _SINGLED_OUT:
        warnings.append(
            f"{decoys} decoys are few for {members} members: no fewer than {least} members can "
            f"have q ≤ {_LEVEL} together, so go by rank and p_value, or add decoys"
        )
    found = calibration.decoy_match(corpus, np.full(len(corpus.ids), np.nan))
    return warnings + [
        f"decoys do not match members in {name}: they differ by {d.standardised:+.2f} standard "
        f"deviations (standard error {d.standard_error:.2f}), so p_value and q_value mean little"
        for name, d in found.items()
        if abs(d.standardised) > max(LEAST, 2 * d.standard_error)
    ]


def refuse_latents(shape: tuple[int, ...], config: UNetConfig, what: str, layout: str) -> None:
    """Refuses latents that the UNet does not take, from the shape (frames, bins, channels) of one.

    Args:
        shape: as it was read.
        config: of the UNet.
        what: what to call them in an error, "tracks" or "queries".
        layout: that it was read with, "HWC" or "CHW".

    Raises:
        InputError: another number of axes or channels.
    """
    channels = config.in_channels
    if len(shape) != 3:
        raise InputError(
            f"{what}: latents have the shape {shape}; this UNet takes (frames, bins, {channels})"
        )
    if shape[-1] != channels:
        stored, other = ("first", "CHW") if layout == "HWC" else ("last", "HWC")
        beside = shape[0] if layout == "HWC" else shape[1]
        hint = f": channels {stored}? use --config.layout={other}" if beside == channels else ""
        raise InputError(
            f"{what}: latents {shape}, read as {layout}, have {shape[-1]} channels, and this UNet "
            f"takes {channels}{hint or '; give latents of its own VAE'}"
        )


def _refuse_condition(
    what: str, part: str, given: columns.Array | None, wanted: int | None
) -> None:
    if wanted is None and given is not None:
        raise InputError(
            f"{what}: have {part}, which this UNet does not take; move {part}/ or {part}.npz "
            "elsewhere"
        )
    if wanted is None:
        return
    if given is None:
        raise InputError(
            f"{what}: have no {part}, which this UNet is conditioned on; put an array of width "
            f"{wanted} for each into {part}/ or {part}.npz"
        )
    if given.shape[-1] != wanted:
        raise InputError(
            f"{what}: {part} of width {given.shape[-1]}, where this UNet takes {wanted}; make it "
            "with the encoder that the model was trained with"
        )
