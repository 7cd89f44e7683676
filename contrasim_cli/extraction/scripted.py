"""The values that leave the modules of a TorchScript program.

TorchScript runs in an interpreter of its own that calls no hooks. So every module's graph is given a mark at its end,
holding what it returns and the module itself; the graphs are put into one, in which the module behind a mark is a chain
of attributes of the program, its name; and that graph is made to return the marked values.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

MARK = "prim::Print"  # takes any values, and is never left out as useless
ATTRIBUTE = "prim::GetAttr"
FORWARD = re.compile(r"forward\d*")
WHOLE = ""  # the name of the program itself among those of its modules

Graph = Any  # torch's, of which nothing is typed


@dataclass
class Marked:
    """A program as one graph with marks, and the names of its modules with the number of calls of each.

    The program itself is run no more: what torch has prepared of it may hold marks.
    """

    module: Any
    graph: Graph
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, _ in _marks(self.graph):
            if name != WHOLE:
                self.calls[name] = self.calls.get(name, 0) + 1

    def tapped(self, names: Sequence[str]) -> Any:
        """The program as a function that returns what each of the modules does, or the `WHOLE` of it does."""
        graph = self.graph.copy()
        values = {}
        for name, mark in list(_marks(graph)):
            values[name] = _copied(graph, mark, next(iter(mark.inputs())))
        for mark in [node for node in _nodes(graph) if _is_mark(node)]:
            mark.destroy()
        while list(graph.outputs()):
            graph.eraseOutput(0)
        together = graph.create("prim::TupleConstruct", [values[name] for name in names], 1)
        graph.appendNode(together)
        together.output().setType(torch._C.TupleType([values[name].type() for name in names]))
        graph.registerOutput(together.output())
        torch._C._jit_pass_dce(graph)
        made: Any = torch._C._create_function_from_graph("tapped", graph)
        return lambda *inputs: made(self.module._c, *inputs)


def marked(module: Any) -> Marked:
    """The graph of a program with a mark at the end of every module."""
    for _, part in module.named_modules():
        _mark(part)
    graph = module._c._get_method("forward").graph.copy()
    inline: Any = torch._C._jit_pass_inline
    inline(graph)
    return Marked(module, graph)


def _mark(module: Any) -> None:
    """Put a mark at the end of a module's graphs, unless it shares them with a module that was here."""
    for name in module._c._method_names():
        # of a module that runs several times a trace has forward, forward1, …
        if FORWARD.fullmatch(name):
            graph = module._c._get_method(name).graph
            if not any(_is_mark(node) for node in graph.nodes()):
                graph.appendNode(graph.create(MARK, [next(iter(graph.outputs())), next(iter(graph.inputs()))], 0))


def _is_mark(node: Any) -> bool:
    inputs = list(node.inputs())
    return node.kind() == MARK and len(inputs) == 2 and inputs[1].type().kind() == "ClassType"


def _marks(graph: Graph) -> list[tuple[str, Any]]:
    """The marks of a graph, with the names of their modules; those inside a branch or a loop are for no layer."""
    root = next(iter(graph.inputs())).debugName()
    found = [(_name(list(node.inputs())[1], root), node) for node in graph.nodes() if _is_mark(node)]
    return [(name, node) for name, node in found if name is not None]


def _name(module: Any, root: str) -> str | None:
    parts: list[str] = []
    while module.debugName() != root:
        if module.node().kind() != ATTRIBUTE:
            return None
        parts.append(module.node().s("name"))
        module = next(iter(module.node().inputs()))
    return ".".join(reversed(parts))


def _nodes(block: Any) -> Iterator[Any]:
    """The nodes of a graph, and those in its branches and loops."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _copied(graph: Graph, mark: Any, value: Any) -> Any:
    """A copy of a marked tensor: an in-place operation behind the layer would change what was kept."""
    if value.type().kind() != "TensorType":
        return value
    graph.setInsertPoint(mark)
    clone = graph.create("aten::clone", [value, graph.insertConstant(None)], 1)
    clone.insertBefore(mark)
    clone.output().setType(value.type())
    return clone.output()
