"""A data directory with a lake, a registry's database and a stamp, without a stack, for backups."""

import stat

from k2.clock import SystemClock
from k2.settings import Settings
from servers.local.backup import Meter, back_up
from servers.local.restore import restore
from servers.local.stamp import Stamp, read_stamp, write_stamp
from tests.support.lake_world import LakeWorld, piece

STAMP = Stamp("simulated", "synthetic", "BINANCE")


class DataDir:
    """What `k2 up` leaves behind, as far as backups care."""

    def __init__(self, folder):
        self.folder = folder
        self.lake = LakeWorld(folder)
        self.end, self.state = 0, None
        write_stamp(folder / "stamp.json", STAMP)
        for name, content in (
            ("schemas/1.json", b'{"id": 1}'),
            ("registry/database.mv.db", b"H2" * 5000),
            ("kafka/logs/0.log", b"the tape"),
            ("run/stack.json", b"{}"),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        key = folder / "ticket.key"
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)

    def commit(self, count=1, rows=5):
        """More rows; the lake then holds ids 0 up to `end`."""
        writer = self.lake.committer(f"w{self.end}")
        for _ in range(count):
            ids = range(self.end, self.end + rows)
            batch = piece(0, ids, start=self.end, state=self.state)
            writer.commit([batch])
            self.end, self.state = batch.end, batch.state

    def back_up(self, to, name="b1", meter=None):
        return back_up(self.lake.settings, to, self.lake.clock, name, meter or quiet())

    def close(self):
        self.lake.close()


def quiet(on_begin=None, stop_after=None):
    """A meter that tells `on_begin` what is done next, and stops after so many ticks."""
    ticks, last = [], []

    def progress(what, _done, _total):
        if last[-1:] != [what]:
            last.append(what)
            if on_begin:
                on_begin(what)

    def stopping():
        ticks.append(1)
        return stop_after is not None and len(ticks) > stop_after

    return Meter(progress, stopping)


def put_back(folder, into, *, keep_tape=False, meter=None):
    """Restore into a data directory."""
    asked = Settings(data_dir=into)
    return restore(asked, folder, SystemClock(), meter or quiet(), keep_tape=keep_tape)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def stamp_of(folder):
    return read_stamp(folder / "stamp.json")
