"""Files in memory behind pyiceberg's `FileIO`, with the faults of a disk and of an object store.

A file is there when its stream was closed, as with `k2.lake.iceberg.catalog.DurableFileIO`; what
was being written when its process died is torn or gone, and gone for sure after a power loss.
`tests/contract/test_files.py` holds both to the same suite.
"""

import errno
import io
from pathlib import Path

from pyarrow.fs import FileInfo, FileType
from pyiceberg.io import FileIO, InputFile, OutputFile

from k2.lake.iceberg.catalog import local_path
from tests.sim.process import STALL_S

WRITE_S = 0.0001
READ_FROM_DISK = ".parquet"  # DuckDB knows no other files


class Store:
    """What is on the disk of the lake, by path, for all processes.

    Attributes:
        on_delete: told of each path that is about to go.
    """

    def __init__(self):
        self.files = {}
        self.torn = set()
        self.full = False
        self.on_delete = lambda path: None

    def read(self, location):
        path = local_path(location)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self.files[path]

    def holds(self, location):
        return local_path(location) in self.files

    def write(self, location, content, *, torn):
        path = local_path(location)
        self.files[path] = content
        if path.endswith(READ_FROM_DISK) and not torn:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
        (self.torn.add if torn else self.torn.discard)(path)

    def delete(self, location):
        self.read(location)
        path = local_path(location)
        self.on_delete(path)
        del self.files[path]
        self.torn.discard(path)
        Path(path).unlink(missing_ok=True)

    def lose_power(self):
        """What was not synced is gone."""
        for path in self.torn:
            del self.files[path]
        self.torn.clear()


class Files(FileIO):
    """A process's way to the store; without a process, nothing ever goes wrong."""

    def __init__(self, store, process=None):
        super().__init__()
        self.store = store
        self.process = process

    def new_input(self, location):
        return Input(location, self)

    def new_output(self, location):
        return Output(location, self)

    def delete(self, location):
        self.touch("delete", location)
        self.store.delete(location if isinstance(location, str) else location.location)

    @staticmethod
    def parse_location(location, properties=None):
        return "file", "", local_path(location)

    def fs_by_scheme(self, scheme, netloc):
        return Disk(self)

    def touch(self, what, location, *, writes=False):
        """Let others run, and perhaps fail."""
        if self.process is None:
            return
        process, world = self.process, self.process.world
        what = f"{what} {kind(location)}"
        process.before(what)
        if world.happens("store.stall"):
            process.sleep(world.chance.uniform(*STALL_S))
        if writes and self.store.full:
            raise OSError(errno.ENOSPC, "the simulated disk is full")
        if world.happens("store.error"):
            world.note(process.identity, f"{what} fails")
            raise OSError(errno.EIO, "the simulated store fails")

    def touched(self, what, location):
        if self.process is not None:
            self.process.after(f"{what} {kind(location)}")


class Disk:
    """The part of pyarrow's file system that a sweep uses, by a process's way to the store.

    A list is not of one moment: it is made in two looks, and others run between them.
    """

    def __init__(self, files):
        self._files = files

    def get_file_info(self, selector):
        half = self._look(selector.base_dir, "")
        half = half[: len(half) // 2]
        rest = self._look(selector.base_dir, half[-1].path if half else "")
        return [*half, *rest]

    def open_input_stream(self, path):
        return self._files.new_input(path).open()

    def delete_file(self, path):
        self._files.delete(path)

    def _look(self, folder, after):
        """The files of a folder whose names come after another's."""
        self._files.touch("list", folder)
        return [
            FileInfo(path, FileType.File, size=len(content))
            for path, content in sorted(self._files.store.files.items())
            if path.startswith(f"{folder}/") and path > after
        ]


def kind(location):
    """What sort of file it is, for the history."""
    name = str(location).rsplit("/", 1)[-1]
    if name.startswith(("snap-", "k2-state-")):
        return name[: name.index("-", 1)]
    return "manifest" if name.endswith(".avro") else name.rsplit(".", 1)[-1]


class Input(InputFile):
    def __init__(self, location, files):
        super().__init__(location)
        self._files = files

    def __len__(self):
        return len(self._files.store.read(self.location))

    def exists(self):
        self._files.touch("look for", self.location)
        return self._files.store.holds(self.location)

    def open(self, seekable=True):
        self._files.touch("read", self.location)
        return io.BytesIO(self._files.store.read(self.location))


class Output(OutputFile):
    def __init__(self, location, files):
        super().__init__(location)
        self._files = files

    def __len__(self):
        return len(self._files.store.read(self.location))

    def exists(self):
        return self._files.store.holds(self.location)

    def to_input_file(self):
        return Input(self.location, self._files)

    def create(self, overwrite=False):
        if not overwrite and self._files.store.holds(self.location):
            raise FileExistsError(errno.EEXIST, "there is such a file", self.location)
        return Stream(self.location, self._files)


class Stream(io.BytesIO):
    """Written to the store in two steps: torn, then whole and synced."""

    def __init__(self, location, files):
        super().__init__()
        self._location = location
        self._files = files

    def close(self):
        if not self.closed:
            content = self.getvalue()
            super().close()
            store = self._files.store
            self._files.touch("write", self._location, writes=True)
            if self._files.process is not None:
                store.write(self._location, content[: len(content) // 2], torn=True)
                self._files.process.sleep(WRITE_S)
            store.write(self._location, content, torn=False)
            self._files.touched("write", self._location)
