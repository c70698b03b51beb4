"""The memory that a training step keeps for backward."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Kept"]


class Kept:
    """Counts the bytes of distinct storages that autograd keeps for backward, parameters excluded."""

    def __init__(self, parameters):
        self.excluded = {parameter.untyped_storage()._cdata for parameter in parameters}
        self.users: dict[int, int] = {}
        self.now = self.peak = 0

    def pack(self, tensor: Tensor):
        storage = tensor.untyped_storage()
        if storage._cdata in self.excluded:
            return tensor
        return Saved(self, storage._cdata, storage.nbytes(), tensor)

    @staticmethod
    def unpack(saved):
        return saved.tensor if isinstance(saved, Saved) else saved


class Saved:
    def __init__(self, kept: Kept, key: int, size: int, tensor: Tensor):
        self.kept, self.key, self.size, self.tensor = kept, key, size, tensor
        if kept.users.setdefault(key, 0) == 0:
            kept.now += size
            kept.peak = max(kept.peak, kept.now)
        kept.users[key] += 1

    def __del__(self):
        self.kept.users[self.key] -= 1
        if self.kept.users[self.key] == 0:
            self.kept.now -= self.size
