"""What K2 relies on of the files of a lake, held against the simulated and the durable ones."""

import pytest
from pyarrow.fs import FileSelector, FileType

from k2.clock import ManualClock
from k2.lake.iceberg.catalog import CLOCK, DurableFileIO, local_path, write_file
from k2.lake.iceberg.retrying_io import RetryingFileIO
from tests.sim.store import Files, Store

MAKERS = {
    "durable": DurableFileIO,
    "patient": lambda: RetryingFileIO({CLOCK: ManualClock()}),
    "simulated": lambda: Files(Store()),
}


@pytest.fixture(params=MAKERS)
def files(request):
    return MAKERS[request.param]()


@pytest.fixture
def place(tmp_path):
    return f"file://{tmp_path}/a/b/file.parquet"


def test_what_was_written_is_read(files, place):
    write_file(files.new_output(place), b"0123456789")
    found = files.new_input(place)
    assert found.exists()
    assert len(found) == 10
    with found.open() as stream:
        assert stream.read(3) == b"012"
        stream.seek(8)
        assert stream.read() == b"89"
    assert files.new_output(place).to_input_file().open().read() == b"0123456789"


def test_a_path_names_the_same_file_as_its_uri(files, place):
    write_file(files.new_output(place), memoryview(b"x"))
    with files.new_input(local_path(place)).open() as stream:
        assert stream.read() == b"x"


def test_a_file_is_new_unless_said_otherwise(files, place):
    write_file(files.new_output(place), b"first")
    with pytest.raises(FileExistsError):
        files.new_output(place).create()
    with files.new_output(place).create(overwrite=True) as stream:
        stream.write(b"second")
    assert files.new_input(place).open().read() == b"second"


def test_a_stream_tells_where_it_is_and_closes_twice(files, place):
    stream = files.new_output(place).create()
    stream.write(b"abc")
    assert stream.tell() == 3
    stream.close()
    stream.close()
    assert files.new_input(place).open().read() == b"abc"


def test_what_is_not_there_is_an_os_error(files, place):
    assert not files.new_input(place).exists()
    with pytest.raises(FileNotFoundError):
        files.new_input(place).open()
    with pytest.raises(FileNotFoundError):
        files.delete(place)


def test_what_was_deleted_is_gone(files, place):
    write_file(files.new_output(place), b"x")
    files.delete(place)
    assert not files.new_input(place).exists()


def test_what_was_not_closed_does_not_survive_a_power_loss():
    store = Store()
    write_file(Files(store).new_output("file:///a"), b"whole")
    store.write("file:///b", b"ha", torn=True)
    store.lose_power()
    assert list(store.files) == ["/a"]


def test_a_sweep_lists_reads_and_removes(files, tmp_path):
    for name in ("a/1", "a/b/2", "c/3"):
        write_file(files.new_output(f"file://{tmp_path}/{name}"), name.encode())
    scheme, netloc, root = files.parse_location(f"file://{tmp_path}/a", {})
    disk = files.fs_by_scheme(scheme, netloc)
    found = disk.get_file_info(FileSelector(root, recursive=True))
    here = {(one.path, one.size) for one in found if one.type is FileType.File}
    assert here == {(f"{tmp_path}/a/1", 3), (f"{tmp_path}/a/b/2", 5)}
    with disk.open_input_stream(f"{tmp_path}/a/1") as stream:
        assert stream.read() == b"a/1"
    disk.delete_file(f"{tmp_path}/a/1")
    with pytest.raises(FileNotFoundError):
        disk.delete_file(f"{tmp_path}/a/1")
