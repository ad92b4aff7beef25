"""Where the model of this package stands: its scores against the best of the other methods."""

from collections import Counter
from enum import StrEnum
from typing import NamedTuple

import pandas as pd

from harness.data import DATA
from harness.protocols import PROTOCOLS
from harness.scores.imputation import COUNT_SCORES

OWN = "scmvp"
CALIBRATED = "scmvp, a tenth held out"  # what one modality says of the other takes cells for it


class Score(NamedTuple):
    """A score that is the better the higher it is.

    Parameters
    ----------
    protocol, case
        Where it is found.
    heading
        What it is called.
    field
        Field of a result.
    rivals
        Fields of which another method's best one counts; the same field if there are none.
    own
        The form of the model that is compared.
    """

    protocol: str
    heading: str
    field: str
    rivals: tuple[str, ...] = ()
    case: str = ""
    own: str = OWN


# what chance would reach is no score of a method
_COUNT_SCORES = {f: heading for f, heading in COUNT_SCORES.items() if f != "atac_base_rate"}
SCORES = (
    Score("embedding", "Leiden NMI", "leiden.nmi"),
    Score("embedding", "Leiden ARI", "leiden.ari"),
    Score("embedding", "k-means NMI", "kmeans.nmi"),
    Score("embedding", "k-means ARI", "kmeans.ari"),
    Score("embedding", "F1 of neighbours", "neighbours.f1"),
    Score("embedding", "scib, bio conservation", "scib.Bio conservation"),
    Score("embedding", "scib, batch correction", "scib.Batch correction"),
    Score("embedding", "scib, total", "scib.Total"),
    # a method of one modality has no joint view: what it has is compared with ours
    Score("held-out", "F1, best view", "joint.f1", ("joint.f1", "rna.f1", "atac.f1")),
    Score(
        "held-out",
        "accuracy, best view",
        "joint.accuracy",
        ("joint.accuracy", "rna.accuracy", "atac.accuracy"),
    ),
    Score("held-out", "F1 of ATAC alone", "atac.f1"),
    *(Score("thinning", heading, field) for field, heading in _COUNT_SCORES.items()),
    *(
        Score("cross-modal", heading, field, own=CALIBRATED)
        for field, heading in _COUNT_SCORES.items()
    ),
    *(
        Score("modalities", f"{COUNT_SCORES[field]}, both seen", f"joint.{field}")
        for field in ("rna_log_likelihood", "atac_log_likelihood", "atac_auroc")
    ),
    *(
        Score("robustness", f"Leiden NMI, {modality.upper()} at {share} %", "leiden.nmi", (), case)
        for case in PROTOCOLS["robustness"].cases
        for modality, share in (case.split("-"),)
    ),
)


class Verdict(StrEnum):
    """Better or worse by more than a standard deviation over seeds, or tied."""

    BETTER = "better"
    TIED = "tied"
    WORSE = "worse"


class Standing(NamedTuple):
    """Difference to the best other method.

    Parameters
    ----------
    difference
        Own mean minus theirs.
    spread
        Standard deviation over seeds: of the differences where both have the same data for a seed,
        else the larger one of the two methods.
    rival
        The other method.
    seeds
        How many the difference rests on.
    """

    difference: float
    spread: float
    rival: str
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """What the difference says beside the spread."""
        if abs(self.difference) <= self.spread:
            return Verdict.TIED
        return Verdict.BETTER if self.difference > 0 else Verdict.WORSE


Standings = dict[tuple[Score, str], Standing]


def stands(values: pd.DataFrame, score: Score) -> Standing | None:
    """Compare with the best other method; None where nobody else, or not this one, has the score.

    Parameters
    ----------
    values
        A row each value of a figure: protocol, method, case, figure, seed and value.
    score
        What to compare.
    """
    of_case = values[(values["protocol"] == score.protocol) & (values["case"] == score.case)]
    is_own = (of_case["method"] == score.own) & (of_case["figure"] == score.field)
    own = of_case[is_own].set_index("seed")["value"]
    rivals = of_case[
        of_case["figure"].isin(score.rivals or (score.field,))
        & ~of_case["method"].str.startswith(OWN)
    ]
    if own.empty or rivals.empty:
        return None
    compare = paired if PROTOCOLS[score.protocol].seed_draws_data else unpaired
    standings = [
        compare(own, of_rival.set_index("seed")["value"], str(method))
        for (method, _), of_rival in rivals.groupby(["method", "figure"], sort=False)
    ]
    return min((s for s in standings if s is not None), key=lambda s: s.difference, default=None)


def paired(own: pd.Series, other: pd.Series, rival: str) -> Standing | None:
    """Compare values of the same seeds, for which both methods saw the same; None without any.

    Parameters
    ----------
    own, other
        Values by seed.
    rival
        Whose the other values are.
    """
    differences = (own - other).dropna()
    if differences.empty:
        return None
    return Standing(differences.mean(), sample_sd(differences), rival, len(differences))


def unpaired(own: pd.Series, other: pd.Series, rival: str) -> Standing:
    """Compare means over all seeds of either method, as in `paired`."""
    difference = own.mean() - other.mean()
    spread = max(sample_sd(own), sample_sd(other))
    return Standing(difference, spread, rival, min(len(own), len(other)))


def sample_sd(values: pd.Series) -> float:
    """Standard deviation of a sample; zero for a single value, of which nothing is known."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def compared(values: dict[str, pd.DataFrame]) -> Standings:
    """Compare by every score in every data set that is no control.

    Parameters
    ----------
    values
        Of each data set, as in `stands`.
    """
    return {
        (score, data): standing
        for score in SCORES
        for data, frame in values.items()
        if not DATA[data].is_control
        if (standing := stands(frame, score)) is not None
    }


def counted(standings: Standings) -> str:
    """Count the verdicts in a sentence, and say in a second one what they rest on."""
    counts = Counter(standing.verdict for standing in standings.values())
    better = {key: s for key, s in standings.items() if s.verdict is Verdict.BETTER}
    of_few_seeds, better_of_few_seeds = (
        sum(standing.seeds <= 2 for standing in group.values()) for group in (standings, better)
    )
    on_generated_data = sum(DATA[data].is_generated for _, data in better)
    return (
        f"Of {len(standings)} comparisons with the best other method, each of one score on one "
        f"data set, `{OWN}` is better in {counts[Verdict.BETTER]}, tied in "
        f"{counts[Verdict.TIED]} and worse in {counts[Verdict.WORSE]}. A difference counts if it "
        "is larger than a sample standard deviation over seeds: were two methods equally good, "
        "this would still call 23 of 100 comparisons different with three seeds, and 39 with "
        "two. "
        f"{of_few_seeds} of the {len(standings)}, among them {better_of_few_seeds} of the "
        f"{counts[Verdict.BETTER]} better ones, rest on one or two seeds; "
        f"{on_generated_data} of the better ones are on generated data."
    )


def standing_table(standings: Standings) -> str:
    """Give the difference of each comparison in a table with a column a data set."""
    if not standings:
        return ""
    data = list(dict.fromkeys(data for _, data in standings))
    lines = [
        f"{counted(standings)} Differences of means, and the other method: in bold where `{OWN}` "
        "is better; in brackets where the two are tied, which is to say within a sample standard "
        "deviation over seeds; with a star where it rests on one seed. Where the seed draws what "
        "is held out, the differences are those of the same seeds, and their deviation counts; "
        "in *embedding*, the larger deviation of the two methods. In *cross-modal* a tenth of the "
        f"cells is held out, as by default, to calibrate the channels (`{CALIBRATED}`).",
        "",
        "| protocol | score | " + " | ".join(data) + " |",
        "|---" * (2 + len(data)) + "|",
    ]
    for score in SCORES:
        cells = [shown(standings.get((score, name))) for name in data]
        if any(cells):
            lines.append(f"| {score.protocol} | {score.heading} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


def shown(standing: Standing | None) -> str:
    """One cell of the table."""
    if standing is None:
        return ""
    digits = 3 if abs(standing.difference) < 10 else 0
    size = f"{standing.difference:+.{digits}f}"
    star = "\\*" if standing.seeds == 1 else ""
    marked = {
        Verdict.BETTER: f"**{size}**",
        Verdict.TIED: f"({size})",
        Verdict.WORSE: size,
    }[standing.verdict]
    return f"{marked}{star} {standing.rival}"
