"""LMDB files are read as LMDB's own library reads them."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

from lxmert_export.files.lmdb_files import LmdbFile

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("keys", "most"), [(0, 9), (1, 9), (3000, 40), (400, 9000)])
def test_every_value_is_found(keys: int, most: int, tmp_path: Path) -> None:
    random = np.random.default_rng(keys)
    values = {f"key {random.integers(10**9)}".encode(): random.bytes(random.integers(1, most)) for _ in range(keys)}
    with lmdb.open(str(tmp_path), map_size=1 << 26) as environment:
        for part in (0, 1):  # two transactions; some values of the first are replaced or removed
            with environment.begin(write=True) as transaction:
                for number, (key, value) in enumerate(values.items()):
                    if part == 0 or number % 3 == 0:
                        transaction.put(key, value[::-1] if part else value)
                    elif number % 7 == 0:
                        transaction.delete(key)
        with environment.begin() as transaction:
            expected = {bytes(key): bytes(value) for key, value in transaction.cursor()}
    file = LmdbFile(tmp_path / "data.mdb")
    assert {key: bytes(file.value(key)) for key in file.places} == expected
    assert list(file.places) == list(expected)  # in the order of the keys
    file.close()


def test_a_database_of_databases_is_told(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 20, max_dbs=2) as environment:
        inner = environment.open_db(b"inner")
        with environment.begin(write=True, db=inner) as transaction:
            transaction.put(b"a", b"b")
    with pytest.raises(ValueError, match="a database inside"):
        LmdbFile(tmp_path / "data.mdb")
