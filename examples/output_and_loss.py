"""From states to a loss: at every step, at the last step, or on the pooled states.

    o_t = V h_t + c        ŷ_t = softmax(o_t)        L_t = -log ŷ_t[label]

A tagger or a language model has a label for every step; a classifier has one label for the
sequence, which it predicts from the last state or from the mean of all states.

    python examples/output_and_loss.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.nn import RNN


def every_step(net: RNN, head: nn.Linear, x: Tensor, labels: Tensor) -> Tensor:
    """The mean over T and N of the cross-entropy; labels [T, N]."""
    h, _ = net(x)  # [T, N, H]
    o = head(h)  # [T, N, K]: Linear keeps all leading dimensions
    return F.cross_entropy(o.flatten(0, 1), labels.flatten())


def last_step(net: RNN, head: nn.Linear, x: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of the last state; labels [N]."""
    _, h_n = net(x)  # [1, N, H]
    return F.cross_entropy(head(h_n[-1]), labels)


def pooled(net: RNN, head: nn.Linear, x: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of the mean over time of the states; labels [N]."""
    h, _ = net(x)
    return F.cross_entropy(head(h.mean(0)), labels)


def main() -> None:
    torch.manual_seed(0)
    T, N, H, K = 7, 4, 6, 3
    net, head = RNN(5, H), nn.Linear(H, K)
    x, labels = torch.randn(T, N, 5), torch.randint(K, (T, N))

    y_hat = head(net(x)[0]).softmax(-1)
    probabilities = ", ".join(f"{p:.3f}" for p in y_hat[0, 0].tolist())
    print(f"ŷ has shape {list(y_hat.shape)}; its first row is {probabilities}")
    print(f"loss at every step: {every_step(net, head, x, labels).item():.4f}")
    print(f"loss at the last step: {last_step(net, head, x, labels[-1]).item():.4f}")
    print(f"loss of the mean state: {pooled(net, head, x, labels[-1]).item():.4f}")


if __name__ == "__main__":
    main()
