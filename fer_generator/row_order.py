"""Check of the order of the rows: FER2013's own labels against the votes.

Nothing but its row number joins an image to its votes. Where fer2013.csv or fer2013new.csv was sorted, cleaned or
concatenated, every image gets another's votes. But fer2013.csv has one emotion for each image. In the right order it is
the largest of the votes far more often than by chance. Measured on the real files (28,557 Training and 3,579
PublicTest rows with votes for one of the seven emotions), in percent of the rows:

                                          Training              PublicTest
    right order                           63.0                  62.7
    reversed                              17.7                  17.4
    shuffled                              18.2                  17.0
    sorted by emotion                     17.6                  17.8
    shifted by one row                    18.3                  17.5
    one row dropped in the middle         40.4 (19 after it)    40.8 (20 after it)
    by chance, from the two distributions 18.1                  17.9

`Order.score` places the agreement between chance (0) and the real files (1). It is 0.99 to 1.00 in the right order,
-0.02 to 0.01 in a wrong one, and 0.5 where half of the rows were shuffled. It is 0.62 and 0.64 for the real rows
without a majority, and 1.2 in the drawn sample. At MIN_ROWS rows, its standard deviation is 0.1.

`Order.evidence` finds blocks of rows in another order. It is the largest sum, over consecutive rows, of the log
likelihood ratio of "unrelated" to "in order" (a CUSUM). It is 8 in the real files, 30 where both were sorted by the
emotion or by the top vote, and 82 where both were sorted by the largest count. Each row of a block in another order
adds 0.65: 98 to 104 for 150 rows, 8,700 after a row that was dropped in the middle of Training.
"""

from dataclasses import dataclass

import numpy as np

from fer_generator.read_csv import SPLIT_FOLDERS, Labels

FER2013_LABELS = np.array([6, 3, 5, 4, 0, 1, 2])  # label of neutral, happiness, ... fear; contempt has none
LABELS = len(FER2013_LABELS)
# The fraction of the images with each FER2013 label (anger, disgust, fear, happiness, sadness, surprise, neutral) that
# get most votes for the same emotion, in the real files.
AGREEMENT = np.array([0.47, 0.34, 0.13, 0.92, 0.41, 0.80, 0.88])

MIN_ROWS = 100
MIN_CONTRAST = 0.1  # between the expected agreement and chance; 0 where all emotions, or all votes, are the same

WRONG_SCORE, DOUBTFUL_SCORE = 0.3, 0.75
WRONG_EVIDENCE, DOUBTFUL_EVIDENCE = 100, 40


@dataclass(frozen=True)
class Order:
    """The agreement of emotions and votes in the rows of one Usage. Fields are keys of generated.json."""

    usage: str
    rows: int  # with an emotion, and with votes for an emotion of FER2013
    agreement: float = 0.0  # fraction of the rows
    chance: float = 0.0  # of the two distributions
    expected: float = 0.0  # in the right order
    evidence: float = 0.0  # that the rows of the block are in another order
    first: int = 0  # row of the block in fer2013new.csv
    last: int = 0
    block_agreement: float = 0.0

    @property
    def unchecked(self) -> str:
        """The reason why the order cannot be checked, or ""."""
        if not self.rows:
            return "no emotion column with labels 0 to 6"
        if self.rows < MIN_ROWS:
            return f"fewer than {MIN_ROWS} rows to compare"
        return "almost the same emotion or votes everywhere" if self.expected - self.chance < MIN_CONTRAST else ""

    @property
    def score(self) -> float:
        """The agreement on a scale from 0, chance, to 1, the real files."""
        return (self.agreement - self.chance) / (self.expected - self.chance)

    @property
    def wrong(self) -> bool:
        """True if rows are in another order."""
        return not self.unchecked and (self.score < WRONG_SCORE or self.evidence > WRONG_EVIDENCE)

    @property
    def doubtful(self) -> bool:
        """True if rows may be in another order."""
        return not self.unchecked and (self.score < DOUBTFUL_SCORE or self.evidence > DOUBTFUL_EVIDENCE)

    def problem(self, fer_csv: object, ferplus_csv: object) -> str:
        """Return the sentence that says where rows are, or may be, in another order."""
        block = self.score >= WRONG_SCORE and self.evidence > DOUBTFUL_EVIDENCE
        place = f"rows {self.first} to {self.last}" if block else f"the {self.usage} rows"
        agreement = self.block_agreement if block else self.agreement
        return (
            f"{fer_csv}: {place} {'are' if self.wrong else 'may be'} in another order than in {ferplus_csv}: "
            f"{percent(agreement)} of their emotions agree with the votes ({percent(self.expected)} in the right "
            f"order, {percent(self.chance)} by chance)"
        )


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.0f} %"


def label_number(text: bytes) -> int:
    """Return the label 0..6 that the column `emotion` gives, or -1."""
    text = text.strip()
    return int(text) if len(text) == 1 and b"0" <= text <= b"6" else -1


def check(emotions: np.ndarray, labels: Labels) -> list[Order]:
    """Compare the emotions of all rows with their votes: i8[N] in -1..6 -> one Order for each Usage."""
    usages, rows = np.array(labels.usages), np.array(labels.rows)
    orders = []
    for usage in SPLIT_FOLDERS:
        compared = (usages == usage) & (emotions >= 0) & labels.votes[:, :LABELS].any(axis=1)
        if compared.any():
            top = FER2013_LABELS[labels.votes[compared, :LABELS].argmax(axis=1)]
            orders.append(_compare(usage, emotions[compared], top, rows[compared]))
        elif usage in labels.usages:
            orders.append(Order(usage, 0))
    return orders


def _compare(usage: str, emotions: np.ndarray, top: np.ndarray, rows: np.ndarray) -> Order:
    """Compare the labels of the images of a Usage with those of their votes: i8[N] and i64[N] in 0..6."""
    agree = emotions == top
    votes = np.bincount(top, minlength=LABELS) / len(top)  # the distribution, and the chance to agree with each label
    labels = np.bincount(emotions, minlength=LABELS) / len(emotions)
    chance = np.clip(votes, 0.01, 0.99)[emotions]
    expected = AGREEMENT[emotions]
    ratio = np.where(agree, np.log(chance / expected), np.log((1 - chance) / (1 - expected)))
    ratio[expected < chance + 0.05] = 0  # agreement with this label is no evidence
    total = np.concatenate([[0], np.cumsum(ratio)])
    evidence = total - np.minimum.accumulate(total)
    end = max(1, int(evidence.argmax()))
    start = int(total[:end].argmin())
    return Order(
        usage=usage,
        rows=len(rows),
        agreement=float(agree.mean()),
        chance=float(votes[emotions].mean()),
        expected=min(float(expected.mean()), float(np.minimum(votes, labels).sum())),  # at most what both allow
        evidence=float(evidence.max()),
        first=int(rows[start]),
        last=int(rows[end - 1]),
        block_agreement=float(agree[start:end].mean()),
    )
