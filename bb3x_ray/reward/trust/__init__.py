"""Trust: finding the helpers and ignoring the trolls, by how people's thumbs agree with models that never
saw those thumbs.

    folds.py       every thumb judged by a model of the other folds
    methods.py     the methods of arXiv 2208.03295, and what all methods give back
    confusion.py   ours: how often a person is right about good replies, and about bad ones
    history.py     what is remembered of a person from round to round
    groups.py      accounts that do the same far more often than chance has it
    estimate.py    the door for rounds: from signals to trust per person
    report.py      why somebody is distrusted
"""

from bb3x_ray.reward.trust.estimate import FoldJudge, Trust, estimate_trust
from bb3x_ray.reward.trust.folds import fold_of
from bb3x_ray.reward.trust.history import TrustHistory

__all__ = ["FoldJudge", "Trust", "TrustHistory", "estimate_trust", "fold_of"]
