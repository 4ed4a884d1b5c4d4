import pytest
import torch

from lora_ext.weights.positions import fit_positions


def embeddings(*grid, hidden=6):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, grid[0] * grid[1] * grid[2], hidden, generator=generator)


@pytest.mark.parametrize("grid", [(8, 8, 3), (6, 6, 6), (2, 2, 1)])
@pytest.mark.parametrize("told", [True, False])
def test_resampling_to_the_same_grid_is_the_identity(grid, told):
    positions = embeddings(*grid)
    size = [16 * g for g in grid] if told else None
    _, fitted, resampled = fit_positions(positions, grid, size, "v.pt")
    assert torch.equal(fitted, positions)
    assert resampled is None


@pytest.mark.parametrize("grid", [(8, 8, 3), (3, 6, 9), (1, 1, 1)])
def test_constant_embeddings_stay_constant(grid):
    constant = torch.linspace(-1, 1, 6).expand(1, 216, 6)
    _, fitted, resampled = fit_positions(constant, grid, None, "v.pt")
    assert resampled == ([6, 6, 6], list(grid))
    assert fitted.shape == (1, grid[0] * grid[1] * grid[2], 6)
    assert torch.allclose(fitted, torch.linspace(-1, 1, 6).expand_as(fitted), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_stays_a_ramp_along_its_own_axis(axis):
    shape = [1, 1, 1]
    shape[axis] = 3
    ramp = torch.arange(3.0).view(shape).expand(3, 3, 3).reshape(1, 27, 1)
    grid = [3, 3, 3]
    grid[axis] = 6
    _, fitted, _ = fit_positions(ramp, grid, None, "v.pt")
    shape[axis] = 6
    # patch centres 3 / 6 apart, and nothing to extrapolate from at the ends
    wanted = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2]).view(shape)
    assert torch.allclose(fitted.view(grid), wanted.expand(grid), atol=1e-6)


@pytest.mark.parametrize("grid", [(3, 3, 3), (8, 8, 3)])
def test_class_tokens_position_is_taken_apart(grid):
    positions = embeddings(3, 3, 3)
    with_token = torch.cat([torch.full((1, 1, 6), 99.0), positions], dim=1)
    _, alone, _ = fit_positions(positions, grid, None, "v.pt")
    token, patches, _ = fit_positions(with_token, grid, None, "v.pt")
    assert torch.equal(patches, alone)
    assert torch.equal(token, torch.full((1, 1, 6), 99.0))


def test_told_image_size_wins_over_a_number_that_fits():
    *_, resampled = fit_positions(embeddings(4, 1, 1), (2, 2, 1), (64, 16, 16), "v.pt")
    assert resampled == ([4, 1, 1], [2, 2, 1])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (None, r"v.pt: 10 position embeddings fit neither .*\[2, 2, 1\] patches nor a cube"),
        ((64, 32, 32), r"10 position embeddings do not fit the \[4, 2, 2\] patches of.*\[64, 32"),
    ],
)
def test_number_that_fits_no_grid_is_refused(size, message):
    with pytest.raises(ValueError, match=message):
        fit_positions(embeddings(5, 2, 1), (2, 2, 1), size, "v.pt")
