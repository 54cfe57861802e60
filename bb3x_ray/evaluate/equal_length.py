"""Comparison at equal length: a longer reply must not win, or lose, by its length alone."""

from bb3x_ray.evaluate.sentences import is_finished, sentences, word_count


def without_cut_off(text: str, finish_reason: str | None) -> str:
    """Drop the last sentence when the token limit cut it off and a whole one stands before it."""
    parts = sentences(text)
    if finish_reason == "length" and len(parts) > 1 and not is_finished(text):
        return " ".join(parts[:-1])
    return text.strip()


def equalise(a: str, b: str) -> tuple[str, str]:
    """Both texts cut to whole sentences within the words of the shorter; each keeps its first sentence.

    The shorter one stays as it is. Lengths still differ where a first sentence alone is longer: report
    the mean words of both sides.
    """
    budget = min(word_count(a), word_count(b))
    return _within(a, budget), _within(b, budget)


def _within(text: str, budget: int) -> str:
    if word_count(text) <= budget:
        return text.strip()
    parts = sentences(text)
    kept = parts[:1]
    for part in parts[1:]:
        if word_count(" ".join([*kept, part])) > budget:
            break
        kept.append(part)
    return " ".join(kept)
