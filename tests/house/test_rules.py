"""What the source never contains, whatever the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import sources

DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "types"}
VAGUE_CLASS = re.compile(r"(Manager|Helper|Mixin|Util|Utils|Base|Impl)$")
VAGUE_FUNCTION = re.compile(r"^_*(do|handle|process)_|_impl$")
STATEMENT = re.compile(
    r"\s*(select|insert into|insert or|update|delete from|create|drop|alter|attach|with \w+ as)\s",
    re.IGNORECASE,
)


def is_environment(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")) or (
        isinstance(node, ast.Name) and node.id in ("environ", "getenv")
    )


def handed_on(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what is spread into a dict: `{**this}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if key is None)


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk what runs when the module is imported: all but the bodies of functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                waiting += [*node.decorator_list, node.args]
            case ast.Lambda():
                waiting.append(node.args)
            case _:
                waiting += ast.iter_child_nodes(node)


def text_of(node: ast.AST) -> str:
    """Return the leading literal text of a string expression that is put together."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return text
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod() | ast.Add()):
            return text
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            return text
    return ""


def swallows(node: ast.ExceptHandler) -> bool:
    broad = node.type is None or (
        isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
    )
    return broad and all(isinstance(line, ast.Pass) for line in node.body)


def says_itself(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether it is a property, or a line of a protocol: its name and type are enough."""
    is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
    return is_property or ast.unparse(node.body[-1]) == "..."


def public_definitions(
    tree: ast.Module,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the classes, functions and methods of a module that a user may name."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("_") and not says_itself(node):
            yield node
            waiting += node.body if isinstance(node, ast.ClassDef) else []


def test_no_file_is_a_drawer():
    drawers = [source.name for source in sources("src", "bench") if source.path.stem in DRAWERS]

    assert not drawers, "\n".join(drawers)


def test_no_name_is_vague():
    vague = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources("src", "bench")
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name))
        or (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and VAGUE_FUNCTION.search(node.name)
        )
    ]

    assert not vague, "\n".join(vague)


def test_no_sql_is_put_together_from_strings():
    built = [
        f"{source.name}:{node.lineno}"
        for source in sources("src")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.expr) and STATEMENT.match(text_of(node))
    ]

    assert not built, "\n".join(built)


def test_nothing_reads_the_environment_when_it_is_imported():
    reads = [
        f"{source.name}:{node.lineno}"
        for source in sources("src")
        for node in at_import(source.tree)
        if isinstance(node, ast.expr) and is_environment(node)
    ]

    assert not reads, "\n".join(reads)


def test_only_the_command_line_reads_the_environment():
    """Handing all of it on to a child process, `{**os.environ, ...}`, reads nothing of it."""
    reads = [
        f"{source.name}:{node.lineno}"
        for source in sources("src")
        if not source.name.startswith("src/backlane/cli/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.expr) and is_environment(node)
        if not any(node is handed for handed in handed_on(source.tree))
    ]

    assert not reads, "\n".join(reads)


def test_no_error_is_swallowed():
    swallowed = [
        f"{source.name}:{node.lineno}"
        for source in sources("src", "bench")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]

    assert not swallowed, "\n".join(swallowed)


def test_no_app_and_no_engine_is_global():
    made = [
        f"{source.name}:{node.lineno}"
        for source in sources("src")
        for node in source.tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and re.search(r"(Engine|Backlane)$", node.value.func.id)
    ]

    assert not made, "\n".join(made)


def test_every_module_has_a_docstring():
    bare = [source.name for source in sources("src", "bench") if not ast.get_docstring(source.tree)]

    assert not bare, "\n".join(bare)


def test_every_public_name_of_the_root_has_a_docstring():
    bare = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources("src")
        if source.path.parent.name == "backlane"
        for node in public_definitions(source.tree)
        if not ast.get_docstring(node)
    ]

    assert not bare, "\n".join(bare)


def test_no_comment_promises_work_without_an_issue():
    promises = [
        f"{source.name}:{number}"
        for source in sources("src", "bench")
        for number, line in enumerate(source.lines, 1)
        if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b(?!.*#\d)", line)
    ]

    assert not promises, "\n".join(promises)
