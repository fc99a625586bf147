import pytest

from k2 import limits
from k2.lake.commit.snapshot_commit import RewriteFiles, replace
from k2.lake.iceberg.manifests import append_files, replace_files, size_class
from tests.support.lake_world import facts_of, piece


def test_each_size_class_holds_eight_times_the_counts_of_the_one_below():
    counts = (1, 7, 8, 63, 64, 512, 2**18)
    assert [size_class(count, 8) for count in counts] == [0, 0, 1, 1, 2, 3, 6]


@pytest.fixture
def four(lake):
    """Four commits of one row each, without merging; the head's manifests, newest first."""
    writer, state = lake.committer(), None
    for number in range(4):
        state = writer.commit([piece(0, [number], start=number, state=state)]).states[0]
    return lake.table.current_snapshot().manifests(lake.table.io)


def files_of(lake, *manifests):
    return [
        entry.data_file
        for one in manifests
        for entry in one.fetch_manifest_entry(lake.table.io, discard_deleted=True)
    ]


def test_a_replacement_rewrites_only_the_manifests_it_touches(lake, four):
    gone = files_of(lake, four[0], four[2])
    listed = replace_files(
        lake.table,
        [],
        frozenset(file.file_path for file in gone[:1]),
        frozenset([four[0].manifest_path, four[2].manifest_path]),
        7,
    )
    new, *others = listed.manifests
    assert [one.manifest_path for one in others] == [four[1].manifest_path, four[3].manifest_path]
    assert (new.added_files_count, new.existing_files_count, new.deleted_files_count) == (0, 1, 1)
    assert [file.file_path for file in listed.removed] == [gone[0].file_path]


def test_a_replacement_of_nothing_names_the_same_manifests(lake, four):
    assert replace_files(lake.table, [], frozenset(), frozenset(), 7).manifests == four


def test_what_is_no_longer_there_cannot_be_removed(lake, four):
    with pytest.raises(AssertionError):
        replace_files(lake.table, [], frozenset(["nosuch"]), frozenset([four[0].manifest_path]), 7)


def test_a_manifest_that_cannot_be_read_is_said_by_that_name(lake, four):
    (file,) = files_of(lake, four[0])
    lake.table.io.delete(four[0].manifest_path)
    with pytest.raises(FileNotFoundError):  # and not by what a writer says that wrote nothing
        replace_files(
            lake.table, [], frozenset([file.file_path]), frozenset([four[0].manifest_path]), 7
        )


def test_a_manifest_that_names_nothing_any_more_is_left_out(lake, four):
    table = lake.table
    change = RewriteFiles(
        summary=facts_of(lake, "m-1"),
        removed=frozenset(file.file_path for file in files_of(lake, four[0])),
        touched=frozenset([four[0].manifest_path]),
    )
    after = replace(lake.catalog, table, change, lake.clock.now_us())
    manifests = after.current_snapshot().manifests(after.io)
    assert len(manifests) == 4  # one of them says what was deleted
    paths = [one.manifest_path for one in manifests[1:]]
    listed = append_files(after, files_of(lake, four[0]), 8, "x").manifests
    assert [one.manifest_path for one in listed[1:]] == paths


def test_manifests_of_one_size_are_merged(lake, four, monkeypatch):
    files = files_of(lake, four[0])
    assert len(append_files(lake.table, files, 7, "x").manifests) == 5
    monkeypatch.setattr(limits, "MANIFESTS_TO_MERGE", 5)
    (merged,) = append_files(lake.table, files, 8, "x").manifests
    assert (merged.added_files_count, merged.existing_files_count) == (1, 4)
