"""Networks as users write them, for `make worlds`: each is a class of its own kind.

Those in `REFUSED` cannot be evolved or exported; the text is what must be said.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping as Mapping_
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Base(nn.Module):
    """Sizes kept, a last layer that fits."""

    def __init__(self, observation_size: int, action_size: int, width: int = 8) -> None:
        super().__init__()
        self.o, self.a, self.w = observation_size, action_size, width
        self.first = nn.Linear(observation_size, width)
        self.last = nn.Linear(width, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.inner(self.first(obs)))
        return outputs

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Plain(Base):
    pass


class Gelu(Base):
    def inner(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Mish(Base):
    def inner(self, x: Tensor) -> Tensor:
        return F.mish(x)


class Softplus(Base):
    def inner(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class Hardswish(Base):
    def inner(self, x: Tensor) -> Tensor:
        return F.hardswish(x)


class Sine(Base):
    def inner(self, x: Tensor) -> Tensor:
        return torch.sin(x * math.pi)


class Gated(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.gate = nn.Linear(self.w, 2 * self.w)

    def inner(self, x: Tensor) -> Tensor:
        return F.glu(self.gate(x), dim=-1)


class Swiglu(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.up, self.side = nn.Linear(self.w, self.w), nn.Linear(self.w, self.w)

    def inner(self, x: Tensor) -> Tensor:
        return F.silu(self.up(x)) * self.side(x)


class Maxout(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.pieces = nn.Linear(self.w, 3 * self.w)

    def inner(self, x: Tensor) -> Tensor:
        return self.pieces(x).unflatten(1, (3, self.w)).amax(dim=1)


class Layered(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.norm = nn.LayerNorm(self.w)

    def inner(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x))


class Rms(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.scale = nn.Parameter(torch.ones(self.w))

    def inner(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6) * self.scale


class Grouped(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.norm = nn.GroupNorm(2, self.w)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(x))


class Batched(Base):
    """Running means as they were made: buffers, kept as they are."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.norm = nn.BatchNorm1d(self.w)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(x))


class Residual(Base):
    def inner(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x)


class Dense(nn.Module):
    """Every layer sees all that came before it."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.one = nn.Linear(observation_size, 6)
        self.two = nn.Linear(observation_size + 6, 6)
        self.last = nn.Linear(observation_size + 12, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        a = torch.cat([obs, torch.tanh(self.one(obs))], dim=1)
        b = torch.cat([a, torch.tanh(self.two(a))], dim=1)
        outputs: Tensor = self.last(b)
        return outputs


class Branches(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.branches = nn.ModuleList([nn.Linear(self.w, self.w) for _ in range(3)])

    def inner(self, x: Tensor) -> Tensor:
        return sum(torch.tanh(b(x)) for b in self.branches)  # type: ignore[return-value]


class Named(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.parts = nn.ModuleDict({"a": nn.Linear(self.w, self.w), "b": nn.Tanh()})

    def inner(self, x: Tensor) -> Tensor:
        return self.parts["b"](self.parts["a"](x))  # type: ignore[no-any-return]


class Listed(Base):
    """Parameters of its own in a ParameterList."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.mixes = nn.ParameterList([nn.Parameter(torch.randn(self.w, self.w)) for _ in range(2)])

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.mixes[0]) @ self.mixes[1]


class Convolved(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.pool = nn.Linear(2 * self.w, self.w)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.pool(self.conv(x.unsqueeze(1)).flatten(1)))


class Image(nn.Module):
    """Convolutions over a square made of the observation."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.spread = nn.Linear(observation_size, 36)
        self.conv = nn.Conv2d(1, 3, 3)
        self.last = nn.Linear(12, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        square = self.spread(obs).reshape(-1, 1, 6, 6)
        outputs: Tensor = self.last(F.max_pool2d(torch.relu(self.conv(square)), 2).flatten(1))
        return outputs


class Bilinear(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.pair = nn.Bilinear(self.w, self.w, self.w)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.pair(x, x))


class Einsum(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.tensor = nn.Parameter(torch.randn(self.w, 2, self.w) * 0.3)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("bi,ikj->bkj", x, self.tensor).sum(dim=1))


class Tokens(nn.Module):
    """Each element of the observation is a token; `attend` mixes them."""

    def __init__(self, observation_size: int, action_size: int, width: int = 4) -> None:
        super().__init__()
        self.n, self.w = observation_size, width
        self.embed = nn.Linear(1, width)
        self.place = nn.Parameter(torch.randn(observation_size, width) * 0.3)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        x = self.embed(obs.unsqueeze(-1)) + self.place
        outputs: Tensor = self.last(self.attend(self.q(x), self.k(x), self.v(x)).mean(dim=1))
        return outputs

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(self.w), dim=-1) @ v


class Attention3d(Tokens):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Attention4d(Tokens):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention2d(Tokens):
    """One query a row: no batch dimension of its own."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax((q[:, :1] * k).sum(-1), dim=-1)
        return (weights.unsqueeze(-1) * v).sum(1, keepdim=True)


class Causal(Tokens):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class MultiHead(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        x = self.embed(obs.unsqueeze(-1))
        mixed, _ = self.attention(x, x, x, need_weights=False)
        outputs: Tensor = self.last(mixed.mean(dim=1))
        return outputs


class Transformer(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.last = nn.Linear(4, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.layer(self.embed(obs.unsqueeze(-1))).mean(dim=1))
        return outputs


class Rank(Base):
    """Looks at the rank and the shape of what it is given."""

    def inner(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x.flatten(1)
        if x.shape[-1] != self.w:
            raise ValueError("wrong width")
        return torch.tanh(x) if x.ndim == 2 else x


class Options(Base):
    def inner(self, x: Tensor, scale: float | None = None) -> Tensor:
        return torch.tanh(x if scale is None else x * scale)


class Keywords(nn.Module):
    def __init__(self, *, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(observation_size, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(obs)
        return outputs


class Lazy(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.LazyLinear(action_size))

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(obs)
        return outputs


class Dropped(Base):
    def inner(self, x: Tensor) -> Tensor:
        return F.dropout(torch.tanh(x), 0.5, training=self.training)


class Weighted(Base):
    """Parametrised by `torch.nn.utils.parametrizations`."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(self.w, self.w))

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Fourier(nn.Module):
    """Fixed random features, in a buffer, before a layer to be evolved."""

    features: Tensor

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(observation_size, 8))
        self.last = nn.Linear(16, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        waves = obs @ self.features
        outputs: Tensor = self.last(torch.cat([waves.sin(), waves.cos()], dim=1))
        return outputs


class Experts(Base):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__(observation_size, action_size)
        self.route = nn.Linear(self.w, 3)
        self.experts = nn.Linear(self.w, 3 * self.w)

    def inner(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.route(x), dim=-1).unsqueeze(-1)
        return (torch.tanh(self.experts(x)).unflatten(1, (3, self.w)) * shares).sum(dim=1)


class Chosen(Base):
    """Control flow over values, written as `torch.where`."""

    def inner(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.tanh(x), 0.1 * x)


class Clamped(Base):
    def inner(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1).roll(1, dims=1)


def pretrained(observation_size: int, action_size: int) -> nn.Module:
    """A frozen extractor of fixed weights before a layer to be evolved."""
    extractor = nn.Linear(observation_size, 6)
    with torch.no_grad():
        extractor.weight.copy_(torch.arange(6.0 * observation_size).sin().reshape(6, -1))
    extractor.requires_grad_(False)
    return nn.Sequential(extractor, nn.Tanh(), nn.Linear(6, action_size))


class Elman(nn.Module):
    """A recurrent cell written by hand."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.mix = nn.Linear(observation_size + 6, 6)
        self.last = nn.Linear(6, action_size)

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 6)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = torch.tanh(self.mix(torch.cat([obs, state], dim=1)))
        return self.last(after), after


class Layers(nn.Module):
    """Two layers of `nn.GRU`, which begins by itself."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(observation_size, 4, num_layers=2)
        self.last = nn.Linear(4, action_size)

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen, after = self.rnn(obs.unsqueeze(0), state)
        return self.last(seen.squeeze(0)), after


class LayeredLstm(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(observation_size, 4, batch_first=True)
        self.last = nn.Linear(4, action_size)

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        seen, after = self.rnn(obs.unsqueeze(1), state)
        return self.last(seen.squeeze(1)), after


class Mapping(Base):
    def forward(self, obs: Tensor) -> Any:
        return {"logits": super().forward(obs)}


class Hidden(Base):
    """Remembers in an attribute, which nothing carries on."""

    memory: Any = None

    def inner(self, x: Tensor) -> Tensor:
        before = torch.zeros_like(x) if self.memory is None else self.memory
        self.memory = torch.tanh(x + 0.5 * before[: len(x)])
        return self.memory


class Branching(Base):
    """Control flow that depends on the data."""

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(x) if bool(x.sum() > 0) else x


class Shared(Base):
    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.first.weight[:, :1].expand(-1, self.w)))


class Odd(Base):
    """An operation that ONNX does not have."""

    def inner(self, x: Tensor) -> Tensor:
        return torch.lgamma(x.abs() + 1)


class Noisy(Base):
    def inner(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def scripted(observation_size: int, action_size: int) -> Any:
    """A module compiled by TorchScript."""
    layers = nn.Sequential(nn.Linear(observation_size, 6), nn.Linear(6, action_size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what is refused here
        return torch.jit.script(layers)


class Case(NamedTuple):
    module: str
    kwargs: Mapping_[str, Any] = MappingProxyType({})
    stack: int = 1

    @property
    def name(self) -> str:
        module = self.module.removeprefix("srghn.policies:").removeprefix(f"{HERE}:")
        options = [f"{key} {value}" for key, value in self.kwargs.items()]
        options += [f"stack {self.stack}"] if self.stack > 1 else []
        return f"{module} ({', '.join(options)})" if options else module


HERE = "tests.matrix.networks"
TAKEN = [
    Case("srghn.policies:MLP", {"hidden": [8]}),
    Case("srghn.policies:MLP", {"hidden": [4, 4], "activation": "gelu"}),
    Case("srghn.policies:MLP", {"hidden": [6]}, stack=3),
    Case("srghn.policies:ResidualMLP", {"width": 8, "blocks": 1}),
    Case("srghn.policies:GRU", {"width": 4}),
    Case("srghn.policies:LSTM", {"width": 4}),
    *(
        Case(f"{HERE}:{kind.__name__}")
        for kind in (
            Plain, Gelu, Mish, Softplus, Hardswish, Sine, Gated, Swiglu, Maxout, Layered, Rms,
            Grouped, Batched, Residual, Dense, Branches, Named, Listed, Convolved, Image, Bilinear,
            Einsum, Tokens, Attention2d, Attention3d, Attention4d, Causal, MultiHead, Transformer,
            Rank, Options, Keywords, Lazy, Dropped, Weighted, Fourier, Experts, Chosen, Clamped,
            pretrained, Elman, Layers, LayeredLstm,
        )
    ),
]  # fmt: skip
#: Network -> what the refusal must say.
REFUSED = {
    "Mapping": "must return a tensor",
    "Hidden": "keep no hidden state",
    "Branching": "without control flow",
    "Noisy": "must be deterministic",
    "scripted": "TorchScript",
    "Odd": "operator prims.lgamma",
}
