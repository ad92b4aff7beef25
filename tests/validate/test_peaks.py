"""Names of peaks are read in each spelling, or refused with a way out that works."""

import pandas as pd
import pytest

from scmvp_scvi._validate import parse_peak_columns, parse_peaks, read_peaks, spelled_otherwise

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_names_that_cannot_be_read_are_missing_and_peaks_without_a_base_marked(dtype):
    names = ["chr1:10-20", "Gad1", "chr2:9-9", "chr3:9-1", None]
    read = read_peaks(pd.Series(names, index=list("abcde"), dtype=dtype))
    assert read.is_unreadable.tolist() == [False, True, False, False, True]
    assert read.is_reversed.tolist() == [False, False, True, True, False]
    assert read.table.index.tolist() == list("abcde")
    found = read.table.dropna()
    assert found.values.tolist() == [["chr1", 10, 20], ["chr2", 9, 9], ["chr3", 9, 1]]


def test_places_are_read_to_the_base_beside_names_that_are_unreadable():
    place = 2**53 + 1  # which no floating-point number is
    read = read_peaks(pd.Series([f"chr1:{place}-{place + 2}", "Gad1"]))
    assert read.table.loc[0, ["start", "end"]].tolist() == [place, place + 2]


def test_columns_that_are_no_peaks_are_refused_with_the_table_to_rename():
    table = pd.DataFrame([[1.0, 2.0]], columns=["chr1:1-2", "Gad1"])
    match = r"of `rates` must be named .*: `Gad1`. Rename them, `rates.columns = ...`, or pass a t"
    with pytest.raises(ValueError, match=match):
        parse_peak_columns(table, argument="rates")


def test_columns_are_read_as_the_names_of_a_modality():
    names = ["chr1:1-2", "chr2_5_9"]
    found = parse_peak_columns(pd.DataFrame([[1.0, 2.0]], columns=names), argument="rates")
    pd.testing.assert_frame_equal(found, parse_peaks(pd.Index(names), "atac"))
    assert found.dtypes[["start", "end"]].tolist() == ["int64", "int64"]


@pytest.mark.parametrize("name", ["chr1:10-20", "chr1-10-20", "chr1_10_20"])
def test_peaks_are_read_in_each_spelling(name):
    assert parse_peaks(pd.Index([name]), "atac").loc[name].tolist() == ["chr1", 10, 20]


def test_separators_in_the_name_of_a_chromosome_stay_there():
    peaks = parse_peaks(pd.Index(["chrUn_KI270-v1:10-20"]), "atac")
    assert peaks["chrom"].tolist() == ["chrUn_KI270-v1"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Gad1", "must be named `chromosome:start-end`"),
        ("chr1:-5-100", "must be named `chromosome:start-end`"),
        ("chr1--5-100", "must be named `chromosome:start-end`"),
        ("chr1:9-9", "must end after their start"),
    ],
)
def test_names_that_are_no_peaks_are_refused(name, rule):
    with pytest.raises(ValueError, match=f"The peaks of `atac` {rule}.*`{name}`"):
        parse_peaks(pd.Index(["chr1:1-2", name]), "atac")


def test_same_peak_in_two_spellings_is_refused():
    match = "must be there once, but 1 of 3 are there again in another spelling: `chr1_1_2`"
    with pytest.raises(ValueError, match=match):
        parse_peaks(pd.Index(["chr1:1-2", "chr2:1-2", "chr1_1_2"]), "atac")


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_peaks_of_one_chromosome_in_two_spellings_are_refused_and_the_way_out_renames_them(
    make_mdata, run_way_out
):
    mdata = make_mdata()
    mdata["atac"].var_names = ["1_random:1-9", "1-5-9", "chr1:20-30", "GL1.1:1-9"]
    mdata.update()
    match = "`atac` must spell each chromosome in one way, but have 1 in two, such as `1` and `chr"
    with pytest.raises(ValueError, match=match) as error:
        parse_peaks(mdata["atac"].var_names, "atac")
    fixed = run_way_out(error, mdata, "names = ")
    expected = ["1_random:1-9", "chr1-5-9", "chr1:20-30", "GL1.1:1-9"]
    assert fixed["atac"].var_names.tolist() == expected
    # in which order they stand there is up to mudata
    assert set(fixed.var_names[4:]) == set(expected)


@pytest.mark.parametrize(
    ("chromosomes", "others", "expected"),
    [
        (["1", "chrX"], ["chr1", "X"], {"1": "chr1", "chrX": "X"}),
        (["1", "chr1", "MT"], ["chr1"], {"1": "chr1"}),
        (["1", "chr1"], ["1", "2"], {"chr1": "1"}),
        (["2", "chr2", "chr1"], ["chr1"], {"2": "chr2"}),
        (["chr2", "2"], [], {"2": "chr2"}),
        (["chr1", "KI1"], ["chr1", "chr2"], {}),
    ],
)
def test_chromosomes_of_two_spellings_are_those_of_the_other_side_if_it_has_them(
    chromosomes, others, expected
):
    assert spelled_otherwise(chromosomes, others) == expected
