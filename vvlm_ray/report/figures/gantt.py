"""A picture of a plan's schedule: one band per machine, one row per GPU, one bar per job."""

from pathlib import Path

from vvlm_ray.errors import UserError
from vvlm_ray.planning.order import Start
from vvlm_ray.planning.plan import Plan
from vvlm_ray.planning.queue import Node
from vvlm_ray.study.config import Study

FORMATS = {".png", ".svg", ".pdf"}
PALETTE = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")  # Tol's bright: safe for colour-blind eyes
OTHER = "#555555"
HOUR = 3600.0


def draw_gantt(study: Study, plan: Plan, path: Path) -> None:
    """Write the simulated schedule to `path`; colours are backbones, grey is what trials wait for.

    Raises:
        UserError: an unknown ending of the file's name, or nothing left to run.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--gantt: {path} must end in {', '.join(sorted(FORMATS))}")
    if not plan.schedule:
        raise UserError("--gantt: nothing is left to run, so there is no schedule to draw")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    scale, unit = (HOUR, "hours") if plan.makespan_seconds > 2 * HOUR else (60.0, "minutes")
    rows = int(sum(max(1, node.slots) for node in plan.nodes))
    figure, axes = plt.subplots(figsize=(12, min(16.0, max(3.2, 1.6 + 0.09 * rows))), layout="constrained")
    colours = dict(zip(study.backbones, PALETTE * (1 + len(study.backbones) // len(PALETTE)), strict=False))
    backbone_of = {trial.trial_id: trial.backbone for trial in plan.trials}
    bottom, ticks, labels = 0.0, [], []
    for i, node in enumerate(plan.nodes):
        height = max(1.0, node.slots)
        if i % 2:
            axes.axhspan(bottom, bottom + height, color="#f3f3f3", zorder=0)
        for start, low, count in _lanes(node, plan.schedule):
            is_trial = start.job.kind == "trial"
            colour = colours.get(backbone_of.get(start.job.job_id), PALETTE[0]) if is_trial else OTHER
            axes.broken_barh(
                [(start.start / scale, (start.end - start.start) / scale)],
                (bottom + low + 0.06, count - 0.12),
                facecolor=colour,
                edgecolor="white",
                linewidth=0.4,
                zorder=2,
            )
        ticks.append(bottom + height / 2)
        labels.append(f"{node.name}  ({node.slots:g})")
        bottom += height
    shown = slice(None, None, max(1, len(ticks) // 40))
    axes.set_yticks(ticks[shown], labels[shown], fontsize=8)
    axes.set_ylim(bottom, 0)
    axes.set_xlim(0, plan.makespan_seconds / scale * 1.01)
    axes.axvline(plan.lower_bound_seconds / scale, color="black", linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.set_xlabel(f"{unit} from the start (dashed: no schedule can end before)")
    busy = sum((s.end - s.start) * sum(s.placement.nodes.values()) for s in plan.schedule)
    axes.set_title(
        f"{study.name}: {len(plan.schedule)} jobs in {plan.makespan_seconds / scale:,.0f} {unit}, "
        f"{busy / plan.num_slots / plan.makespan_seconds:.0%} busy",
        loc="left",
        fontsize=11,
    )
    used = {backbone_of.get(s.job.job_id) for s in plan.schedule if s.job.kind == "trial"}
    handles = [Patch(color=colour, label=name) for name, colour in colours.items() if name in used]
    if any(s.job.kind != "trial" for s in plan.schedule):
        handles.append(Patch(color=OTHER, label="before trials"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _lanes(node: Node, schedule: list[Start]) -> list[tuple[Start, float, float]]:
    """(job, first row, rows) of every bar on a node; a job whose rows are not neighbours has several bars."""
    bars = []
    free = list(range(max(1, round(node.slots))))
    running: list[tuple[float, list[int]]] = []
    for start in sorted((s for s in schedule if node.name in s.placement.nodes), key=lambda s: s.start):
        for end, rows in list(running):
            if end <= start.start + 1e-9:
                free += rows
                running.remove((end, rows))
        free.sort()
        count = max(1, min(round(start.placement.nodes[node.name]), len(free)))
        rows = _best_run(free, count)
        free = [row for row in free if row not in rows]
        running.append((start.end, rows))
        bars += [(start, run[0], len(run)) for run in _runs(rows)]
    return bars


def _best_run(free: list[int], count: int) -> list[int]:
    """Neighbouring rows if there are enough in one piece (the tightest), else the first free ones."""
    pieces = [run for run in _runs(free) if len(run) >= count]
    return min(pieces, key=len)[:count] if pieces else free[:count]


def _runs(rows: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for row in rows:
        if runs and runs[-1][-1] == row - 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs
