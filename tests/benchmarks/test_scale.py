"""The synthetic pool of the large-pool benchmark."""

import torch
import torch.nn.functional as F

from benchmarks import scale


def test_images_are_mixtures_of_two_of_their_class(monkeypatch):
    """Without noise each lies between two rows of its class; with it still nearest to its class, and of unit norm."""
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.eye(6)[torch.arange(60) // 10] + 0.1 * torch.rand(60, 6, generator=generator), dim=1)
    classes, labels = torch.arange(60) // 10, torch.arange(300) % 6
    made = scale.mixed(rows, classes, labels, generator)
    assert torch.allclose(made.norm(dim=1), torch.ones(300), atol=1e-5)
    assert ((made @ rows.T).argmax(1) // 10 == labels).float().mean() > 0.95
    monkeypatch.setattr(scale, "NOISE", 0.0)
    for row, label in zip(scale.mixed(rows, classes, labels[:12], generator), labels, strict=False):
        own = rows[classes == label].double()
        planes = [torch.stack([own[i], own[j]], 1) for i in range(10) for j in range(i + 1)]
        assert min(float((plane @ torch.linalg.pinv(plane) @ row.double() - row).norm()) for plane in planes) < 1e-5
