"""What one asks of anything that predicts: its frontier, elasticity and recommendation, as methods."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vvlm_ray.scaling.elasticity import Elasticity
    from vvlm_ray.scaling.frontier import Frontier
    from vvlm_ray.scaling.parallel import Map
    from vvlm_ray.scaling.recommendation import Recommendation


class Answers:
    """The questions to a `Predictor`. Budgets are in the cost's unit; `num_examples` is the largest of the runs if not
    given."""

    def frontier(self, budgets=None, num_examples: float | None = None, *, level: float = 0.9,
                 map: "Map | None" = None) -> "Frontier":  # fmt: skip
        """x*(c; n) at budgets (B,): Wang et al. 2025, Eq. 4. Raises UserError for a budget that buys nothing."""
        from vvlm_ray.scaling.frontier import frontier

        return frontier(self, budgets, self._size(num_examples), level=level, map=map)

    def elasticity(self, budgets=None, sizes=None, *, step: float | None = None, level: float = 0.9,
                   map: "Map | None" = None) -> "Elasticity":  # fmt: skip
        """e_k over budgets, data sizes and a step of these: Wang et al. 2025, Eq. 8-11."""
        from vvlm_ray.scaling.elasticity import elasticity

        return elasticity(self, budgets, sizes, step=step, level=level, map=map)

    def recommend(self, budget: float, num_examples: float | None = None, *, level: float = 0.9,
                  delta: float | None = None, map: "Map | None" = None) -> "Recommendation":  # fmt: skip
        """The configuration to deploy for one budget, with what stands around it."""
        from vvlm_ray.scaling.recommendation import recommend

        return recommend(self, budget, self._size(num_examples), level=level, delta=delta, map=map)

    def _size(self, num_examples: float | None) -> float | None:
        if num_examples is None and self.has_data_size:
            return float(self.runs.num_examples.max())
        return num_examples
