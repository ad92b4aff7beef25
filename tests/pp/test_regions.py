"""Masks of regions against a plain loop, and files as users have them."""

import gzip
import re
import subprocess

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi import pp


@pytest.fixture
def make_peaks(make_pair):
    """Return a function that builds a MuData with peaks of these names."""

    def make_peaks(*names):
        pair = make_pair(np.ones((2, 1)), np.ones((2, len(names))))
        pair["atac"].var_names = list(names)
        pair.update()
        return pair

    return make_peaks


@pytest.fixture
def write_bed(tmp_path):
    """Return a function that writes lines to a BED file."""

    def write_bed(*lines):
        path = tmp_path / "regions.bed"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write_bed


def masked(mdata) -> list[bool]:
    return mdata["atac"].var["masked"].tolist()


@pytest.mark.parametrize(
    ("peak", "expected"),
    [
        ("chr1:100-200", True),
        ("chr1:199-300", True),  # the last base
        ("chr1:200-300", False),  # the end is excluded
        ("chr1:50-101", True),  # the first base
        ("chr1:50-100", False),
        ("chr1:0-1000", True),  # around the region
        ("chr1:140-150", True),  # inside
        ("chr2:100-200", False),  # elsewhere
    ],
)
def test_one_base_in_common_is_an_overlap(make_peaks, write_bed, peak, expected):
    bed = write_bed("chr1\t100\t200")
    assert masked(pp.mask_regions(make_peaks(peak, "chr1:900-901"), bed)) == [expected, False]


def test_file_may_be_given_from_the_home_of_the_user(make_peaks, write_bed, monkeypatch):
    bed = write_bed("chr1\t100\t200")
    monkeypatch.setenv("HOME", str(bed.parent))
    assert masked(pp.mask_regions(make_peaks("chr1:100-200"), "~/regions.bed")) == [True]


@pytest.mark.parametrize("lines", [["chr1\t150\t150"], ["chr1\t150\t150", "chr1\t190\t200"]])
def test_region_of_length_zero_has_no_base_in_common_with_the_peak_around_it(
    make_peaks, write_bed, lines
):
    mdata = make_peaks("chr1:100-200", "chr1:100-190")
    assert masked(pp.mask_regions(mdata, write_bed(*lines))) == [len(lines) > 1, False]


def test_masks_equal_a_plain_loop_for_unsorted_peaks_and_nested_regions(
    make_peaks, write_bed, rng
):
    def draw(n, width):
        starts = rng.integers(0, 3000, n)
        ends = starts + rng.integers(1, width, n)
        chromosomes = [f"chr{number}" for number in rng.integers(1, 4, n)]
        return list(zip(chromosomes, starts, ends, strict=True))

    peaks, regions = list(dict.fromkeys(draw(200, 60))), draw(30, 200)
    mdata = make_peaks(*(f"{c}:{s}-{e}" for c, s, e in peaks))
    bed = write_bed(*(f"{c}\t{s}\t{e}" for c, s, e in regions))
    expected = [any(c == d and s < f and t < e for d, t, f in regions) for c, s, e in peaks]
    assert 0 < sum(expected) < len(expected)
    assert masked(pp.mask_regions(mdata, bed)) == expected


def test_masked_peaks_can_be_removed_and_are_accounted_for(make_peaks, write_bed):
    bed = write_bed("chr1\t100\t200")
    left = pp.mask_regions(make_peaks("chr1:500-600", "chr1:100-200"), bed, subset=True)
    assert list(left["atac"].var_names) == ["chr1:500-600"]
    row = left.uns["scmvp_removed"].iloc[0]
    assert (row["of"], row["removed"], row["kept"]) == ("peaks", 1, 1)
    assert row["reason"] == f"in regions of {bed}"


@pytest.mark.parametrize("name", ["chr1-100-200", "chr1_100_200", "chr1:100:200"])
def test_other_separators_in_peak_names_are_read(make_peaks, write_bed, name):
    assert masked(pp.mask_regions(make_peaks(name), write_bed("chr1 150 160"))) == [True]


def test_chromosome_names_may_hold_separators(make_peaks, write_bed):
    bed = write_bed("chrUn_GL000195v1\t100\t200")
    assert masked(pp.mask_regions(make_peaks("chrUn_GL000195v1:150-160"), bed)) == [True]


def test_headers_empty_lines_and_further_columns_are_skipped(make_peaks, write_bed):
    bed = write_bed("track name=x", "browser hide", "# note", "", "chr1\t1\t9\tLow\t0\t+")
    assert masked(pp.mask_regions(make_peaks("chr1:5-6"), bed)) == [True]


def test_mark_at_the_start_of_a_text_is_no_part_of_the_first_chromosome(make_peaks, tmp_path):
    bed = tmp_path / "regions.bed"
    bed.write_text("chr1\t0\t60\nchr1\t900\t950\n", encoding="utf-8-sig")
    assert masked(pp.mask_regions(make_peaks("chr1:0-50", "chr1:100-200"), bed)) == [True, False]


def test_compressed_files_are_read(make_peaks, tmp_path):
    bed = tmp_path / "regions.bed.gz"
    with gzip.open(bed, "wt") as file:
        file.write("chr1\t1\t9\n")
    assert masked(pp.mask_regions(make_peaks("chr1:5-6"), bed)) == [True]


def test_the_given_object_stays_as_it_is(make_peaks, write_bed, assert_untouched):
    pair = make_peaks("chr1:5-6", "chr1:50-60")
    before = pair.copy()
    pp.mask_regions(pair, write_bed("chr1\t1\t9"), subset=True)
    assert_untouched(pair, before)


@pytest.mark.parametrize("line", ["chr1\t100", "chr1\tstart\tend", "chr1,100,200", "chr1\t1.5\t9"])
def test_malformed_line_is_refused_with_its_number(make_peaks, write_bed, line):
    bed = write_bed("chr1\t1\t9", line)
    with pytest.raises(
        ValueError, match=rf"Line 2 of `.*regions.bed` must be chrom.*got .{line[:4]}"
    ):
        pp.mask_regions(make_peaks("chr1:5-6"), bed)


@pytest.mark.parametrize("line", ["chr1\t200\t100", "chr1\t-5\t100"])
def test_impossible_region_is_refused_with_its_line(make_peaks, write_bed, line):
    with pytest.raises(ValueError, match=r"Line 1 of .*the start from 0 and not after the end"):
        pp.mask_regions(make_peaks("chr1:5-6"), write_bed(line))


def test_file_without_regions_is_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="must hold at least one region, but it has none"):
        pp.mask_regions(make_peaks("chr1:5-6"), write_bed("# nothing"))


def test_missing_file_is_refused(make_peaks, tmp_path):
    match = "`bed` must be a BED file, but `.*none.bed` is not there. Check the path"
    with pytest.raises(FileNotFoundError, match=match):
        pp.mask_regions(make_peaks("chr1:5-6"), tmp_path / "none.bed")


def test_table_in_place_of_a_file_is_refused_with_what_writes_one(make_peaks):
    table = pd.DataFrame({"chrom": ["chr1"], "start": [1], "end": [9]})
    with pytest.raises(TypeError, match="path of a BED file, got a DataFrame. Write .*to_csv"):
        pp.mask_regions(make_peaks("chr1:5-6"), table)


def test_folder_is_refused(make_peaks, tmp_path):
    with pytest.raises(IsADirectoryError, match="but `.*` is a folder. Name the file"):
        pp.mask_regions(make_peaks("chr1:5-6"), tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:20] + b"????" + b[24:]])
def test_damaged_gzip_is_refused_with_the_way_out(make_peaks, tmp_path, damage):
    bed = tmp_path / "regions.bed.gz"
    bed.write_bytes(damage(gzip.compress(b"chr1\t1\t60\n" * 500)))
    match = "regions.bed.gz` must be a whole gzip file, .* download it again"
    with pytest.raises(ValueError, match=match):
        pp.mask_regions(make_peaks("chr1:5-6"), bed)


@pytest.mark.parametrize(("name", "pack"), [("a.bed.gz", bytes), ("a.bed", gzip.compress)])
def test_compression_is_told_by_the_content_and_not_by_the_name(make_peaks, tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(b"chr1\t1\t9\n"))
    assert masked(pp.mask_regions(make_peaks("chr1:5-6"), tmp_path / name)) == [True]


def test_file_that_is_no_text_is_refused(make_peaks, tmp_path):
    bed = tmp_path / "regions.bb"
    bed.write_bytes(b"\x87\x89\xf2\xeb" + bytes(60))
    with pytest.raises(ValueError, match="regions.bb` must be text, .*`bigBedToBed`"):
        pp.mask_regions(make_peaks("chr1:5-6"), bed)


@pytest.mark.parametrize(
    ("peaks", "chromosomes", "found", "command"),
    [
        (["chr1:5-6"], ["1"], "`1` for `chr1`", r"sed -E 's/\^\(1\)\\b/chr\\1/' .*regions.bed"),
        (["1:5-6"], ["chr1"], "`chr1` for `1`", r"sed 's/\^chr//' .*regions.bed"),
        # a contig that both spell alike, and a chromosome that they do not
        (["1:5-6", "GL000205.2:7-90"], ["chr1", "GL000205.2"], "`chr1` for `1`", "sed"),
        (["chr1:5-6", "chr2:5-6"], ["chr1", "2"], "`2` for `chr2`", "sed"),
        (["chr1:5-6"], ["Chr1"], "`Chr1` for `chr1`", "in the file."),
        # two files that were joined, also where the peaks have no such chromosome
        (["chr1:5-6"], ["chr1", "1"], "`1` for `chr1`", r"sed -E 's/\^\(1\)"),
        (["chr1:5-6"], ["chr1", "7", "chr7"], "`7` for `chr7`", r"sed -E 's/\^\(7\)"),
    ],
)
def test_chromosomes_spelled_otherwise_are_refused_with_what_renames_them(
    make_peaks, write_bed, peaks, chromosomes, found, command
):
    bed = write_bed(*(f"{name}\t1\t9" for name in chromosomes))
    with pytest.raises(ValueError, match=f"regions.bed` has {found}. .*{command}"):
        pp.mask_regions(make_peaks(*peaks), bed)


def test_command_that_renames_chromosomes_of_a_compressed_file_does(make_peaks, tmp_path):
    bed = tmp_path / "regions.bed"
    bed.write_bytes(gzip.compress(b"1\t1\t9\nchr7\t1\t9\n"))
    with pytest.raises(ValueError, match="`1` for `chr1`") as error:
        pp.mask_regions(make_peaks("chr1:5-6"), bed)
    (command,) = re.findall(r"`(gzip [^`]*)`", str(error.value))
    renamed = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert renamed.stdout == "chr1\t1\t9\nchr7\t1\t9\n"


def test_peaks_that_spell_a_chromosome_in_two_ways_are_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="peaks of `atac` must spell .* such as `1` and `chr1`"):
        pp.mask_regions(make_peaks("chr1:5-6", "1:50-60"), write_bed("chr1\t1\t9"))


def test_chromosomes_of_one_side_alone_are_passed_over(make_peaks, write_bed):
    bed = write_bed("chr1\t1\t9", "chr7\t1\t9")
    mdata = make_peaks("chr1:5-6", "GL000205.2:5-6")
    assert masked(pp.mask_regions(mdata, bed)) == [True, False]


def test_peak_that_is_there_again_in_another_spelling_is_refused(make_peaks, write_bed):
    mdata = make_peaks("chr1:5-6", "chr1_5_6", "chr1-5-6")
    match = "must be there once, but 2 of 3 .*: `chr1_5_6`, `chr1-5-6`. Keep one of each"
    with pytest.raises(ValueError, match=match):
        pp.mask_regions(mdata, write_bed("chr1\t1\t9"))


def test_regions_of_another_genome_are_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="must be of the genome .* it has `scaffold_7`"):
        pp.mask_regions(make_peaks("chr1:5-6"), write_bed("scaffold_7\t1\t9"))


def test_removal_of_all_peaks_is_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="`subset=True` leaves no peak: all 1 of `atac` overlap"):
        pp.mask_regions(make_peaks("chr1:5-6"), write_bed("chr1\t1\t9"), subset=True)


def test_peaks_without_positions_in_their_names_are_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="named `chromosome:start-end`, but 1 of 2 .*: `peak7`"):
        pp.mask_regions(make_peaks("chr1:5-6", "peak7"), write_bed("chr1\t1\t9"))


def test_peaks_that_end_before_their_start_are_refused(make_peaks, write_bed):
    with pytest.raises(ValueError, match="must end after their start, but 1 of 1 .*`chr1:6-5`"):
        pp.mask_regions(make_peaks("chr1:6-5"), write_bed("chr1\t1\t9"))
