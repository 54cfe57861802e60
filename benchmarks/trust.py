"""Trust for 100,000 people with 6.2 million judged thumbs, by Ray Data's group-by: seconds and memory.

    python -m benchmarks.trust [--thumbs 6200000] [--people 100000]

Goal: at most 3 minutes and 4 GiB, Ray's start and all its processes included, on 2 cores. Beside it, in the
same run, the same counts by pyarrow's group-by in one bare process, and the same trust from them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.data import arm

SECONDS, BYTES = 180, 4 * 2**30
_FILES, _ROW_GROUP = 16, 131_072
_WIDTH = 24


def make(folder: Path, thumbs: int, people: int, seed: int = 0) -> None:
    """Files of judged thumbs: a tenth of the people turn theirs round, a tenth always press up. How many
    thumbs people give follows a power law; rows are in no order."""
    random = np.random.default_rng(seed)
    weight = 1 / (1 + np.arange(people)) ** 0.6
    for number in range(_FILES):
        count = thumbs // _FILES + (number < thumbs % _FILES)
        who = random.choice(people, count, p=weight / weight.sum())
        good = random.random(count) < 0.5
        p = np.clip(np.where(good, 0.75, 0.25) + random.normal(0, 0.2, count), 0.01, 0.99)
        up = np.where(who % 10 == 3, ~good, good) | (who % 10 == 7)
        up ^= (random.random(count) < 0.1) & (who % 10 < 3)
        names = pc.binary_join_element_wise("person-", pa.array(who).cast(pa.string()), "")
        table = pa.table(
            {
                "person": names,
                "rating": pa.array(np.where(up, 1, -1), pa.int8()),
                "p": pa.array(p, pa.float32()),
            }
        )
        pq.write_table(table, folder / f"{number:02d}.parquet", row_group_size=_ROW_GROUP)


def ours(folder: Path) -> dict[str, float]:
    """Ray's start counts, the imports of Python do not, as in the other arm."""
    import ray

    from bb3x_ray.config import TrustConfig
    from bb3x_ray.reward.on_ray import count_thumbs
    from bb3x_ray.reward.trust.table import trust_table

    began = time.monotonic()
    arm.start_ray()
    started = time.monotonic()
    counted = count_thumbs([str(path) for path in sorted(folder.glob("*.parquet"))])
    grouped = time.monotonic()
    table = trust_table(counted, TrustConfig())
    ended = time.monotonic()
    ray.shutdown()
    return _said(table, ended - began, grouped - started, ended - grouped)


def bare(folder: Path) -> dict[str, float]:
    from bb3x_ray.config import TrustConfig
    from bb3x_ray.reward.trust.confusion import LEVELS, level_of
    from bb3x_ray.reward.trust.history import TrustHistory
    from bb3x_ray.reward.trust.table import trust_table

    began = time.monotonic()
    table = pq.read_table(folder)
    place = level_of(table["p"].to_numpy()) + len(LEVELS) * (table["rating"].to_numpy() > 0)
    table = pa.table({"person": table["person"], "place": pa.array(place.astype(np.int8))})
    cells = table.group_by(["person", "place"]).aggregate([([], "count_all")])
    people = pc.dictionary_encode(cells["person"].combine_chunks())
    names = np.array(people.dictionary.to_pylist(), dtype=object)
    counts = np.zeros((len(names), _WIDTH), np.float32)
    row = people.indices.to_numpy(zero_copy_only=False)
    counts[row, cells["place"].to_numpy()] = cells["count_all"].to_numpy()
    order = np.argsort(names)
    grouped = time.monotonic()
    trust = trust_table(TrustHistory(tuple(names[order]), counts[order]), TrustConfig())
    ended = time.monotonic()
    return _said(trust, ended - began, grouped - began, ended - grouped)


def _said(table: pa.Table, seconds: float, group_by: float, trust: float) -> dict[str, float]:
    distrusted = set(table.filter(table["distrusted"])["person"].to_pylist())
    trolls = {p for p in table["person"].to_pylist() if int(p.split("-")[1]) % 10 in (3, 7)}
    return {
        "seconds": seconds,
        "group_by": group_by,
        "trust": trust,
        "people": len(table),
        "thumbs": float(pc.sum(table["thumbs"]).as_py()),
        "distrusted": len(distrusted),
        "trolls_found": len(distrusted & trolls) / max(1, len(trolls)),
        "helpers_distrusted": len(distrusted - trolls) / max(1, len(table) - len(trolls)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--thumbs", type=int, default=6_200_000)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--arm", choices=["ours", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        said = (ours if asked.arm == "ours" else bare)(asked.folder)
        sys.stdout.write(json.dumps(said) + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 130)
    with tempfile.TemporaryDirectory() as folder:
        with console.status(f"making {asked.thumbs:,} thumbs"):
            make(Path(folder), asked.thumbs, asked.people)
        found = {}
        for name in ("bare", "ours"):
            with console.status(name):
                found[name] = arm.run("benchmarks.trust", "--arm", name, "--folder", folder)
    table = Table(title=f"Trust of {asked.people:,} people, {asked.thumbs:,} thumbs")
    for column in ("", "seconds", "group-by", "trust", "peak GiB", "people", "trolls found", "helpers wrong"):
        table.add_column(column, justify="left" if not column else "right")
    for name, words in (("bare", "pyarrow, one process"), ("ours", "Ray Data, started within")):
        said, measured = found[name].said, found[name]
        table.add_row(
            words,
            f"{said['seconds']:.1f}",
            f"{said['group_by']:.1f}",
            f"{said['trust']:.1f}",
            f"{measured.peak_bytes / 2**30:.2f}",
            f"{said['people']:,.0f}",
            f"{said['trolls_found']:.1%}",
            f"{said['helpers_distrusted']:.2%}",
        )
    console.print(table)
    same = all(found["ours"].said[k] == found["bare"].said[k] for k in ("people", "thumbs", "distrusted"))
    in_time = found["ours"].said["seconds"] <= SECONDS and found["ours"].peak_bytes <= BYTES
    console.print(
        f"the same trust from both: {'yes' if same else 'NO'}; goal {'reached' if in_time else 'MISSED'}"
    )
    if not (same and in_time):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
