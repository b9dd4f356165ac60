"""Whatever happens to the bytes of a shard: a clear error, or the right rows."""

from collections import Counter

from tests.property import damage


def test_a_damaged_shard_is_refused_or_read_right():
    outcomes = damage.campaign(range(1500))
    counts = Counter(outcomes.values())
    allowed = {damage.REFUSED, damage.UNREADABLE, damage.HARMLESS, damage.ABORTED}
    assert not counts.keys() - allowed, counts
    # Each of them does happen, and the abort of pyarrow hardly ever.
    assert min(counts[kind] for kind in (damage.REFUSED, damage.UNREADABLE, damage.HARMLESS)) > 100
    assert counts[damage.ABORTED] <= 10


def test_the_oracle_sees_a_wrong_a_lost_and_a_doubled_row(tmp_path):
    path = tmp_path / "pairs.parquet"
    rows = damage.write_shard(path, 0)
    found = damage.read_all(path)
    assert damage.compare(found, rows) == damage.HARMLESS
    assert damage.compare(found[:-1], rows) == "WRONG COUNT: 59"
    assert damage.compare([*found, found[-1]], rows) == "WRONG COUNT: 61"
    wrong = [*found[:7], (*found[7][:3], "another document"), *found[8:]]
    assert damage.compare(wrong, rows).startswith("WRONG ROW: ('q0', 'd7'")
