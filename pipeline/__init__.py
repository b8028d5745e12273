"""Grounded-caption datasets: a job over many shards, or a stage for your own Ray pipeline.

Names are imported on first use, so `import pipeline` does not import Ray or torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.datasets import Dataset
    from pipeline.driver.run import retry, run
    from pipeline.driver.verdict import Verdict
    from pipeline.errors import PipelineError, ShardsFailed, SpecError
    from pipeline.execution.annotate.stage import AnnotateImages
    from pipeline.exit_codes import ExitCode
    from pipeline.progress import Progress
    from pipeline.spec.job import JobSpec, RetryOptions

_MODULES = {
    "datasets": ("Dataset",),
    "driver.run": ("retry", "run"),
    "driver.verdict": ("Verdict",),
    "errors": ("PipelineError", "ShardsFailed", "SpecError"),
    "execution.annotate.stage": ("AnnotateImages",),
    "exit_codes": ("ExitCode",),
    "progress": ("Progress",),
    "spec.job": ("JobSpec", "RetryOptions"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AnnotateImages",
    "Dataset",
    "ExitCode",
    "JobSpec",
    "PipelineError",
    "Progress",
    "RetryOptions",
    "ShardsFailed",
    "SpecError",
    "Verdict",
    "retry",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("pipeline.version").our_version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name] in ("datasets", "driver.run"):  # before they import Ray
        import_module("pipeline.execution.environment").prepare_environment()
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
