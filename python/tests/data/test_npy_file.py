"""Files of arrays are read as NumPy reads them, and what they say of their size is not believed."""

import io
import os
import pathlib
import struct
import zipfile

import numpy as np
import pytest

import usae
from support.refusals import refuses
from usae._files import npy_file

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(24, dtype=">f8").reshape(2, 3, 4)),
    np.arange(5, dtype=np.uint16),
    np.zeros((0, 4), np.float16),
    np.float32(3),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_are_read_as_numpy_reads_them(tmp_path, array):
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(tmp_path / "x.npy", "wb") as file:
            np.lib.format.write_array(file, np.asanyarray(array), version)
        read = npy_file.mapped(tmp_path / "x.npy")
        expected = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert read.dtype == expected.dtype and read.shape == expected.shape and read.strides == expected.strides
        np.testing.assert_array_equal(read, array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", other=np.zeros(2), x=array)
        np.testing.assert_array_equal(npy_file.from_archive(tmp_path / "x.npz", "x", 1000), array)
    with pytest.raises(KeyError):
        npy_file.from_archive(tmp_path / "x.npz", "y", 1000)


def npy(header, data=b"", version=1, length=None):
    length = len(header) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", length) + header + data


def fields(descr="'<f4'", shape="(2, 3)", fortran_order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}".encode()


def test_headers_as_other_programs_write_them_are_read(tmp_path):
    for header in (
        b'{"shape":(2,3),"fortran_order":False,"descr":"<f4"}\n',
        b"{'shape': (2L, 3L), 'descr': '<f4', 'fortran_order': False}",
    ):
        assert npy_file.read_header(io.BytesIO(npy(header)), "x").shape == (2, 3)


HOSTILE = [
    b"",
    b"\x93NUMPY",
    b"\x80\x04",
    npy(fields())[:40],
    npy(fields(), bytes(23)),
    npy(fields(), bytes(24), version=2, length=2**32 - 1),
    npy(fields(), bytes(24), version=7),
    npy(fields(shape="(1000000, 1000000)"), bytes(24)),
    npy(fields(shape="(0, 900000000000000000, 900000000000000000)"), bytes(24)),
    npy(fields(shape="(" + "9" * 5000 + ",)"), bytes(24)),
    npy(fields(shape="(-2, -3)"), bytes(24)),
    npy(fields(shape="[2, 3]"), bytes(24)),
    npy(fields(shape="(" * 5000), bytes(24)),
    npy(fields(fortran_order="0"), bytes(24)),
    npy(fields(descr="'|O'"), bytes(24)),
    npy(fields(descr="'<f3'"), bytes(24)),
    npy(fields(descr="'|V99999999'"), bytes(24)),
    npy(fields(descr="[('a', '<f4')]"), bytes(24)),
    npy(fields(descr="__import__('os')"), bytes(24)),
    npy(b"-" * 60_000 + b"1", bytes(24)),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_damaged_or_hostile_file_is_refused_alone_and_in_an_archive(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with refuses(tmp_path / "x.npy", error=usae.CheckpointError):
        npy_file.mapped(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    with refuses(tmp_path / "x.npz", error=usae.CheckpointError):
        npy_file.from_archive(tmp_path / "x.npz", "x", 1000)


def test_an_archive_that_would_expand_to_any_size_is_refused_before_it_does(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(npy(fields(shape="(4096, 4096)")))
        for _ in range(64):
            file.write(bytes(2**20))
    assert (tmp_path / "x.npz").stat().st_size < 10**5
    with refuses(tmp_path / "x.npz", error=usae.CheckpointError):
        npy_file.from_archive(tmp_path / "x.npz", "x", 2**25)
    assert npy_file.from_archive(tmp_path / "x.npz", "x", 2**26).shape == (4096, 4096)


def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("fifo")
    for place in (tmp_path / "fifo", tmp_path / "folder", tmp_path / "link", pathlib.Path("/dev/zero")):
        for read in (npy_file.mapped, lambda file: npy_file.from_archive(file, "x", 1000)):
            with refuses(place, error=usae.CheckpointError):
                read(place)
    np.save(tmp_path / "x.npy", ARRAYS[0])
    (tmp_path / "link to a file").symlink_to("x.npy")
    np.testing.assert_array_equal(npy_file.mapped(tmp_path / "link to a file"), ARRAYS[0])
