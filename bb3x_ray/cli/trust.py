"""`bb3x trust`: why people are distrusted, and what trust is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides
from bb3x_ray.cli.quiet import quiet

if TYPE_CHECKING:
    from bb3x_ray.reward.safety_mix import Pools
    from bb3x_ray.reward.trust_benchmark import TextFeatures

trust_app = typer.Typer(help="Whom to believe, and why.", no_args_is_help=True)
Safe = Annotated[
    Path | None, typer.Option(help="Safe texts: one a line, or JSON lines with `text`. Else chitchat's.")
]
Unsafe = Annotated[
    Path | None, typer.Option(help="Unsafe texts, likewise, or a file of hh-rlhf. Else $BB3X_TEST_DATA's.")
]
Seeds = Annotated[int, typer.Option(min=2, help="How many random mixes, of each kind.")]
Kinds = Annotated[str, typer.Option(help="Kinds of trolls, with commas; empty: all.")]
Noise = Annotated[float, typer.Option(min=0, max=0.5, help="Share of helpers' labels that are wrong too.")]
Out = Annotated[Path | None, typer.Option(help="A folder for results (CSV) and plot (PNG).")]


@trust_app.command("report")
def trust_report(
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
    round_: Annotated[int | None, typer.Option("--round", min=1, help="Which round; else the last.")] = None,
    person: Annotated[str | None, typer.Option(help="Only this pseudonym, with every thumb.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Also people who are trusted.")] = False,
    show_text: Annotated[bool, typer.Option(help="Quote what was said; for your eyes only.")] = False,
    json: JsonOption = False,
) -> None:
    """People of a round: thumbs, trust, and why they are distrusted.

    Examples: `bb3x trust report` · `bb3x trust report --round 2 --person sim-0a1b --show-text`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from rich.console import Console

    from bb3x_ray.rounds.trust_report import find_report, report_as_json, show_report
    from bb3x_ray.storage import Storage

    found = find_report(Storage(parsed.storage.root), round_, person, everybody)
    if json:
        Console().print_json(data=report_as_json(found))
    else:
        show_report(found, Console(highlight=False), with_thumbs=bool(person), show_text=show_text)


@trust_app.command("table")
def trust_table(
    files: Annotated[list[Path], typer.Argument(help="Parquet with person, rating (1 or -1) and p.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the table goes, as Parquet.")],
    config: ConfigOption = LOCAL,
) -> None:
    """Trust of very many people, from thumbs that were judged already: counted by Ray Data's group-by.

    p is the probability of a thumb up, by a model that has not seen the thumb. A round does this for its own
    thumbs, and finds coordinated groups as well.

    Example: `bb3x trust table thumbs/*.parquet --out trust.parquet`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config)
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bb3x_ray.reward.on_ray import count_thumbs
    from bb3x_ray.reward.trust import table
    from bb3x_ray.reward.trust.counting import check_judged
    from bb3x_ray.rounds.on_ray import connected
    from bb3x_ray.storage import write_atomic

    quiet()
    for file in files:
        check_judged(file)
    with connected(parsed.ray):
        people = table.trust_table(count_thumbs([str(file.resolve()) for file in files]), parsed.trust)
    made = pa.BufferOutputStream()
    pq.write_table(people, made, compression="zstd")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, made.getvalue().to_pybytes())
    typer.echo(f"{out}: {len(people)} people, {sum(people['distrusted'].to_pylist())} of them distrusted")


@trust_app.command("benchmark")
def trust_benchmark(
    safe: Safe = None,
    unsafe: Unsafe = None,
    seeds: Seeds = 50,
    kinds: Kinds = "",
    methods: Annotated[str, typer.Option(help="Methods, with commas; empty: all.")] = "",
    trolls: Annotated[float, typer.Option(min=0, max=1, help="Share of the texts that are trolls'.")] = 0.5,
    noise: Noise = 0.0,
    test: Annotated[int, typer.Option(min=2, help="Texts to test on; 24 were published.")] = 240,
    encoder: Annotated[str, typer.Option(help="minilm, or a Hugging Face encoder.")] = "minilm",
    out: Out = None,
) -> None:
    """Error on gold labels by kind of troll and method, on SafetyMix.

    The best method is chosen on ten other seeds than those that are reported.

    Example: `bb3x trust benchmark --seeds 50 --out trust` ·
    `bb3x trust benchmark --safe ours.txt --unsafe theirs.jsonl`
    """
    from bb3x_ray.cli.trust_runs import asked_kinds, asked_methods, run_benchmark

    which, how = asked_kinds(kinds, mixed=False), asked_methods(methods)
    quiet()
    pools, features = _material(safe, unsafe, encoder)
    run_benchmark(pools, features, which, how, seeds, trolls=trolls, noise=noise, test=test, out=out)


@trust_app.command("poison")
def trust_poison(
    safe: Safe = None,
    unsafe: Unsafe = None,
    seeds: Seeds = 50,
    kinds: Kinds = "",
    shares: Annotated[str, typer.Option(help="Shares of thumbs that are trolls', with commas.")] = "0.3,0.5",
    noise: Noise = 0.0,
    encoder: Annotated[str, typer.Option(help="minilm, or a Hugging Face encoder.")] = "minilm",
    out: Out = None,
) -> None:
    """Poisoned rounds: how many of the labels to imitate and to avoid are right, trust on and off.

    Example: `bb3x trust poison --kinds mixed,troll --seeds 20`
    """
    from bb3x_ray.cli.trust_runs import asked_kinds, asked_shares, run_poison

    which, of_trolls = asked_kinds(kinds, mixed=True), asked_shares(shares)
    quiet()
    pools, features = _material(safe, unsafe, encoder)
    run_poison(pools, features, which, of_trolls, seeds, noise=noise, out=out)


def _material(safe: Path | None, unsafe: Path | None, encoder: str) -> "tuple[Pools, TextFeatures]":
    from rich.console import Console

    from bb3x_ray.classify.encoder import load_encoder
    from bb3x_ray.cli.trust_runs import safe_texts, unsafe_texts
    from bb3x_ray.reward.safety_mix import make_pools
    from bb3x_ray.reward.trust_benchmark import TextFeatures

    console = Console(highlight=False)
    with console.status("reading and embedding the texts"):
        pools = make_pools(safe_texts(safe), unsafe_texts(unsafe))
        texts = [text for of_pool in pools.texts.values() for text in of_pool]
        features = TextFeatures(texts, load_encoder(encoder))
    console.print(f"Texts: {pools}.")
    return pools, features
