"""Run card: encode a folder of audio into a dataset of latents and conditions.

Source: a folder of audio with `metadata.jsonl` (Hugging Face's AudioFolder convention: file_name,
    caption; optional id, title, artist, split), and a diffusers folder of AudioLDM's kind.
Command: python -m experiments.encode_corpus --config=configs/encode_corpus.py
    --config.audio=FOLDER --config.model=FOLDER --config.workdir=DIR
Time: on one core 82 short files a second without the VAE; with AudioLDM's, 1.9 s for a window of
    10.24 s (benchmarks/results/encoding-cpu.json). What is encoded is kept: a run that was killed
    goes on.
Result: WORKDIR/dataset, which `experiments.attribute` and any user of TFDS read;
    WORKDIR/summary.json: what is in it; WORKDIR/skipped.csv: which files are not, and why.
"""

from ml_collections import ConfigDict, config_dict

from configs import arrays


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.audio = ""  # the folder of audio
    config.model = ""  # a diffusers folder with vae, text_encoder and tokenizer
    config.workdir = "encoded"
    config.seconds = 10.24  # length of a window
    config.hop = config_dict.placeholder(float)  # seconds between starts; none: one after the other
    config.windows = 1  # of a file at most, from its start; 0 for all
    config.tokens = 0  # of a caption at most; 0 for what the tokenizer says
    config.devices = 0  # 0 for all of this process
    config.batch = 4  # windows on one device at a time
    config.chunk = 32  # files that are encoded and kept together, fewer if they are long
    config.hosts = arrays.get_config().hosts  # of processes that share the work
    return config.lock()
