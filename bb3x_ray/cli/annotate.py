"""`bb3x annotate`: people say what they think of sampled replies, and how far they agree."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bb3x_ray.cli.log import catch_up, nobody_waits
from bb3x_ray.cli.options import LOCAL, ConfigOption, JsonOption, Overrides

if TYPE_CHECKING:
    from rich.table import Table

    from bb3x_ray.data.agreement import NoiseRates, Rate, RaterAgreement
    from bb3x_ray.data.annotation_sample import Sample
    from bb3x_ray.data.annotations import AnnotationReport

annotate_app = typer.Typer(
    help="Replies rated by annotators: sample, rating page, import.", no_args_is_help=True
)
_SHOWN = 20


@annotate_app.command("export")
def annotate_export(
    out: Annotated[Path, typer.Option("--out", help="The new CSV file.")] = Path("sample.csv"),
    count: Annotated[int, typer.Option("-n", min=1, help="How many replies.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed draws another sample.")] = 0,
    config: ConfigOption = LOCAL,
    overrides: Overrides = None,
) -> None:
    """Draw replies for annotators: by score, by thumbs that agree or disagree with it, adversarial or not.

    Consented conversations only, de-identified as in exports. Rate them on `bb3x annotate page`, or in a
    spreadsheet: fill in `label`, or columns `label_ann` and `label_bob` of two people.

    Example: `bb3x annotate export --out sample.csv -n 200`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from bb3x_ray.data.annotation_sample import draw, latest_scores, write_sample
    from bb3x_ray.rounds.cleaning import deidentifier
    from bb3x_ray.rounds.server_key import server_key
    from bb3x_ray.schemas.errors import UserError
    from bb3x_ray.storage import Storage

    if out.exists():
        raise UserError(f"{out} is there already: give another name, or remove it first.")
    catch_up(parsed)
    nobody_waits(parsed)
    storage = Storage(parsed.storage.root)
    cleaner = deidentifier(storage, parsed.log)
    clean = (lambda text, person: cleaner.clean(text, person).text) if cleaner else None
    scores = latest_scores(storage, parsed.reward.avoid_below, parsed.reward.imitate_above)
    sample = draw(storage, server_key(storage), count, seed, scores, clean)
    write_sample(out, sample)
    _tell_sample(sample, out)


@annotate_app.command("import")
def annotate_import(
    files: Annotated[
        list[str],
        typer.Argument(help="Rated sheets, one for each rater or one with both; then overrides (a.b=value)."),
    ],
    rater: Annotated[
        list[str] | None, typer.Option(help="Whose file it is; once a file, in their order.")
    ] = None,
    config: ConfigOption = LOCAL,
    json: JsonOption = False,
) -> None:
    """Take ratings into the log, and print how far raters, and thumbs, agree. Twice adds nothing.

    Example: `bb3x annotate import sample-ann.csv sample-bob.csv` · `… import sheet.csv --rater ann`
    """
    from bb3x_ray.config_file import load_config

    overrides = [one for one in files if "=" in one and not Path(one).exists()]
    parsed = load_config(config, overrides)
    from dataclasses import asdict
    from json import dumps

    from bb3x_ray.data.annotations import import_ratings
    from bb3x_ray.rounds.server_key import server_key
    from bb3x_ray.storage import Storage

    catch_up(parsed)
    storage = Storage(parsed.storage.root)
    sheets = [Path(one) for one in files if one not in overrides]
    report = import_ratings(storage, server_key(storage), sheets, rater or ())
    if json:
        counts = {name: getattr(report, name) for name in ("new", "known", "unrated", "doubles")}
        problems = [asdict(problem) for problem in report.problems]
        typer.echo(dumps({**counts, "problems": problems, **_plain(report.found)}))
    else:
        typer.echo(
            f"{report.new} annotations new, {report.known} known already; {report.unrated} without a label, "
            f"{report.doubles} said twice"
        )
        _tell(report.found)
    for problem in report.problems[:_SHOWN]:
        typer.echo(str(problem), err=True)
    if report.problems:
        typer.echo(f"{len(report.problems)} rows were left out; mend them and import again.", err=True)


@annotate_app.command("report")
def annotate_report(
    config: ConfigOption = LOCAL, overrides: Overrides = None, json: JsonOption = False
) -> None:
    """How far raters agree, what they say of each bot, and how noisy thumbs are: by all annotations so far.

    Example: `bb3x annotate report --config configs/recorded.yaml`
    """
    from bb3x_ray.config_file import load_config

    parsed = load_config(config, overrides)
    from json import dumps

    from bb3x_ray.data.annotations import report
    from bb3x_ray.storage import Storage

    catch_up(parsed)
    found = report(Storage(parsed.storage.root))
    if json:
        typer.echo(dumps(_plain(found)))
    else:
        _tell(found)


@annotate_app.command("page")
def annotate_page(
    sheet: Annotated[Path, typer.Argument(help="What `bb3x annotate export` wrote.")],
    rater: Annotated[str, typer.Option("--rater", help="Your name; the log gets a pseudonym.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Your ratings; else beside the sheet, with your name.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
) -> None:
    """Rate the replies of a sheet on a page of this machine: a click or a key from 1 to 7 each.

    Every click is on disk before the page goes on; start it again to go on where you stopped.

    Example: `bb3x annotate page sample.csv --rater ann`
    """
    from bb3x_ray.data.annotation_page import serve

    serve(sheet, rater, out, port, typer.echo)


def _print(table: "Table") -> None:
    """As wide as it needs where nobody watches."""
    import sys

    from rich.console import Console

    from bb3x_ray.rounds.console import WIDE

    Console(highlight=False, width=None if sys.stdout.isatty() else WIDE).print(table)


def _tell_sample(sample: "Sample", out: Path) -> None:
    from rich.table import Table

    table = Table("score", "thumb", "person", "replies", "drawn")
    for stratum, there in sorted(sample.there.items(), key=lambda one: str(one[0])):
        who = "adversarial" if stratum.adversarial else "standard"
        drawn = sample.drawn.get(stratum, 0)
        table.add_row(stratum.score, stratum.thumb, who, f"{there:,}", f"{drawn:,}")
    _print(table)
    typer.echo(f"{len(sample.items)} replies in {out}; rate them: bb3x annotate page {out} --rater NAME")
    for reason, number in sorted(sample.left_out.items()):
        typer.echo(f"left out: {number} {reason}", err=True)


def _tell(found: "AnnotationReport") -> None:
    for agreement in found.agreements[:_SHOWN]:
        _tell_raters(agreement)
    if not found.agreements:
        typer.echo("no two raters rated the same reply yet, so there is no kappa")
    _tell_shares(found.shares)
    _tell_noise(found.noise)


def _tell_raters(found: "RaterAgreement") -> None:
    import math

    from rich.table import Table

    from bb3x_ray.schemas.conversation import LABELS

    first, second = found.raters
    kappa = "undefined: both always say the same"
    if not math.isnan(found.kappa):
        kappa = f"{found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]"
    typer.echo(
        f"\n{first} and {second}: {found.replies} replies in common, the same label on {found.agree}, the "
        f"same side of good on {found.agree_good}; Cohen's kappa {kappa}"
    )
    used = [label for label in LABELS if any(label in pair for pair in found.confusion)]
    table = Table(f"{first} ↓ · {second} →", *used)
    for mine in used:
        table.add_row(mine, *(str(found.confusion.get((mine, theirs), "")) for theirs in used))
    _print(table)


def _tell_shares(shares: "dict[str, dict[str, Rate]]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from bb3x_ray.data.agreement import EVERY_BOT
    from bb3x_ray.schemas.conversation import LABELS

    if not shares:
        return
    typer.echo("\nannotated replies, in shares of the log's (weights undo how the sample was drawn)")
    table = Table("bot", "replies", *(label.replace("_", " ") for label in LABELS))
    most = sorted(shares, key=lambda bot: (-shares[bot][LABELS[0]].count, bot))
    for bot in most[: 1 if len(shares) == 2 else _SHOWN]:  # of a single bot, all says it already
        its = shares[bot]
        name = "all" if bot == EVERY_BOT else escape(bot)
        table.add_row(name, str(its[LABELS[0]].count), *(str(its[label]) for label in LABELS))
    _print(table)


def _tell_noise(found: "NoiseRates") -> None:
    from rich.table import Table

    if not found.replies:
        typer.echo("\nno reply has both a thumb and an annotation yet, so nothing is known of thumbs' noise")
        return
    typer.echo(
        f"\n{found.replies} replies have a thumb and an annotation, thumbs of {found.people} people; they "
        f"agree on {found.agrees}"
    )
    table = Table("thumb", "replies", "P(good | thumb)", "P(thumb | good)", "P(thumb | not good)")
    for kind, one in found.of.items():
        if not one.good.count:
            continue
        name = kind.replace("_", " ").replace(":", ", ")
        rates = (one.good, one.given_good, one.given_bad)
        table.add_row(name, str(one.good.count), *(str(rate) for rate in rates))
    _print(table)


def _plain(found: "AnnotationReport") -> dict[str, object]:
    """For JSON, which knows no NaN and no keys of two parts."""
    import math
    from dataclasses import asdict

    def plain(agreement: "RaterAgreement") -> dict[str, object]:
        confusion = [[*pair, count] for pair, count in sorted(agreement.confusion.items())]
        numbers = asdict(agreement) | {"confusion": confusion}
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in numbers.items()
        }

    shares = {bot: {label: asdict(rate) for label, rate in its.items()} for bot, its in found.shares.items()}
    agreements = [plain(one) for one in found.agreements]
    return {"agreements": agreements, "shares": shares, "noise": asdict(found.noise)}
