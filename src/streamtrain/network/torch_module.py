"""PyTorch modules: in, and back with trained weights."""

from math import prod
from operator import index

from streamtrain.network.convert import convert
from streamtrain.network.graph import Graph, Node
from streamtrain.network.layers import SGD, CrossEntropy
from streamtrain.network.onnx_file import warn_of_frozen
from streamtrain.network.verdict import ModelError, Problem

__all__ = ["from_torch", "to_torch"]


def from_torch(module, shape, *, loss=CrossEntropy(), optimizer=SGD()):
    """Read a network with its weights from a PyTorch module.

    The module is traced by :func:`torch.export.export` in evaluation mode, with one sample. What
    counts is what it computes, whatever its ``forward`` looks like. A layer whose parameters have
    ``requires_grad=False`` is frozen. All else is as in :func:`~streamtrain.from_onnx`.

    Parameters
    ----------
    module : :class:`torch.nn.Module`
        It is not changed.
    shape : (channels, rows, columns)
        Of a sample.
    loss, optimizer
        As :class:`Network` takes them.

    Returns a :class:`Network`.

    Raises
    ------
    ImportError
        If the package ``torch`` is missing.
    TypeError
        If ``module`` is no module, or ``shape`` holds no integers.
    ModelError
        If the module cannot be traced, no layer is left to train, or it has something that is not
        supported: all of it. That includes layers with some parameters frozen and others not.
    """
    source, imported, _ = _imported(module, shape, loss, optimizer, freezes=True)
    warn_of_frozen(source, imported)
    return imported.network


def to_torch(trainer, module):
    """Put a trainer's weights into a PyTorch module, in place of its own.

    The module then predicts what the trainer's ``evaluate`` and ``predict`` do, but for the rounding
    of numbers. A batch norm keeps its scale and statistics, as in :func:`~streamtrain.to_onnx`.

    Parameters
    ----------
    trainer : :class:`~streamtrain.Trainer`
        Of a network of the same layers.
    module : :class:`torch.nn.Module`
        What the network was read from, or another of its kind. Its parameters are changed in place, but
        for those of layers whose weights are still what theirs are rounded to.

    Returns ``module``.

    Raises
    ------
    ImportError
        If the package ``torch`` is missing.
    TypeError
        If ``module`` is no module.
    ModelError
        If the module is not supported.
    ValueError
        If the trainer's network has other layers. Nothing is changed then.
    """
    torch = _torch()
    shape = trainer.plan.network.input_shape
    _, imported, graph = _imported(module, shape, CrossEntropy(), SGD(), freezes=False)
    state = module.state_dict()  # shares its memory with the module
    tensors = imported.tensors(trainer)
    with torch.no_grad():
        for slot, array in tensors.items():
            tensor = state[graph.nodes[slot.node].inputs[slot.input]]
            tensor.copy_(torch.from_numpy(array).reshape(tensor.shape))
    return module


def _torch():
    try:
        import torch
    except ImportError:
        raise ImportError(
            "PyTorch modules need the package torch: pip install 'streamtrain[torch]'"
        ) from None
    return torch


def _imported(module, shape, loss, optimizer, *, freezes):
    """Name, import and graph of a module; ``freezes`` says whether ``requires_grad`` counts."""
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"Module must be a torch.nn.Module, not {module!r}")
    try:
        shape = tuple(index(size) for size in shape)
    except TypeError:
        raise TypeError(f"Shape must be three integers, not {shape!r}") from None
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"Shape must be (channels, rows, columns), each at least 1, not {shape!r}")
    source = type(module).__name__
    problems = []
    constants = _constants(torch, module, problems)
    if problems:
        raise ModelError(source, problems)
    program = _traced(torch, module, shape, source)
    graph = _graph(torch, program, shape, constants, source)
    if freezes:
        graph.trainable = {name: tensor.requires_grad for name, tensor in module.named_parameters()}
    return source, convert(graph, source, loss=loss, optimizer=optimizer), graph


def _constants(torch, module, problems):
    """Parameters and buffers as arrays, by name; those that share memory are a problem."""
    owners = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        if len(names) > 1:
            problems.append(
                Problem(names[1], "parameter", "", f"is {names[0]}", "parameters of its own")
            )
    constants = {}
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            problems.append(Problem(name, "parameter", "device", "meta", "a module with weights"))
        elif tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            problems.append(Problem(name, "parameter", "type", kind, "float32: module.float()"))
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            kind = str(tensor.dtype).removeprefix("torch.")
            problems.append(Problem(name, "parameter", "type", kind, "dense float32"))
        else:
            constants[name] = tensor.detach().cpu().numpy()
    return constants


def _traced(torch, module, shape, source):
    """The module's operations in evaluation mode, by torch.export; its mode is as before."""
    modes = [(part, part.training) for part in module.modules()]
    first = next(module.parameters(), None)
    sample = torch.zeros(1, *shape, device=None if first is None else first.device)
    module.eval()
    try:
        return torch.export.export(module, (sample,))
    except Exception as error:  # whatever the module's own code raises
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        found = f"cannot be traced: {reason}"
        problem = Problem("", "", "forward", found, "a forward that torch.export.export takes")
        raise ModelError(source, [problem]) from error
    finally:
        for part, training in modes:
            part.training = training


def _graph(torch, program, shape, constants, source):
    signature = program.graph_signature
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    inputs, outputs = list(signature.user_inputs), list(signature.user_outputs)
    if len(inputs) != 1 or len(outputs) != 1 or not isinstance(outputs[0], str):
        found = f"{len(inputs)} inputs and {len(outputs)} outputs"
        problem = Problem("", "", "forward", found, "one tensor in, one out")
        raise ModelError(source, [problem])
    nodes, known = [], dict(constants)

    def named(value):
        """A value's name; numbers in a list become a constant."""
        if value is None:
            return ""
        if isinstance(value, torch.fx.Node):
            return owners.get(value.name, value.name)
        name = f"constant {len(known)}"
        known[name] = torch.tensor(value).numpy()
        return name

    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        schema = getattr(node.target, "_schema", None)
        name = schema.name.rpartition("::")[2] if schema else str(node.target)
        given = {}
        if schema is not None:
            given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
            given |= dict(zip((a.name for a in schema.arguments), node.args, strict=False))
            given |= node.kwargs
        translated = _OPERATIONS[name](given) if name in _OPERATIONS else None
        if translated is None:
            operator, operands, attributes = f"aten.{name}", node.all_input_nodes, {}
        else:
            operator, operands, attributes = translated
        nodes.append(
            Node(_place(node), operator, tuple(map(named, operands)), (node.name,), attributes)
        )
    return Graph(
        input=inputs[0], output=outputs[0], shape=shape, batch=1, nodes=nodes, constants=known
    )


def _place(node):
    """Where in the module a node comes from, such as ``features.0``, as far as that is known."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return path or node.name


# -- PyTorch's operations in ONNX's words: (operator, inputs, attributes), or None -------------------


def _pair(value):
    value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value * 2 if len(value) == 1 else value


def _conv2d(a):
    attributes = {
        "strides": _pair(a["stride"]),
        "dilations": _pair(a["dilation"]),
        "group": a["groups"],
    }
    if isinstance(a["padding"], str):
        attributes["auto_pad"] = {"same": "SAME_UPPER", "valid": "VALID"}[a["padding"]]
    else:
        attributes["pads"] = _pair(a["padding"]) * 2
    return "Conv", [a["input"], a["weight"], a["bias"]], attributes


def _max_pool2d(a):
    kernel = _pair(a["kernel_size"])
    attributes = {
        "kernel_shape": kernel,
        "strides": _pair(a["stride"]) if a["stride"] else kernel,
        "pads": _pair(a["padding"]) * 2,
        "dilations": _pair(a["dilation"]),
        "ceil_mode": int(a["ceil_mode"]),
    }
    return "MaxPool", [a["self"]], attributes


def _batch_norm(a):
    inputs = [a[name] for name in ("input", "weight", "bias", "running_mean", "running_var")]
    return "BatchNormalization", inputs, {"epsilon": a["eps"], "training_mode": int(a["training"])}


def _flatten(a):
    shape = a["self"].meta["val"].shape
    start, end = (axis % len(shape) for axis in (a["start_dim"], a["end_dim"]))
    if end != len(shape) - 1:
        return None
    return "Reshape", [a["self"], [*shape[:start], prod(shape[start:])]], {}


def _reshape(a):
    return "Reshape", [a["self"], list(a.get("size", a.get("shape")))], {}


def _same(a):
    return "Identity", [a.get("self", a.get("input"))], {}


_OPERATIONS = {
    "conv2d": _conv2d,
    "linear": lambda a: ("Gemm", [a["input"], a["weight"], a["bias"]], {"transB": 1}),
    "relu": lambda a: ("Relu", [a["self"]], {}),
    "relu_": lambda a: ("Relu", [a["self"]], {}),
    "max_pool2d": _max_pool2d,
    "batch_norm": _batch_norm,
    "flatten": _flatten,
    "view": _reshape,
    "reshape": _reshape,
    "softmax": lambda a: ("Softmax", [a["self"]], {"axis": a["dim"]}),
    "log_softmax": lambda a: ("LogSoftmax", [a["self"]], {"axis": a["dim"]}),
    "dropout": _same,
    "dropout_": _same,
    "feature_dropout": _same,
    "feature_dropout_": _same,
    "alias": _same,
    "clone": _same,
    "contiguous": _same,
    "detach": _same,
}
