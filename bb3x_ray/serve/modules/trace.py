"""What every module of a turn did: for the log in the release's fields, and for who asks in the response."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bb3x_ray.serve.memory import Memory
from bb3x_ray.serve.search import Document


@dataclass(slots=True)
class Step:
    """One module's call. `decision`: what came of its output; `error`: why there is none."""

    module: str
    input_chars: int = 0
    output: str = ""
    decision: str = ""
    error: str = ""
    ms: int = 0

    def decided(self, yes: bool, if_so: str, if_not: str) -> bool:
        """Note what came of the output."""
        self.decision = if_so if yes else if_not
        return yes


@dataclass(slots=True)
class Trace:
    """The steps in the order in which they ended, and what they found."""

    steps: list[Step] = field(default_factory=list)
    decisions: dict[str, Any] = field(default_factory=dict)  # of a fixed vocabulary
    words: dict[str, Any] = field(default_factory=dict)  # texts: kept with consent only

    @contextmanager
    def step(self, module: str, input_chars: int = 0) -> Iterator[Step]:
        """Yield the step to fill in; it is timed, and kept also when the block raises."""
        step, began = Step(module, input_chars), time.monotonic()
        try:
            yield step
        finally:
            step.ms = round(1000 * (time.monotonic() - began))
            self.steps.append(step)

    def offered(self, memories: Sequence[Memory]) -> None:
        self.words["memories"] = [labelled(memory) for memory in memories]

    def found(self, documents: Sequence[Document]) -> None:
        self.words["search_knowledge_doc_titles"] = [d.title for d in documents]
        self.words["search_knowledge_doc_urls"] = [d.url for d in documents]
        self.words["search_knowledge_doc_content"] = [d.content for d in documents]

    def details(self, with_words: bool) -> dict[str, Any]:
        """For the reply's event: the release's keys, and `trace`. Without consent no text is in it."""
        steps = [
            {"module": s.module, "input_chars": s.input_chars, "output_chars": len(s.output)}
            | ({"output": s.output} if with_words else {})
            | {"decision": s.decision, "ms": s.ms}
            | ({"error": s.error} if s.error else {})
            for s in self.steps
        ]
        return {**self.decisions, **(self.words if with_words else {}), "trace": steps}


def labelled(memory: Memory) -> str:
    """A memory with whose it is: "person: I like tea"."""
    return f"{memory.about}: {memory.text}"
