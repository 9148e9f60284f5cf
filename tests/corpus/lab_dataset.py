"""A dataset as a lab might have written it, by TFDS itself."""

import tensorflow_datasets as tfds


def write(folder, kinds, given, splits):
    """Writes rows with features of some kinds, so many of them to each split, in their order."""
    folder.mkdir(parents=True)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity("lab", "1.0.0", str(folder), module_name=__name__),
        features=tfds.features.FeaturesDict(kinds),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, 3, file_format="array_record")
    writer.initialize_splits(list(splits))
    given = iter(given)
    for name, n in splits.items():
        some = [{k: v for k, v in next(given).items() if k in kinds} for _ in range(n)]
        writer.add_examples({name: some})
    writer.close_all()
    return folder
