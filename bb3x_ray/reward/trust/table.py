"""Trust of very many people as a table, from what they did."""

import numpy as np
import pyarrow as pa

from bb3x_ray.config import TrustConfig
from bb3x_ray.reward.trust.confusion import Population
from bb3x_ray.reward.trust.history import TrustHistory
from bb3x_ray.reward.trust.methods import level_errors

# thumbs             those that faded count in part
# right_about_good   expected chance that the person gives a good reply a thumb up; and a bad one a thumb down
TRUST_SCHEMA = pa.schema(
    [
        ("person", pa.string()),
        ("trust", pa.float64()),
        ("distrusted", pa.bool_()),
        ("thumbs", pa.float64()),
        ("right_about_good", pa.float64()),
        ("right_about_bad", pa.float64()),
    ]
)


def trust_table(history: TrustHistory, config: TrustConfig) -> pa.Table:
    """A table of TRUST_SCHEMA, a row a person, in their order. Arithmetic only: no model is asked.

    As in a round, nobody is distrusted where the models that judged know nothing, or where people gave fewer
    than `config.min_all_thumbs` thumbs together.
    """
    if not history.people:
        return TRUST_SCHEMA.empty_table()
    counts = history.counts.astype(np.float64)
    found = Population.of(counts, config.threshold, config.min_thumbs, config.evidence)
    thumbs = counts.sum(1)
    wrong = found.trust @ (counts @ level_errors()) / max(float(found.trust @ thumbs), 1e-9)
    knows = wrong < 0.5 and thumbs.sum() >= config.min_all_thumbs
    columns = [history.people, found.trust, found.distrusted & knows, thumbs, *found.right.T]
    return pa.table([pa.array(column) for column in columns], schema=TRUST_SCHEMA)
