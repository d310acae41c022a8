"""The equations of published cells, stated a second time in the terms of their papers: NumPy, one
sequence.

Each function gets a layer's parameters as arrays and gives the step of one row: a function of x_t
and the states at t-1. It names its matrices and cuts them out itself, and knows no cell.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Step = Callable[..., Any]

tanh, exp = np.tanh, np.exp


def σ(v: Any) -> Any:
    return 1 / (1 + exp(-v))


def relu(v: Any) -> Any:
    return v * (v > 0)


def maps(p: Arrays, name: str, parts: int = 1) -> list[Step]:
    """One function v ↦ W v + b for each of the parts that a product's weight is stacked from."""
    W = np.split(p[f"weight_{name}"], parts)
    b = np.split(p.get(f"bias_{name}", np.zeros(len(W[0]) * parts)), parts)
    return [lambda v, k=k: W[k] @ v + b[k] for k in range(parts)]


def peephole_lstm(p: Arrays) -> Step:
    Wi, Wf, Wz, Wo = maps(p, "ih", 4)
    Ri, Rf, Rz, Ro = maps(p, "hh", 4)

    def step(x: Any, y: Any, s: Any) -> Any:
        inputs = σ(Wi(x) + Ri(y) + np.diag(p["p_i"]) @ s)
        forget = σ(Wf(x) + Rf(y) + np.diag(p["p_f"]) @ s)
        s = s * forget + tanh(Wz(x) + Rz(y)) * inputs
        output = σ(Wo(x) + Ro(y) + np.diag(p["p_o"]) @ s)
        return tanh(s) * output, s

    return step


def coupled_lstm(p: Arrays) -> Step:
    Wi, Wz, Wo = maps(p, "ih", 3)
    Ri, Rz, Ro = maps(p, "hh", 3)

    def step(x: Any, y: Any, c: Any) -> Any:
        i = σ(Wi(x) + Ri(y))
        f = 1 - i
        c = tanh(Wz(x) + Rz(y)) * i + c * f
        return tanh(c) * σ(Wo(x) + Ro(y)), c

    return step


def multiplicative_lstm(p: Arrays) -> Step:
    Wmx, Wix, Wfx, Whx, Wox = maps(p, "ih", 5)
    (Wmh,) = maps(p, "hh")
    Wim, Wfm, Whm, Wom = maps(p, "modulate", 4)

    def step(x: Any, h: Any, c: Any) -> Any:
        m = Wmx(x) * Wmh(h)
        candidate = Whx(x) + Whm(m)
        i, o, f = σ(Wix(x) + Wim(m)), σ(Wox(x) + Wom(m)), σ(Wfx(x) + Wfm(m))
        c = f * c + i * tanh(candidate)
        return tanh(c) * o, c

    return step


def ran(g: Step, p: Arrays) -> Step:
    Wcx, Wix, Wfx = maps(p, "ih", 3)
    Wih, Wfh = maps(p, "hh", 2)

    def step(x: Any, h: Any, c: Any) -> Any:
        content = Wcx(x)
        i, f = σ(Wih(h) + Wix(x)), σ(Wfh(h) + Wfx(x))
        c = i * content + f * c
        return g(c), c

    return step


def slstm(forget: Step, heads: int, p: Arrays) -> Step:
    """Without the scale m, which changes no output: what is stored is c and n, each times e^-m."""
    Wi, Wf, Wz, Wo = maps(p, "ih", 4)
    blocks = p["weight_hh"].reshape(4, heads, -1, p["weight_hh"].shape[1])

    def recur(k: int, h: Any) -> Any:
        parts = zip(blocks[k], np.split(h, heads), strict=True)
        return np.concatenate([block @ part for block, part in parts])

    def step(x: Any, h: Any, c: Any, n: Any, m: Any) -> Any:
        i, f = exp(Wi(x) + recur(0, h)), forget(Wf(x) + recur(1, h))
        c = f * c * exp(m) + i * tanh(Wz(x) + recur(2, h))
        n = f * n * exp(m) + i
        o = σ(Wo(x) + recur(3, h))
        m = np.log(np.maximum(f * exp(m), i))
        return o * (c / n), c / exp(m), n / exp(m), m

    return step


def reset_before_gru(p: Arrays) -> Step:
    Wr, Wz, W = maps(p, "ih", 3)
    Ur, Uz = maps(p, "hh", 2)
    (U,) = maps(p, "candidate")

    def step(x: Any, h: Any) -> Any:
        r, z = σ(Wr(x) + Ur(h)), σ(Wz(x) + Uz(h))
        return z * h + (1 - z) * tanh(W(x) + U(r * h))

    return step


def mgu(p: Arrays) -> Step:
    """On [h, x] side by side, as the paper has it."""
    Wf, Wh = np.split(p["weight_ih"], 2)
    bf, bh = np.split(p["bias_ih"], 2)
    Wf, Wh = np.hstack([p["weight_hh"], Wf]), np.hstack([p["weight_candidate"], Wh])
    bf, bh = bf + p["bias_hh"], bh + p["bias_candidate"]

    def step(x: Any, h: Any) -> Any:
        f = σ(Wf @ np.concatenate([h, x]) + bf)
        candidate = tanh(Wh @ np.concatenate([f * h, x]) + bh)
        return (1 - f) * h + f * candidate

    return step


def ligru(p: Arrays) -> Step:
    (Wz, Wh), (Uz, Uh) = maps(p, "ih", 2), maps(p, "hh", 2)

    def step(x: Any, h: Any) -> Any:
        z = σ(Wz(x) + Uz(h))
        return z * h + (1 - z) * relu(Wh(x) + Uh(h))

    return step


def janet(beta: float, p: Arrays) -> Step:
    (Wf, Wc), (Uf, Uc) = maps(p, "ih", 2), maps(p, "hh", 2)

    def step(x: Any, c: Any) -> Any:
        s = Uf(c) + Wf(x)
        return σ(s) * c + (1 - 1 / (1 + exp(beta - s))) * tanh(Uc(c) + Wc(x))

    return step


def ugrnn(s: Step, p: Arrays) -> Step:
    (Wcx, Wgx), (Wch, Wgh) = maps(p, "ih", 2), maps(p, "hh", 2)

    def step(x: Any, h: Any) -> Any:
        c, g = s(Wch(h) + Wcx(x)), σ(Wgh(h) + Wgx(x))
        return g * h + (1 - g) * c

    return step


def minimal_rnn(p: Arrays) -> Step:
    (Wx,), (Uh,), (Uz,) = maps(p, "ih"), maps(p, "hh"), maps(p, "latent")

    def step(x: Any, h: Any) -> Any:
        z = tanh(Wx(x))
        u = σ(Uh(h) + Uz(z))
        return u * h + (1 - u) * z

    return step


def atr(p: Arrays) -> Step:
    def step(x: Any, h: Any) -> Any:
        q = p["weight_hh"] @ h
        v = p["weight_ih"] @ x
        return σ(v + q) * v + σ(v - q) * h

    return step


def star(p: Arrays) -> Step:
    (Wz, Wx), (Wh,) = maps(p, "ih", 2), maps(p, "hh")

    def step(x: Any, h: Any) -> Any:
        k = σ(Wx(x) + Wh(h))
        return tanh((1 - k) * h + k * tanh(Wz(x)))

    return step


def ind_rnn(activation: Step, p: Arrays) -> Step:
    (W,) = maps(p, "ih")

    def step(x: Any, h: Any) -> Any:
        units = zip(W(x), p["u"], h, strict=True)
        return np.array([activation(sum_in + u * past) for sum_in, u, past in units])

    return step


def brc(p: Arrays) -> Step:
    Ua, Uc, U = maps(p, "ih", 3)

    def step(x: Any, h: Any) -> Any:
        a = 1 + tanh(Ua(x) + p["w_a"] * h)
        c = σ(Uc(x) + p["w_c"] * h)
        return c * h + (1 - c) * tanh(U(x) + a * h)

    return step


def nbrc(p: Arrays) -> Step:
    (Ua, Uc, U), (Wa, Wc) = maps(p, "ih", 3), maps(p, "hh", 2)

    def step(x: Any, h: Any) -> Any:
        a, c = 1 + tanh(Ua(x) + Wa(h)), σ(Uc(x) + Wc(h))
        return c * h + (1 - c) * tanh(U(x) + a * h)

    return step


def antisymmetric(epsilon: float, gamma: float, gated: bool, p: Arrays) -> Step:
    W = p["weight_hh"]
    A = W - W.T - gamma * np.eye(len(W))
    *Vz, Vh = maps(p, "ih", 1 + gated)

    def step(x: Any, h: Any) -> Any:
        z = σ(A @ h + Vz[0](x)) if gated else 1
        return h + epsilon * z * tanh(A @ h + Vh(x))

    return step


def exp_rnn(p: Arrays) -> Step:
    W, shift = p["weight_hh"], p["shift"]
    (V,) = maps(p, "ih")
    # A skew matrix is i times a Hermitian one, whose eigenvalues are the angles of rotation.
    angles, vectors = np.linalg.eigh(-1j * (W - W.T))
    Q = (vectors * np.exp(1j * angles) @ vectors.conj().T).real

    def step(x: Any, h: Any) -> Any:
        a = Q @ h + V(x)
        return np.sign(a) * relu(np.abs(a) + shift)

    return step


def co_rnn(dt: float, gamma: float, epsilon: float, p: Arrays) -> Step:
    (V,), (W,), (Wz,) = maps(p, "ih"), maps(p, "hh"), maps(p, "velocity")

    def step(x: Any, y: Any, z: Any) -> Any:
        new = z + dt * tanh(W(y) + Wz(z) + V(x)) - dt * gamma * y - dt * epsilon * z
        return y + dt * new, new

    return step


def lem(dt: float, p: Arrays) -> Step:
    V1, V2, Vz, Vy = maps(p, "ih", 4)
    W1, W2, Wz = maps(p, "hh", 3)
    (Wy,) = maps(p, "memory")

    def step(x: Any, y: Any, z: Any) -> Any:
        slow, fast = dt * σ(W1(y) + V1(x)), dt * σ(W2(y) + V2(x))
        z = (1 - slow) * z + slow * tanh(Wz(y) + Vz(x))
        y = (1 - fast) * y + fast * tanh(Wy(z) + Vy(x))
        return y, z

    return step


def fast_rnn(activation: Step, p: Arrays) -> Step:
    (W,), (U,) = maps(p, "ih"), maps(p, "hh")
    alpha, beta = σ(p["alpha"][0]), σ(p["beta"][0])
    return lambda x, h: alpha * activation(W(x) + U(h)) + beta * h


def fast_grnn(p: Arrays) -> Step:
    (W,), (U,) = maps(p, "ih"), maps(p, "hh")
    zeta, nu = σ(p["zeta"][0]), σ(p["nu"][0])

    def step(x: Any, h: Any) -> Any:
        z = σ(W(x) + U(h) + p["b_z"])
        return (zeta * (1 - z) + nu) * tanh(W(x) + U(h) + p["b_n"]) + z * h

    return step


def norm(epsilon: float, v: Any) -> Any:
    return (v - v.mean()) / np.sqrt(v.var() + epsilon)


def layer_norm_lstm(epsilon: float, p: Arrays) -> Step:
    """On the gates stacked to one vector of 4H, as the paper has it."""
    a1 = np.concatenate([p[f"gain_h{k}"] for k in "ifgo"])
    a2 = np.concatenate([p[f"gain_i{k}"] for k in "ifgo"])
    b = np.concatenate([p[f"b_{k}"] for k in "ifgo"])

    def step(x: Any, h: Any, c: Any) -> Any:
        stacked = a1 * norm(epsilon, p["weight_hh"] @ h) + a2 * norm(epsilon, p["weight_ih"] @ x)
        i, f, g, o = np.split(stacked + b, 4)
        c = σ(f) * c + σ(i) * tanh(g)
        return σ(o) * tanh(p["gain_c"] * norm(epsilon, c) + p["b_c"]), c

    return step


def layer_norm_gru(epsilon: float, p: Arrays) -> Step:
    H = len(p["b_r"])
    gates, candidate = slice(0, 2 * H), slice(2 * H, 3 * H)

    def part(name: str, letter: str, rows: slice, v: Any) -> Any:
        gain = np.concatenate([p[f"gain_{letter}{k}"] for k in "rzn"])
        return gain[rows] * norm(epsilon, p[name][rows] @ v)

    def step(x: Any, h: Any) -> Any:
        sums = part("weight_hh", "h", gates, h) + part("weight_ih", "i", gates, x)
        r, z = σ(sums[:H] + p["b_r"]), σ(sums[H:] + p["b_z"])
        inner = part("weight_hh", "h", candidate, h) + p["b_hn"]
        new = tanh(part("weight_ih", "i", candidate, x) + p["b_in"] + r * inner)
        return (1 - z) * h + z * new

    return step
