"""What the names of a module may be bound to once it was imported, as far as its text tells."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Bound = ast.FunctionDef | ast.AsyncFunctionDef | None
"""A function, or None for what the text alone does not tell: an import, the value of an expression."""

_DIRECT = frozenset({"exec", "eval", "globals"})
_BARE = frozenset({"vars", "locals"})
"""Without an argument they are the module's own names."""


@dataclass
class Bindings:
    """Of the module's top level."""

    names: dict[str, list[Bound]] = field(default_factory=dict)
    """Everything that a name may be bound to in the end; no entry, or an empty one: it is not bound."""
    elsewhere: frozenset[str] = frozenset()
    """Names that functions bind by `global`, if they are called."""
    unknown: bool = False
    """Whether the module may have further names: a star import, `exec`, `__getattr__` and the like."""
    in_expressions: bool = False
    """Whether an expression binds names (`:=`) at all: few modules have one, and to look for them takes long."""

    def may_have(self, name: str) -> bool:
        """Whether the module may have the name."""
        return self.unknown or name in self.elsewhere or bool(self.names.get(name))

    def bind(self, name: str, bound: Bound, *, surely: bool) -> None:
        """One more binding; one that is surely reached takes the place of those before."""
        if surely:
            self.names[name] = [bound]
        else:
            self.names.setdefault(name, []).append(bound)


def bindings_of(tree: ast.Module) -> Bindings:
    """Goes through the statements in their order; what stands under a condition may happen or not."""
    found = Bindings()
    for node in _nodes(tree):
        if isinstance(node, ast.Global):
            found.elsewhere |= frozenset(node.names)
        elif isinstance(node, ast.NamedExpr):
            found.in_expressions = True
        found.unknown = found.unknown or _opens(node)
    _block(tree.body, found, surely=True)
    found.unknown = found.unknown or found.may_have("__getattr__")
    return found


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of them, in no order; without `ctx`, which is a node too and half of what `ast.walk` goes through."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for name in node._fields:
            value = None if name == "ctx" else getattr(node, name, None)
            if isinstance(value, ast.AST):
                pending.append(value)
            elif isinstance(value, list):
                pending += [item for item in value if isinstance(item, ast.AST)]


def _opens(node: ast.AST) -> bool:
    """Whether the node may bind names that the text does not say."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "*" for alias in node.names)
    if isinstance(node, ast.Attribute):
        # sys.modules[__name__], whose attributes are the module's names.
        return node.attr == "modules"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id in _DIRECT or (node.func.id in _BARE and not node.args)


def _block(statements: Sequence[ast.stmt], found: Bindings, *, surely: bool) -> None:
    for statement in statements:
        _statement(statement, found, surely=surely)


def _statement(statement: ast.stmt, found: Bindings, *, surely: bool) -> None:
    for name in _in_expressions(statement) if found.in_expressions else ():
        found.bind(name, None, surely=False)
    for name in _names_of(statement):
        found.bind(name, None, surely=surely)
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            found.bind(statement.name, statement, surely=surely)
        case ast.ClassDef():
            pass
        case ast.Delete() if surely:
            for name in _stored(statement.targets):
                found.names.pop(name, None)
        case ast.With() | ast.AsyncWith():
            _block(statement.body, found, surely=surely)
        case ast.For() | ast.AsyncFor():
            for name in _stored([statement.target]):
                found.bind(name, None, surely=False)
            _parts(statement, found)
        case _:
            _parts(statement, found)


def _names_of(statement: ast.stmt) -> Iterator[str]:
    """What a statement binds whenever it is reached."""
    match statement:
        case ast.ClassDef():
            yield statement.name
        case ast.Import():
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        case ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in statement.names)
        case ast.Assign():
            yield from _stored(statement.targets)
        case ast.AnnAssign() if statement.value is not None:
            yield from _stored([statement.target])
        case ast.With() | ast.AsyncWith():
            yield from _stored([item.optional_vars for item in statement.items if item.optional_vars])


def _parts(statement: ast.stmt, found: Bindings) -> None:
    """The blocks of if, while, for, try and match, of which each may be left out."""
    for child in ast.iter_child_nodes(statement):
        match child:
            case ast.stmt():
                _statement(child, found, surely=False)
            case ast.ExceptHandler():
                # Its own name is gone after it.
                _block(child.body, found, surely=False)
            case ast.match_case():
                for name in _captured(child.pattern):
                    found.bind(name, None, surely=False)
                _block(child.body, found, surely=False)


def _stored(targets: Sequence[ast.expr]) -> Iterator[str]:
    """The names among targets: those of tuples and stars, and none of `a.b` and `a[b]`."""
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield node.id


def _captured(pattern: ast.pattern) -> Iterator[str]:
    for node in ast.walk(pattern):
        if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            yield node.rest


def _in_expressions(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement's own expressions bind (`:=`), comprehensions included; not those of its blocks."""
    pending = [child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt)]
    if isinstance(statement, ast.ClassDef):
        pending = [*statement.decorator_list, *statement.bases, *statement.keywords]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.NamedExpr):
            yield node.target.id
        if isinstance(node, ast.Lambda):
            pending += [node.args]
        elif not isinstance(node, ast.stmt):
            # Patterns have no names of their own here, and the blocks of handlers and cases are gone through later.
            pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
