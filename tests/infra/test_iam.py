"""The cloud role: it allows what our requests to S3 need, and nothing else."""

import ast
from pathlib import Path

import pytest

from pipeline.storage import bucket_store, inputs, s3, sources
from tests.support.deployment import annotate_in, statements, the

POLICY = statements("policy.json")
# What AWS asks for each request: its service authorization reference for S3.
ACTION_OF = {
    "delete_object": "s3:DeleteObject",
    "get_object": "s3:GetObject",
    "head_bucket": "s3:ListBucket",
    "head_object": "s3:GetObject",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
}


def requests_of_methods() -> dict[str, set[str]]:
    """Method of `S3` -> the names of the requests that it, or what it calls there, makes."""
    functions = {
        node.name: node
        for node in ast.walk(_tree(s3))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    found: dict[str, set[str]] = {}

    def visit(name: str) -> set[str]:
        if name not in found:
            found[name] = set()
            for node in ast.walk(functions[name]):
                if isinstance(node, ast.Constant) and node.value in ACTION_OF:
                    found[name].add(node.value)
                called = getattr(node, "id", getattr(node, "attr", None))
                if called in functions:
                    found[name] |= visit(called)
        return found[name]

    return {name: visit(name) for name in functions}


def actions(module: object) -> set[str]:
    """What the calls of a client, here `S3`, need from there."""
    requests = requests_of_methods()
    called = {
        node.attr
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Attribute) and node.attr in requests and _is_s3(node.value)
    }
    return {ACTION_OF[request] for name in called for request in requests[name]}


def _is_s3(node: ast.expr) -> bool:
    """`self.client`, or `client`."""
    return "client" in (getattr(node, "id", None), getattr(node, "attr", None))


def _tree(module: object) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]


def granted(place: str) -> set[str]:
    return {
        action for one in POLICY.values() if place in one["Resource"] for action in one["Action"]
    }


def test_every_request_to_s3_is_known_here() -> None:
    """A new one in `s3.py` needs an action, perhaps one that the policy lacks."""
    calls = [node for node in ast.walk(_tree(s3)) if isinstance(node, ast.Call)]
    names = {"_call", "call_s3", "_call_s3"}
    asked = {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", "") in names and isinstance(call.args[0], ast.Constant)
    }
    assert asked == set(ACTION_OF)


def test_input_may_be_read_and_no_more() -> None:
    assert granted(":my-input") == actions(sources) | actions(inputs)
    assert granted(":my-input") == {"s3:GetObject", "s3:ListBucket"}


def test_output_may_be_written_as_far_as_we_do() -> None:
    assert granted(":my-output") == actions(bucket_store) | actions(inputs) | actions(sources)
    assert granted(":my-output") - granted(":my-input") == {"s3:DeleteObject", "s3:PutObject"}


@pytest.mark.parametrize("name", POLICY)
def test_grant_ends_at_its_prefix(name: str) -> None:
    """No wildcard but beneath the prefix that a run names.

    IfExists: a request for an object that is not there has no `s3:prefix`, and without ListBucket
    it would be answered with "forbidden", not "missing", which every run has to tell apart.
    """
    spec = annotate_in(the("RayJob")["spec"]["entrypoint"])
    statement = POLICY[name]
    allowed = {place.removeprefix("s3://") + "*" for place in (spec.input, spec.output)}
    resource = statement["Resource"].removeprefix("arn:aws:s3:::")
    if statement["Action"] == ["s3:ListBucket"]:
        [(operator, condition)] = statement["Condition"].items()
        assert operator == "StringLikeIfExists"
        resource = f"{resource}/{condition['s3:prefix']}"
    assert resource in allowed


def test_role_is_for_the_service_account_alone() -> None:
    account = the("ServiceAccount")["metadata"]
    trust = statements("trust.json")["PodsOfTheServiceAccount"]
    provider = trust["Principal"]["Federated"].partition("oidc-provider/")[2]
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert trust["Condition"] == {
        "StringEquals": {
            f"{provider}:aud": "sts.amazonaws.com",
            f"{provider}:sub": f"system:serviceaccount:{account['namespace']}:{account['name']}",
        }
    }
    role = account["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.split(":")[4] == trust["Principal"]["Federated"].split(":")[4]
