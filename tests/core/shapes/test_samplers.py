from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.shapes.evaluation.samplers import SAMPLINGS, line, outcomes


def test_samplings_are_compared_on_the_same_scenes():
    found = {outcome.sampling: outcome for outcome in outcomes(SHAPES_DIRECTORY, scenes=3)}
    assert list(found) == list(SAMPLINGS)
    assert len({outcome.objects for outcome in found.values()}) == 1
    assert all(0 < o.right <= o.boxes for o in found.values())
    # The reference's ban takes tags and boxes from lists; the grammar keeps all well-formed.
    assert found["trigram ban, reference"].malformed > found["no ban"].malformed
    assert found["strict grammar"].malformed == 0
    assert found["trigram ban, strict grammar"].malformed == 0
    assert "right" in line(found["no ban"])
