"""`make demo-quick`, in a network namespace that has loopback alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from k2 import settings

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[3]
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x49))
os.execvp(sys.argv[1], sys.argv[1:])
"""
UNREACHABLE = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def alone(*line):
    return ["unshare", "-n", sys.executable, "-c", LOOPBACK_UP, *line]


def test_the_quick_demonstration_needs_loopback_alone(tmp_path):
    k2 = f"{sys.executable} -m k2cli"
    steps = f"""
{sys.executable} -c "{UNREACHABLE}" && exit 9
make -C {ROOT} demo-quick DEMO=--no-wait && {k2} demo card --out {tmp_path}/card
code=$?
{k2} down
exit $code
"""
    environment = {
        name: value
        for name, value in settings.environment().items()
        if name not in ("K2_ADDRESS", "MAKEFLAGS", "MAKELEVEL")
    } | {"K2_DATA_DIR": str(tmp_path), "K2_LAKE__COMMIT_INTERVAL_S": "1"}
    if not (ROOT / ".venv/stamp").exists():
        pytest.skip("make setup brings what make demo-quick needs without a network")
    if subprocess.run(alone("true"), capture_output=True, check=False).returncode:
        pytest.skip("this user may make no network namespace")
    done = subprocess.run(
        alone("bash", "-c", steps),
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "SIMULATED DATA" in done.stdout
    assert "NOT MEASURED" not in done.stdout
    run = json.loads((tmp_path / "demo/last_run.json").read_text())
    assert len(run["parts"]) == 9
    verdicts = {
        claim["what"]: claim["verdict"]
        for part in run["parts"].values()
        for claim in part["claims"]
    }
    for what in (
        "the same rows AS_OF a snapshot, after later commits",
        "the same rows by a read token, stream and lake together",
        "five levels are reached, by injected pressure",
        "recovery is automatic, one step at a time",
        "one answer from lake and memory, each trade once",
        "the edge returns the same ids as the client",
    ):
        assert verdicts[what] == "kept"
