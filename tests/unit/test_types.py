"""Types that can be relied on: nothing public takes or gives ``Any``, and whatever is ignored says why."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for room in ("kima_stream", "projections", "consumers") for path in (ROOT / room).rglob("*.py"))

# Where others decide on the signature, or a table holds things of all types; each with its reason.
ALLOWED = {
    "kima_stream/cli/audit.py PositionOrTime.convert": "click's signature",
    "kima_stream/effects/settling.py AnyOwner": "a worker has owners of all states",
    "kima_stream/event_stream.py EventStream.facts": "INFO's values are of many types",
    "kima_stream/http/audit.py StateView.state": "of the projection's own shape",
    "kima_stream/http/connection.py Connection.__init__": "aiohttp's options",
    "kima_stream/http/connection.py Connection.log_exception": "aiohttp's signature",
    "kima_stream/http/connection.py Runner.__init__": "aiohttp's options",
    "kima_stream/http/openapi.py Json": "OpenAPI's own JSON, too varied to be worth structs",
    "kima_stream/cli/__init__.py Commands.main": "click's signature",
    "kima_stream/http/routes.py AnyRoute": "a table holds routes of all types",
    "kima_stream/http/submissions.py AnyCloudEvent.data": "a sender's data is whatever it is",
    "kima_stream/read_models/__init__.py PROJECTIONS": "a table holds projections of all states",
    "kima_stream/replay.py Difference.fields": "columns of all types",
    "kima_stream/settings/kinds.py Definition.check": "a value of the definition's own type",
    "kima_stream/settings/definitions.py AnyDefinition": "a table holds definitions of all types",
    "kima_stream/upcasters.py type_upcaster": "an old event's data has no struct any more",
}
IGNORE = re.compile(r"# type: ignore(\[[a-z-]+(,[a-z-]+)*\])?(?P<reason>.*)")
NOQA = re.compile(r"# noqa(: [A-Z0-9, ]+)?(?P<reason>.*)")


def name_of(path: Path) -> str:
    """Return a file's name from the root."""
    return path.relative_to(ROOT).as_posix()


def is_public(name: str) -> bool:
    """Return whether others may use it: no underscore in front, or a method of Python's own."""
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def holds_any(annotation: ast.expr | None) -> bool:
    """Return whether ``Any`` is in it, but for what is sent into a coroutine, which nobody ever does."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return re.search(r"\bAny\b", annotation.value) is not None  # a forward reference
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Coroutine":
        parts = annotation.slice
        return isinstance(parts, ast.Tuple) and holds_any(parts.elts[-1])
    if isinstance(annotation, ast.Name | ast.Attribute):
        return ast.unparse(annotation).rpartition(".")[2] == "Any"
    return any(holds_any(part) for part in ast.iter_child_nodes(annotation) if isinstance(part, ast.expr))


def annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr | None]:
    """Yield what a function takes and gives."""
    taken = function.args
    for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg):
        if argument is not None:
            yield argument.annotation
    yield function.returns


def public_anys(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Yield the public functions, methods, fields and type aliases that hold ``Any``."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if is_public(node.name):
                if any(map(holds_any, annotations(node))):
                    yield prefix + node.name
            case ast.ClassDef() if is_public(node.name):
                yield from public_anys(node.body, f"{prefix}{node.name}.")
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value) if is_public(name):
                if holds_any(annotation) or (ast.unparse(annotation) == "TypeAlias" and holds_any(value)):
                    yield prefix + name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as value) if is_public(name):
                if holds_any(value):
                    yield prefix + name
            case _:
                continue


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x: Any) -> None: ...", ["f"]),
        ("async def f() -> dict[str, list[Any]]: ...", ["f"]),
        ("def f(*, x: 'int | Any', **more: int) -> None: ...", ["f"]),
        ("def f(*rest: typing.Any) -> None: ...", ["f"]),
        ("class A:\n    x: Callable[[Any], int]\n    def m(self) -> Any: ...", ["A.x", "A.m"]),
        ("T: TypeAlias = dict[str, Any]", ["T"]),
        ("Json = dict[str, Any]", ["Json"]),
        ("def _f(x: Any) -> Any: ...", []),
        ("class _A:\n    x: Any", []),
        ("def f(x: Coroutine[Any, Any, int]) -> None: ...", []),
        ("def f(x: object) -> 'Anything': ...", []),
    ],
)
def test_the_search_finds_any_wherever_it_is(source: str, found: list[str]) -> None:
    """And leaves alone what is nobody else's business."""
    assert list(public_anys(ast.parse(source).body)) == found


def test_nothing_public_is_any() -> None:
    """Whoever calls us is told what it takes and what it gets."""
    found = {f"{name_of(path)} {name}" for path in FILES for name in public_anys(ast.parse(path.read_text()).body)}

    assert sorted(found - ALLOWED.keys()) == []
    assert sorted(ALLOWED.keys() - found) == [], "no longer needed"


def test_whatever_is_ignored_says_why() -> None:
    """Each ``type: ignore`` and ``noqa`` names its rule and has its reason beside it."""
    unexplained = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for kind in (IGNORE, NOQA)
        if (found := kind.search(line)) and not (found[1] and re.search(r"[a-z]{2}", found["reason"]))
    ]

    assert unexplained == []
