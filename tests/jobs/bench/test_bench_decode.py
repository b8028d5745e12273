"""`kosmos2 bench decode`, on one size and few scenes."""

from jobs.bench.decode import bench_decode


def test_fast_decoding_is_measured_and_its_boxes_are_counted() -> None:
    found = bench_decode(scenes=6, rounds=1, sizes=[(800, 600), (1800, 1800)])
    small, large = found.costs
    assert (small.mean_diff, small.max_diff) == (0, 0)  # is decoded exactly
    assert 0 < large.mean_diff < 1
    assert min(large.reference_ms, large.exact_ms, large.fast_ms) > 0
    seen = found.agreement
    assert 0 < seen.right_exact <= seen.objects
    assert seen.right_fast >= seen.right_exact - 1
    assert seen.same_captions >= 5
