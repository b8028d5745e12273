"""People who judge tasks of `kosmos2 sample`, and Label Studio's export of what they said."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

PACKAGE = "label-studio-sdk==2.1.2"  # for tests.support.foreign

Task = dict[str, Any]
Say = Callable[[Task, dict[str, Any]], str]  # of a task and a box: what a person does with it


def tasks_in(folder: Path) -> list[Task]:
    paths = sorted((folder / "tasks").iterdir())
    return [task for path in paths for task in json.loads(path.read_text())]


def answered(
    tasks: list[Task], say: Say, *, person: int = 1, at: str = "2026-01-01T10:00:00Z"
) -> list[Task]:
    """The tasks with one more annotation each. `say` returns keep, wrong, delete, move or PHRASE.

    As Label Studio does, regions of a prediction get new ids when a person takes them over.
    """
    found = copy.deepcopy(tasks)
    for number, task in enumerate(found):
        [prediction] = task["predictions"]
        result = []
        for box in task["data"]["review"]["boxes"]:
            regions = [r for r in prediction["result"] if r["id"] == box["region"]]
            result += _after(regions, say(task, box))
        annotation = {
            "id": number * 100 + person,
            "completed_by": person,
            "was_cancelled": False,
            "updated_at": at,
            "result": result,
        }
        task.setdefault("annotations", []).append(annotation)
    return found


def _after(regions: list[dict[str, Any]], action: str) -> Iterator[dict[str, Any]]:
    if action == "delete":
        return
    new_id = uuid4().hex[:10]
    for region in copy.deepcopy(regions):
        region["id"], value = new_id, region["value"]
        if action.startswith("move"):
            value["x"] += float(action.removeprefix("move")) * value["width"]
        elif region["type"] == "rectanglelabels":
            value["rectanglelabels"] = ["wrong" if action == "wrong" else "right"]
        elif action not in ("keep", "wrong"):
            value["text"] = [action]
        yield region
