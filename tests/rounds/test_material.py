"""What a run stands on: texts for one purpose are not those for another."""

from bb3x_ray.data.readers.chitchat import ChitchatConversation
from bb3x_ray.evaluate.prompts import PromptSets
from bb3x_ray.rounds.material import Material


def material(talks: int) -> Material:
    said = [
        ChitchatConversation(f"c{n}", ("a", "b"), (f"this is what person {n} has to say", "yes"), None)
        for n in range(talks)
    ]
    return Material({"perplexity": said}, PromptSets((), ()))


def test_training_s_probe_and_the_gate_s_share_no_text() -> None:
    found = material(100)
    gate, probe = found.perplexity_texts(20), found.probe_texts(20)
    assert len(gate) == len(probe) == 20
    assert not set(gate) & set(probe)
    assert all(len(text.split()) >= 6 for text in gate + probe)


def test_where_texts_are_few_the_gate_goes_first() -> None:
    found = material(25)
    assert len(found.perplexity_texts(20)) == 20 and len(found.probe_texts(20)) == 5
