"""Packaging of tda_jax. Lower bounds are the oldest versions that the project was run with."""

from setuptools import find_packages, setup

# What TFDS reads a dataset in a bucket of Google's with.
_GCS = ["array_record>=0.8.6", "gcsfs>=2026.10"]

setup(
    name="tda_jax",
    version="0.1.0",
    description="Training-data attribution for text-to-music diffusion by unlearning, in JAX",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["tda_jax", "tda_jax.*"]),
    package_data={"tda_jax.report": ["templates/*"]},
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.15",
        "flax>=0.12",
        "importlib_resources>=6",  # tensorflow-datasets takes it for granted
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "librosa>=0.11",
        "matplotlib>=3.9",
        "ml_collections>=1.1",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=11",
        "pyarrow>=17",
        "safetensors>=0.5",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tensorstore>=0.1.86",
        "tokenizers>=0.20",
        "tqdm>=4.66",
    ],
    extras_require={
        "gcs": _GCS,
        "test": [
            *_GCS,
            "beartype>=0.20",
            "hypothesis>=6.100",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.17",
        ],
        # The reference that tests and benchmarks compare with; the library never imports it.
        "parity": [
            "accelerate>=1.0",
            "diffusers>=0.40",
            "peft>=0.17",
            "torch>=2.8",
            "transformers>=5.0",
        ],
    },
)
