"""Plain PyTorch: matmul, ReLU, topk. It encodes only."""

import rival
import torch


class Plain(rival.Rival):
    package = "torch"
    variants = {"plain": "torch.topk(torch.relu(torch.addmm(bias, x, weight.T)), k)"}

    def make(self, weights, k, variant):
        self.weight, self.k = weights["encoder_weight"], k
        self.bias = weights["encoder_bias"] - self.weight @ weights["mean"]

    def encode(self, x):
        return tuple(torch.topk(torch.relu(torch.addmm(self.bias, x, self.weight.T)), self.k, dim=-1))


if __name__ == "__main__":
    rival.serve(Plain())
