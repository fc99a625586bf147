from k2.market.files import FileForm, FileIndex
from k2.market.offsets import FileStat, TimeRange


def stat(path, low, high, symbols=("A", "Z"), exchange="X"):
    return FileStat(path, 10, 100, exchange, *symbols, low, high)


INDEX = FileIndex(
    [
        stat("late", 20, 29),
        stat("early", 0, 9, symbols=("A", "C")),
        stat("other", 0, 29, exchange="Y"),
    ]
)


def paths(index):
    return [one.path for one in index.stats]


def test_it_chooses_by_times_half_open():
    assert paths(INDEX.within(TimeRange(10, 20))) == ["other"]
    assert paths(INDEX.within(TimeRange(9, 20))) == ["early", "other"]
    assert paths(INDEX.within(TimeRange(None, 1))) == ["early", "other"]
    assert paths(INDEX.within(TimeRange(29, None))) == ["late", "other"]
    assert INDEX.within(TimeRange()) is INDEX


def test_it_chooses_by_names():
    assert paths(INDEX.of(("D",), ())) == ["late", "other"]
    assert paths(INDEX.of(("C",), ("X",))) == ["late", "early"]
    assert paths(INDEX.of((), ("Y", "N"))) == ["other"]
    assert INDEX.of((), ()) is INDEX


def test_paths_come_oldest_first_and_sizes_add_up():
    assert INDEX.paths == ["early", "other", "late"]
    assert INDEX.size_bytes == 30
    assert len(FileIndex([])) == 0
    assert FileIndex([]).of(("A",), ("X",)).paths == []


def test_paths_are_parted_by_the_columns_that_their_files_lack():
    old = FileStat("old", 10, 100, "X", "A", "Z", 5, 9, lacks=("note", "fee"))
    index = FileIndex([*INDEX.stats, old])
    assert index.paths_by_form(["note", "price"]) == {
        FileForm(): ["early", "other", "late"],
        FileForm(("note",)): ["old"],
    }
    assert index.paths_by_form(["price"]) == {FileForm(): ["early", "other", "old", "late"]}
    assert INDEX.paths_by_form(["note"]) == {FileForm(): INDEX.paths}
    lacking = FileIndex([old]).paths_by_form(["fee", "note"])
    assert lacking == {FileForm(("note", "fee")): ["old"]}


def test_paths_are_parted_by_how_wide_their_quantities_are():
    narrow = FileStat("narrow", 10, 100, "X", "A", "Z", 5, 9, narrow=True)
    index = FileIndex([*INDEX.stats, narrow])
    assert index.paths_by_form(["quantity"]) == {
        FileForm(): ["early", "other", "late"],
        FileForm(narrow=True): ["narrow"],
    }
    assert index.paths_by_form(["price"]) == {FileForm(): index.paths}
    assert FileIndex([narrow]).paths_by_form(["quantity"]) == {FileForm(narrow=True): ["narrow"]}
    assert FileIndex([]).paths_by_form(["quantity"]) == {}
