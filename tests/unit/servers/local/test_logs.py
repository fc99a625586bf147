"""Logs are bounded, and their end explains a death."""

from servers.local.logs import bound, last_lines


def test_a_log_within_its_bound_is_left_alone(tmp_path):
    path = tmp_path / "feed.log"
    bound(path, 10)
    path.write_bytes(b"x" * 10)
    bound(path, 10)
    assert [each.name for each in tmp_path.iterdir()] == ["feed.log"]


def test_a_log_that_grew_is_kept_once_and_its_writer_goes_on(tmp_path):
    path = tmp_path / "feed.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * 11)
        bound(path, 10)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "feed.log.1").read_bytes() == b"x" * 11


def test_the_last_lines_of_a_log(tmp_path):
    path = tmp_path / "feed.log"
    assert last_lines(path) == ""
    path.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    assert last_lines(path, 2) == "line 4998\nline 4999"
