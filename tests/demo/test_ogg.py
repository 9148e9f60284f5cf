"""Ogg files that do not depend on when they were written."""

import io
import struct

import numpy as np
import soundfile

from tda_jax.demo import ogg


def encoded(seconds=3):
    file = io.BytesIO()
    wave = 0.3 * np.random.default_rng(0).standard_normal((8000 * seconds, 2))
    soundfile.write(file, wave, 8000, format="OGG", subtype="VORBIS")
    return file.getvalue()


def test_the_checksum_is_that_of_the_encoder():
    data = encoded()
    (serial,) = struct.unpack_from("<I", data, 14)
    assert data.count(b"OggS") > 2
    assert ogg.with_serial(data, serial) == data


def test_another_serial_number_leaves_the_sound(tmp_path):
    data = encoded()
    changed = ogg.with_serial(data, 7)
    assert changed != data
    first, second = (soundfile.read(io.BytesIO(x))[0] for x in (data, changed))
    np.testing.assert_array_equal(first, second)
    assert ogg.with_serial(encoded(), 7) == changed  # however often it is encoded
