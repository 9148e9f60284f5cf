"""What a kill left half written goes before a run begins, wherever a run keeps artifacts."""

from tda_jax.attribution import workdir


def test_half_written_files_go_and_results_stay(tmp_path):
    folder = workdir.query_folder(tmp_path, "a query")
    for place in (tmp_path, folder, folder / workdir.GRADIENT):
        place.mkdir(parents=True, exist_ok=True)
        (place / "0.safetensors").write_bytes(b"whole")
        (place / "0.safetensors.0123.part").write_bytes(b"half")
    workdir.sweep_parts(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
