"""Imports point one way: a module imports only from rooms named before its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tda_jax"

# The ground floor first. A room is a module or a folder directly under tda_jax, or, in a room
# with floors of its own, a module within it.
ROOMS = [
    "errors",
    "kinds",
    "strict_json",
    "precision",
    "fingerprint",
    "places",
    "artifact",
    "named_draws",
    "params",
    "heap",
    "machine",
    "columns",
    "compressed",
    "facts",
    "examples",
]
ROOMS += ["keys", "devices", "hosts", "manifest", "store", "audio", "diffusion"]
ROOMS += ["models", "training", "attribution", "corpus", "demo", "baselines", "evaluation"]
ROOMS += ["export", "report"]
FLOORS = {
    "diffusion": [
        "scheduler_config",
        "schedules",
        "targets",
        "losses",
        "guidance",
        "timesteps",
        "samplers",
        "generation",
    ],
    "models": [
        "config_keys",
        "unet_config",
        "vae_config",
        "hifigan_config",
        "clip_text_config",
        "clap_text_config",
        "groups",
        "layers",
        "transformer",
        "unet",
        "vae",
        "hifigan",
        "clip_text",
        "clap_text",
        "denoiser",
        "names",
        "families",
        "torch_pickle",
        "weight_files",
        "lora",
        "converted",
        "folders",
        "pretrained",
        "export",
        "random_pipeline",
        "tokenizer_backends",
        "captions",
    ],
    "attribution": [
        "contract",
        "units",
        "rows",
        "sweep",
        "fisher",
        "unlearn",
        "group_directions",
        "linearised",
        "memory",
        "conformance",
        "unet",
        "settings",
        "prepare",
        "information",
        "directions",
        "engine",
        "passes",
        "workdir",
        "remaining",
        "probe",
        "by_unlearning",
        "scores",
        "calibration",
        "plan",
        "sizes",
        "rises",
        "table",
        "summary",
    ],
    "training": ["checkpoints", "loop", "many", "denoiser", "autoencoder", "contrast", "parts"],
    "audio": ["containers", "reading", "mel"],
    "corpus": [
        "fields",
        "metadata",
        "assembly",
        "arrays",
        "fitting",
        "stored",
        "dataset",
        "tensors",
        "folder",
        "chunking",
        "encoding",
        "shares",
        "packing",
        "decoding",
    ],
    "demo": [
        "composition",
        "instruments",
        "styles",
        "versions",
        "rendering",
        "design",
        "ogg",
        "music",
    ],
    "baselines": [
        "similarity",
        "likeness",
        "contract",
        "gradients",
        "tracin",
        "trak",
        "pairs",
        "forgetting",
        "mucs",
        "likenesses",
        "ways",
        "unlearning",
    ],
    "evaluation": [
        "ranking",
        "bootstrap",
        "datamodelling",
        "comparison",
        "removal",
        "discoveries",
        "synthetic",
        "small_unet",
        "network",
        "subsets",
        "bank",
        "outcomes",
        "relations",
        "retrieval",
        "verdicts",
        "preflight",
        "records",
        "controls_plan",
        "controls_passes",
        "controls_seed",
        "controls_stages",
        "controls_scores",
        "controls_studies",
        "controls_noise",
        "controls",
        "controls_claims",
        "controls_calibration_claims",
        "controls_verdict",
        "controls_tables",
        "truth_plan",
        "truth_queries",
        "truth_scores",
        "truth",
        "truth_methods",
        "truth_analysis",
        "truth_tables",
    ],
    "report": [
        "words",
        "scale",
        "figures",
        "controls_figures",
        "retrieval_figure",
        "truth_figures",
        "contents",
        "evidence",
        "agreement",
        "rivals",
        "charts",
        "pictures",
        "players",
        "sources",
        "provenance",
        "sections",
        "page",
    ],
}

# What the compute core may import: it runs on accelerator images without audio and data packages.
CORE_PACKAGES = {"jax", "flax", "optax", "orbax", "tensorstore", "safetensors", "numpy"}
CORE_PACKAGES |= {"ml_dtypes", "jaxtyping", "absl", "etils", "tda_jax"}
CORE_ROOMS = set(ROOMS) - {"audio", "corpus", "demo", "evaluation", "export", "report"}
# Imported where it is used, and not with the module: captions are encoded before the core runs.
LAZY = {"models/tokenizer_backends.py": {"tokenizers"}}
REFERENCE_PACKAGES = {"torch", "diffusers", "transformers", "peft", "tensorflow"}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


def imports(path):
    """Every module that a file imports, at any depth of its code, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room(parts):
    return parts[0].removesuffix(".py")


def upward(path, imported):
    """Whether an import of this package points to the same place or higher than where it stands."""
    here = [part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts]
    there = imported.split(".")[1:]
    if here[0] != there[0]:
        return ROOMS.index(there[0]) >= ROOMS.index(here[0])
    floor = FLOORS[here[0]]
    return floor.index(there[1]) >= floor.index(here[1])


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_points_upward(path):
    ours = [name for name in imports(path) if name.startswith("tda_jax.")]
    # `from tda_jax.models import layers` and `from tda_jax.models.layers import x` both name it.
    assert [name for name in ours if upward(path, name)] == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_are_those_that_the_room_may_use(path):
    import sys

    used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert not used & REFERENCE_PACKAGES
    if _room(path.relative_to(PACKAGE).parts) in CORE_ROOMS:
        assert used <= CORE_PACKAGES | LAZY.get(str(path.relative_to(PACKAGE)), set())


def test_an_upward_import_is_found():
    path = PACKAGE / "models" / "layers.py"
    assert upward(path, "tda_jax.models.unet.DownBlock")
    assert upward(PACKAGE / "params.py", "tda_jax.models.layers")
    assert not upward(path, "tda_jax.errors.InputError")


def test_every_module_has_a_place():
    found = {_room(p.relative_to(PACKAGE).parts) for p in modules()}
    assert found == set(ROOMS)
    for room, floor in FLOORS.items():
        assert {p.stem for p in (PACKAGE / room).glob("*.py")} - {"__init__"} == set(floor)
