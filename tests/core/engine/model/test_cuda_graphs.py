"""What replays a step as a graph, as far as it needs no GPU: a stand-in for the graph computes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from kosmos2_core.engine.model.cuda_graphs import GraphedSteps, _CapturedStep
from kosmos2_core.prompts.tasks import DETAILED
from tests.support.engine_models import engine_of, pixels, prompt_of, requests_of, shapes, tokens


class Steps(GraphedSteps):
    """Records its captures; a replay sees nothing but the buffers of its capture."""

    def __init__(self, engine):
        super().__init__(engine.components.decoder, engine.slots)
        self.captures = []

    def _capture(self, cache, span):
        self.captures.append((cache.length, span))
        ids, starts, step = self._ids, self._starts, self._decoder.step
        logits = step(cache, ids, starts, span=span)
        assert len(logits) == self._slots
        graph = SimpleNamespace(replay=lambda: logits.copy_(step(cache, ids, starts, span=span)))
        return _CapturedStep(graph=graph, logits=logits)


@pytest.mark.parametrize("reads_late", [False, True])
@pytest.mark.parametrize("prompts", [("brief",), ("brief", "detailed")], ids=len)
def test_steps_of_one_shape_say_the_same_whatever_is_live(prompts, reads_late):
    asked = {"brief": prompt_of(shapes), "detailed": prompt_of(shapes, DETAILED)}
    requests = requests_of(pixels(12), *(asked[name] for name in prompts))
    expected = tokens(engine_of(shapes()), requests)
    engine = engine_of(shapes(), reads_late=reads_late)
    steps = Steps(engine)
    engine.components = replace(engine.components, step=steps)
    assert tokens(engine, requests) == expected
    assert steps.captures
    assert len(set(steps.captures)) == len(steps.captures)  # each once, unless the cache grew
