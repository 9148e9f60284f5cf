"""Run card: attribution by unlearning, from a model's folder and arrays to tables of scores.

Source: Choi et al. 2025 (arXiv 2506.18312), with the linearised sweep and the scale-free step.
Command: python -m experiments.attribute --config=configs/arrays.py
    makes a small model and corpus and attributes 5 of its tracks. For your own
    python -m experiments.attribute --config=configs/arrays.py --config.model=FOLDER
        --config.corpus=FOLDER --config.queries=FOLDER --config.corpus_size=N --config.workdir=DIR
    where FOLDERs are a diffusers pipeline, and datasets, or latents and conditions by id
    (tda_jax/corpus/dataset.py and arrays.py say how they lie).
    With --plan it says beforehand what that takes: draws, FLOPs, memory, hours, bytes on disk.
Time: the default, with nothing compiled before, takes 4.2 minutes on 2 cores, 9 seconds the second
    time. For your own, lines before the work
    say how many passes through the network it takes, and how much memory.
Result: for each query WORKDIR/queries/QUERY/scores.csv with rank, id, score, its errors, p- and
    q-values, losses and metadata of every track, the same as Parquet, and two figures; for the run
    WORKDIR/summary.json. The default's 5 queries find themselves at rank 1.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """The settings, each with its default. tda_jax/attribution/settings.py says more of them."""
    config = ConfigDict()
    config.model = ""  # a diffusers pipeline; without model and corpus, both are made
    config.corpus = ""  # dataset (also gs://) or arrays of the tracks to be scored, with decoys
    config.queries = ""  # dataset or arrays of the queries; or, or beside them,
    config.query_ids = ""  # ids of tracks of the corpus: "a,b", or a JSON list
    config.layout = "HWC"  # of the latents: HWC or CHW
    config.workdir = "attribution"  # results, also gs:// or s3://; none is computed again
    config.plan = False  # say what the run takes, by a probe of a batch of each stage; no more
    config.cache = ""  # compiled programs and converted weights; programs else in a local workdir
    _model(config)
    _scores(config)
    _compute(config)
    config.synthetic = _synthetic()
    return config.lock()


def _model(config: ConfigDict) -> None:
    config.ema = True  # averaged weights where the folder holds them
    config.variant = ""  # diffusers' file variant, such as fp16
    config.loras = ConfigDict(convert_dict=False)  # file → strength, merged into the unet


def _scores(config: ConfigDict) -> None:
    config.corpus_size = 0  # N, tracks that the model was trained on; 0 for the synthetic ones only
    config.group = "transformer"  # parameters that a step may move
    config.method = "linearised"  # or exact
    config.rise = 0.1  # ρ, share by which the query's own loss is to rise
    config.rate = config_dict.placeholder(float)  # a raw learning rate instead
    config.steps = 1
    config.damping = 0.01  # times the mean of the Fisher information
    config.fisher_draws = 10
    config.fisher_tracks = config_dict.placeholder(int)  # a random subset; every member without
    config.query_draws = 2048
    config.blocks = 8  # of query draws, for the noise in the direction
    config.replicates = 4
    config.strata = 20
    config.mask_unlearn = True  # padding does not count when a query is unlearned
    config.mask_sweep = False  # nor in the losses of tracks
    config.weighting = "uniform"  # of timestep bins; or standardised, ratio
    config.dtype = "float32"  # of the linearised pass; or bfloat16
    config.second_order = False  # also the exact second-order term
    config.frames = False  # also losses per latent frame; needs exact
    config.seed = 0


def _compute(config: ConfigDict) -> None:
    config.devices = 0  # 0 for all of this process
    # Of these three 0 is what fits the memory of a device, and no more than keeps it busy.
    config.batch = 0  # latents in the network at a time, on one device; tangents count, too
    config.fisher_batch = 0  # the same for the Fisher information and what is done for a query
    config.queries_per_pass = 0
    config.chunk = 64  # tracks that are computed and stored together
    config.hosts = ConfigDict()  # of processes that share the work, each started with this card
    config.hosts.coordinator = ""  # host:port of process 0; auto on a TPU pod or SLURM
    config.hosts.count = 0  # how many they are, unless auto
    config.hosts.index = -1  # which of them this is, from 0, unless auto


def _synthetic() -> ConfigDict:
    """The corpus and the training of the model that are made where none is given."""
    synthetic = ConfigDict()
    synthetic.seed = 0
    synthetic.works = 16
    synthetic.variants = 8
    synthetic.captions = 8
    synthetic.held_out = 2
    synthetic.unseen_works = 4
    synthetic.steps = 2000
    synthetic.batch = 16
    synthetic.learning_rate = 4e-3
    synthetic.queries = 5
    return synthetic
