"""One round: the whole story. Everything else in this project serves one of these six lines.

people talk ─► interaction log ─► trust, reward ─► training set ─► candidate ─► verdict ─► champion
"""

from dataclasses import dataclass
from typing import Protocol

from bb3x_ray.data.slices import Slice
from bb3x_ray.schemas.learning import Candidate, Scored, Verdict


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What a round decides before it begins, so that a retried round decides the same.

    champion    the version that the people talk to, and that training starts from
    candidate   the number reserved for the version that this round trains
    after       the round consumes what was committed to the log after this `commit_seq`
    reward      the number reserved for its reward model
    """

    number: int
    seed: int
    champion: str
    candidate: str
    after: int
    reward: str = ""

    @property
    def reward_version(self) -> str:
        """Rounds that were planned before 0.4 reserved none: theirs has the round's number."""
        return self.reward or f"v{self.number:04d}"

    @property
    def name(self) -> str:
        return f"rounds/{self.number:04d}"


class Steps(Protocol):
    """The verbs. Each is done once: asked again, it returns what it published."""

    def collect(self, plan: RoundPlan) -> Slice: ...
    def score(self, plan: RoundPlan, slice_: Slice) -> Scored: ...
    def curate(self, plan: RoundPlan, slice_: Slice, scored: Scored) -> str: ...
    def train(self, plan: RoundPlan, training_set: str) -> Candidate: ...
    def evaluate(self, plan: RoundPlan, candidate: Candidate) -> Verdict: ...
    def hand_over(self, plan: RoundPlan, verdict: Verdict) -> None: ...


def run_round(plan: RoundPlan, steps: Steps) -> Verdict:
    slice_ = steps.collect(plan)  # pin and copy what people said, up to now
    scored = steps.score(plan, slice_)  # folds → trust per person → reward model → score per bot turn
    training_set = steps.curate(plan, slice_, scored)  # imitate / avoid spans, every drop with a reason
    candidate = steps.train(plan, training_set)  # CRINGE; weights published under the number reserved
    verdict = steps.evaluate(plan, candidate)  # against the champion, on frozen sets, by the judge
    steps.hand_over(plan, verdict)  # if it passed, the champion moves and the server answers with it
    return verdict
