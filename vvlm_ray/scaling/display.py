"""A frontier for a notebook: as a DataFrame, and as a quick picture (the report has the full ones)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Shown:
    """How a `Frontier` shows itself."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per budget: budget and cost in `unit`, the factors, error with its band, and doubts."""
        import pandas as pd

        return pd.DataFrame(
            {"budget": self.budgets, "unit": self.unit, **self.factors}
            | {"cost": self.cost, "error": self.error, "low": self.low, "high": self.high, "gap": self.gap}
            | {"agreement": self.agreement, "extrapolates": self.extrapolates}
            | {"reasons": ["; ".join(reasons) for reasons in self.reasons]}
        )

    def plot(self, axes: Any = None) -> Any:
        """Least error against budget with its band, hollow where it extrapolates; returns the matplotlib axes."""
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(6, 4), layout="constrained").subplots()
        axes.fill_between(self.budgets, self.low, self.high, color="#c8500a", alpha=0.18, linewidth=0)
        axes.plot(self.budgets, self.error, color="#c8500a")
        inside = ~self.extrapolates
        axes.plot(self.budgets[inside], self.error[inside], "o", color="#c8500a", label="within what was swept")
        axes.plot(self.budgets[~inside], self.error[~inside], "o", color="#c8500a", markerfacecolor="white",
                  label="extrapolates")  # fmt: skip
        axes.set(xscale="log", xlabel=f"budget, {self.unit}" if self.unit else "budget", ylabel="error")
        axes.legend(frameon=False)
        return axes
