"""What was measured beside what was to be reached."""

from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. `reached` is None for what has no goal."""

    measure: str
    found: str
    goal: str = ""
    reached: bool | None = None


def table_of(title: str, goals: list[Goal]) -> Table:
    table = Table(title=title)
    for name in ("measure", "found", "goal", "reached"):
        table.add_column(name)
    for goal in goals:
        table.add_row(goal.measure, goal.found, goal.goal, {True: "yes", False: "no", None: ""}[goal.reached])
    return table
