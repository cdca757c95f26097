"""Counting: the weights of a rank, the similarity that chance gives."""

from __future__ import annotations

from helpers.exercises.engine import Case, Exercise, Mistake


def rank_in_budget(shapes: list[tuple[int, int]], budget: int) -> int:
    """The largest r whose As and Bs stay within budget; 0 if not even r = 1 does."""
    weights_per_rank = sum(d + k for d, k in shapes)
    return min(budget // weights_per_rank, *(min(d, k) for d, k in shapes))


BOUGHT, CAP = "budget // weights_per_rank", "*(min(d, k) for d, k in shapes)"

RANK_IN_BUDGET = Exercise(7, rank_in_budget, "★ What the budget buys · 5 min", """
To compare "LoRA on the queries" with "LoRA on everything" fairly, both must train equally many weights, as in table 5
of the LoRA paper. So which r does a budget buy? `shapes` lists the weight matrices as (d, k); each gets a B (d, r) and
an A (r, k), all with the same r. No r can be above the smaller side of a matrix.
""",
    cases=(([(20, 30)], 350), Case(([(128, 128)] * 4, 37_888), about="several matrices of one shape"),
           Case(([(20, 30)], 380), about="a budget that does not come out even"),
           Case(([(16, 24), (20, 15), (39, 16)], 700), about="matrices of different shapes"),
           Case(([(6, 6)], 1000), about="a budget for more ranks than the matrix has"),
           Case(([(9, 3)], 1000), about="a matrix that is taller than wide, and budget to spare"),
           Case(([(3, 9)], 1000), about="a matrix that is wider than tall, and budget to spare"),
           Case(([(7, 8), (2, 9), (8, 7)], 1000), about="a thin matrix among thick ones, and budget to spare"),
           Case(([(5, 8)], 12), about="a budget that does not buy r = 1")),
    hints=("One more rank adds one row to A and one column to B, in every matrix. How many weights is that?",
           "A row of A has k weights, a column of B has d: every rank costs `sum(d + k for d, k in shapes)`.",
           "`budget // cost` rounds down. Take the `min` of that and of the smaller sides."),
    mistakes=(
        Mistake("d * k counts the weights of the whole matrix. A and B have d + k for every rank.", ("d + k", "d * k")),
        Mistake("Only one of A and B is counted: each has weights for every rank.", ("d + k", "k"), ("d + k", "d")),
        Mistake("That spends the whole budget on one matrix. All of them share it.", ("sum(d + k", "max(d + k")),
        Mistake("Every matrix got the same share of the budget. They have the same r, and a larger matrix costs more.",
                (f"{BOUGHT}, {CAP}", "min(budget // len(shapes) // (d + k), d, k) for d, k in shapes")),
        Mistake("Rounded up: that r goes over the budget.", (BOUGHT, "-(-budget // weights_per_rank)")),
        Mistake("Rounded to the nearest: that can go over the budget.", (BOUGHT, "round(budget / weights_per_rank)")),
        Mistake("A rank is a whole number: `/` gives a float.", ("//", "/")),
        Mistake("One rank over the budget.", (BOUGHT, f"{BOUGHT} + 1")),
        Mistake("One rank too few: a budget may be spent exactly.", ("budget //", "(budget - 1) //")),
        Mistake("No rank is above the smaller side of a matrix.", (f"min({BOUGHT}, {CAP})", BOUGHT)),
        Mistake("Held at the larger side of a matrix: the rank ends at the smaller one.", ("(min(d, k)", "(max(d, k)")),
        Mistake("Held at one side of each matrix only: whichever is smaller ends the rank.",
                ("(min(d, k)", "(d"), ("(min(d, k)", "(k")),
        Mistake("Held at the smaller side of one matrix: r is the same for all, so the thinnest decides.",
                (CAP, "min(shapes[0])"), (CAP, f"max{CAP[1:]}")),
        Mistake("Not even r = 1 fits here, and 1 came.", (BOUGHT, f"max(1, {BOUGHT})")),
    ),
    draw=lambda rng: ([tuple(rng.choices(range(9, 40), k=2)) for _ in range(rng.randint(1, 4))], rng.randint(0, 999)),
    moral="37 for the queries alone, 7 for the feed-forward, 4 for all: the sweep of this lesson spends its budget so.")


def chance_similarity(i: int, j: int, k: int) -> float:
    """The mean of φ between random subspaces of i and of j dimensions, out of k."""
    return max(i, j) / k


CHANCE_SIMILARITY = Exercise(7, chance_similarity, "★★ Build: alike by chance · 6 min", """
How large is φ between two subspaces that know nothing of each other? X holds i orthonormal rows of k numbers, Y has j,
both drawn at random. A random unit vector of k dimensions has, on average, a share of j / k of its squared length
inside the subspace of Y, and ‖XYᵀ‖² adds up these squared lengths over the rows of X. Return φ's mean.
""",
    cases=((8, 8, 128),
           Case((8, 64, 128), about="subspaces of different dimension"),
           Case((64, 8, 128), about="an X with more rows than Y"),
           Case((8, 64, 12_288), about="GPT-3's width"),
           Case((1, 1, 64), about="two single directions"),
           Case((128, 5, 128), about="an X that spans the whole space")),
    hints=("‖XYᵀ‖² adds up, over the i rows of X, the squared length that lies in Y's subspace.",
           "On average that is i · j / k. Now divide as φ does.",
           "i · j / min(i, j) is the larger of the two."),
    mistakes=(
        Mistake("That is the mean of ‖XYᵀ‖². φ divides it by min(i, j), so that it ends at 1.", ("max(i, j)", "i * j")),
        Mistake("Divided by the larger of i and j; φ divides by the smaller, and the larger is left.", ("max", "min")),
        Mistake("i and j were added. φ divides the smaller of them away; the larger is left.",
                ("max(i, j)", "(i + j) / 2"), ("max(i, j)", "(i + j)")),
        Mistake("That holds in infinitely many dimensions only: in k they always share something.", ("max(i, j)", "0")),
        Mistake("φ adds up *squared* lengths: there is no root to take.", ("max(i, j) / k", "(max(i, j) / k) ** 0.5")),
        Mistake("Squared once too often: j / k is a share of the squared length.", ("j) / k", "j) ** 2 / k**2")),
        Mistake("The shares i / k and j / k were multiplied. Each of X's i rows has j / k; φ divides their sum.",
                ("max(i, j) / k", "i * j / k**2")),
        Mistake("φ is 1 only if the smaller subspace lies inside the larger one.", ("max(i, j) / k", "1.0")),
        Mistake("φ does not change when X and Y change places. Whichever is larger counts.",
                ("max(i, j)", "j"), ("max(i, j)", "i")),
        Mistake("The width k counts: in GPT-3's 12,288 chance makes much less likeness.", ("/ k", "/ 128")),
    ),
    draw=lambda rng: (rng.randint(1, k := rng.randint(1, 300)), rng.randint(1, k), k),
    moral="0.5 here, 0.005 in GPT-3: the same heat map, two different claims. Draw the chance map beside it.")
