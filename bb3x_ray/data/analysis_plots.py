"""An analysis as pictures. No figure shows what anybody said."""

import io
from collections import Counter
from collections.abc import Callable
from datetime import date

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bb3x_ray.data.analysis import Analysis, Share

_HUMAN, _BOT, _UP, _DOWN = "#4c78a8", "#f58518", "#54a24b", "#e45756"
_MOST_BARS = 12


def plots(found: Analysis) -> dict[str, bytes]:
    """Name -> PNG, of what the log has; a picture without data is not drawn."""
    wanted: list[tuple[str, Callable[[Analysis], Figure], bool]] = [
        ("thumbs_by_version", _versions, bool(found.versions)),
        ("reasons", _reasons, bool(found.reasons)),
        ("quality", _quality, bool(found.quality)),
        ("lengths", _lengths, bool(found.turns)),
        ("times", _times, bool(found.days)),
    ]
    return {name: _png(draw(found)) for name, draw, there in wanted if there}


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _figure(columns: int, height: float, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9, height), layout="constrained")
    figure.suptitle(title, fontsize=12)
    made = figure.subplots(1, columns, squeeze=False)
    return figure, list(made[0])


def _bars(
    axes: Axes, places: list[float], shares: list[Share], height: float, color: str, label: str
) -> None:
    """Horizontal bars in percent with their intervals."""
    values = [100 * share.value if share.total else 0.0 for share in shares]
    lows = [100 * share.interval[0] if share.total else 0.0 for share in shares]
    highs = [100 * share.interval[1] if share.total else 0.0 for share in shares]
    errors = [
        [max(value - low, 0) for value, low in zip(values, lows, strict=True)],
        [max(high - value, 0) for value, high in zip(values, highs, strict=True)],
    ]
    axes.barh(places, values, height, xerr=errors, color=color, label=label, error_kw={"lw": 0.8})


def _versions(found: Analysis) -> Figure:
    names = [name for name, _ in sorted(found.versions.items(), key=lambda item: -item[1]["replies"])]
    names = names[:_MOST_BARS][::-1]
    figure, (axes,) = _figure(1, 1.4 + 0.5 * len(names), "Thumbs by version")
    for shift, side, color in ((0.2, "up", _UP), (-0.2, "down", _DOWN)):
        shares = [Share(found.versions[name][side], found.versions[name]["replies"]) for name in names]
        _bars(axes, [place + shift for place in range(len(names))], shares, 0.38, color, f"thumbs {side}")
    axes.set_yticks(range(len(names)), [_plain(f"{n} ({found.versions[n]['replies']:,})") for n in names])
    axes.set_xlabel("% of replies, with 95 % intervals")
    _legend(axes)
    return figure


def _reasons(found: Analysis) -> Figure:
    names = [name for name, _ in found.reasons.most_common(_MOST_BARS)][::-1]
    figure, (axes,) = _figure(1, 1.4 + 0.4 * len(names), "Why thumbs went down")
    shares = [Share(min(found.reasons[name], found.thumbs["down"]), found.thumbs["down"]) for name in names]
    _bars(axes, list(range(len(names))), shares, 0.6, _DOWN, "")
    axes.set_yticks(range(len(names)), [_plain(name.replace("_", " ")) for name in names])
    axes.set_xlabel("% of thumbs down, with 95 % intervals")
    return figure


def _quality(found: Analysis) -> Figure:
    talks = [
        talk for talk in ("standard", "adversarial", "unknown") if any(k[0] == talk for k in found.quality)
    ]
    names = found.annotations()[:_MOST_BARS][::-1]
    figure, many = _figure(len(talks), 1.6 + 0.5 * len(names), "What crowdworkers said of messages")
    for number, (axes, talk) in enumerate(zip(many, talks, strict=True)):
        for shift, side, color in ((0.2, "human", _HUMAN), (-0.2, "bot", _BOT)):
            shares = [found.quality_of(talk, side, name) for name in names]
            _bars(axes, [place + shift for place in range(len(names))], shares, 0.38, color, side)
        labels = [_plain(name) for name in names] if not number else [""] * len(names)
        axes.set_yticks(range(len(names)), labels)
        axes.set_title(f"{talk} talk", fontsize=10)
        axes.set_xlabel("% of messages")
        axes.set_xlim(0, 100)
    _legend(many[-1])
    return figure


def _lengths(found: Analysis) -> Figure:
    figure, (left, right) = _figure(2, 3.6, "Lengths; the last step holds all that are longer")
    _histogram(left, {"": (found.turns, _HUMAN)})
    left.set_xlabel("messages of a conversation")
    left.set_ylabel("% of conversations")
    _histogram(right, {"human": (found.words["human"], _HUMAN), "bot": (found.words["bot"], _BOT)})
    right.set_xlabel("words of a message")
    right.set_ylabel("% of messages")
    _legend(right)
    return figure


def _histogram(axes: Axes, lines: dict[str, tuple[Counter[int], str]]) -> None:
    """label -> (counts, colour), with one width of steps for all, up to the longest 99th percentile."""
    last = max(_percentile_99(counts) for counts, _ in lines.values())
    width = -(-last // 40)
    edges = [number * width for number in range(last // width + 2)]
    for label, (counts, color) in lines.items():
        bins, total = Counter[int](), max(1, sum(counts.values()))
        for value, count in counts.items():
            bins[min(value, last) // width] += count
        heights = [100 * bins[number] / total for number in range(last // width + 1)]
        axes.stairs(heights, edges, fill=not label, color=color, label=label or None, lw=1.5)


def _percentile_99(counts: Counter[int]) -> int:
    total, passed = sum(counts.values()), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= 0.99 * total:
            return max(value, 1)
    return 1


def _times(found: Analysis) -> Figure:
    figure, (left, right) = _figure(2, 3.6, "When conversations began (UTC)")
    days = sorted(found.days)
    numbers = _days_since(days)
    left.bar(numbers, [found.days[day] for day in days], width=1.0, color=_HUMAN)
    left.set_xlabel(f"days since {days[0]}")
    left.set_ylabel("conversations a day")
    right.bar(range(24), [found.hours[hour] for hour in range(24)], color=_HUMAN)
    right.set_xlabel("hour of the day")
    right.set_ylabel("conversations")
    return figure


def _days_since(days: list[str]) -> list[int]:
    first = date.fromisoformat(days[0])
    return [(date.fromisoformat(day) - first).days for day in days]


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9)


def _plain(name: str) -> str:
    """Names are shown as they are: a dollar sign begins no formula."""
    return name.replace("$", r"\$")
