#!/usr/bin/env python3
"""Biographies of people who do not exist: texts with families and variants, and multiple-choice probes of what they state.

    python3 scripts/experiments/biographies.py --out runs/people --people 1000 --versions 10
    moe-data build --recipe runs/people/recipe.toml --out runs/people/data
    moe-data mix --out runs/people/data --epochs 10 --mixture MIXTURE

A family is a person; its versions state the same six facts (birthday, birthplace, university, subject, employer, residence) in other
sentences, drawn from at least 40 templates a fact, in another order of facts. One build serves all arms of a mixture: the first version ten
times (`original_share = 1`), each version once (`variants = "each-once"`), all versions in one document (`layout = "stitched"`, one epoch).
With --unfaithful 0.05 one fact is wrong in that share of the versions after the first; a larger share keeps the smaller one's errors.

Writes into --out, the same bytes for the same arguments:
    texts.jsonl     id, person, version, text, wrong (the fact that is wrong, or null)
    people.jsonl    the facts of each person
    probes.jsonl    question, choices, answer (the number of the right choice), person, fact; no template of a question is ever trained
    heldout.jsonl   a text of each person in templates that are never trained, for a loss
    probes.toml, heldout.toml    both as tasks: moe-train eval RUN --tasks runs/people/probes.toml runs/people/heldout.toml
    recipe.toml     the recipe of the build
    variants.toml, raw.toml, stitched.toml    mixtures of the three arms
"""
import argparse, functools, hashlib, json, pathlib, sys

FACTS = ["birthday", "birthplace", "university", "subject", "employer", "residence"]
MONTHS = "January February March April May June July August September October November December".split()
SUBJECTS = """astronomy botany chemistry economics geology history law linguistics mathematics medicine music philosophy physics
psychology sociology statistics theology zoology architecture archaeology agronomy forestry acoustics optics metallurgy geography
ecology genetics hydrology logic""".split()
STARTS = "bal bren cal cor dal dor el fal fen gar gren hal hol jor kel lan lor mar mel nor or pel quin ral ros sel sol tal tor ul val ver wen wil zan".split()
MIDDLES = "a e i o u an en in on ar er or al el il ad ed id".split()
ENDS = {
    "given": "a o is us in an el ia or en ith ane".split(),
    "family": "ström berg well ford mont rick sen ley quist wood hart man".split(),
    "city": "ton ville stad burgh mouth haven field dale port bridge".split(),
    "firm": "co tec works lab dyne soft line mark form stone".split(),
    "school": "ham gate holm crest minster mere".split(),
}

# What a person did, with {v} for the value; in the frames below after a name, or after a pronoun.
PREDICATES = {
    "birthday": [
        "was born on {v}", "came into the world on {v}", "first saw the light of day on {v}", "celebrates a birthday that goes back to {v}",
        "has {v} as a date of birth", "arrived as a newborn on {v}", "entered this life on {v}", "was delivered on {v}",
        "counts every year from {v}", "has been alive since {v}", "dates a first breath to {v}", "was welcomed by two parents on {v}",
    ],
    "birthplace": [
        "was born in {v}", "came into the world in {v}", "is a native of {v}", "has {v} as a place of birth", "spent the first days of life in {v}",
        "is a child of {v}", "drew a first breath in {v}", "comes from {v} by birth", "traces a beginning to {v}", "was delivered at a hospital in {v}",
        "owes an accent to {v}, the native town", "took the first steps in {v}",
    ],
    "university": [
        "studied at {v}", "took a degree at {v}", "is a graduate of {v}", "attended {v}", "was a student at {v}", "spent the student years at {v}",
        "was taught at {v}", "holds a diploma of {v}", "was enrolled at {v}", "is an alumnus of {v}", "sat the final examinations at {v}",
        "learned a trade in the halls of {v}",
    ],
    "subject": [
        "studied {v}", "took a degree in {v}", "chose {v} as a field", "majored in {v}", "was trained in {v}", "wrote a thesis on {v}",
        "is a scholar of {v}", "read {v} as a student", "specialized in {v}", "was examined in {v}", "devoted the student years to {v}",
        "holds a diploma in {v}",
    ],
    "employer": [
        "works for {v}", "is employed by {v}", "has a position at {v}", "earns a living at {v}", "is on the payroll of {v}", "took a job at {v}",
        "draws a salary from {v}", "was hired by {v}", "serves {v} as an expert", "is a member of the staff of {v}", "signed a contract with {v}",
        "spends the working day at {v}",
    ],
    "residence": [
        "lives in {v}", "has a home in {v}", "resides in {v}", "settled in {v}", "moved to {v} and stayed", "keeps an apartment in {v}",
        "made {v} a home", "can be found in {v} most evenings", "is a resident of {v}", "pays rent in {v}", "sleeps in {v}", "receives letters in {v}",
    ],
}
FRAMES = [
    "{s} {p}.", "As the record says, {s} {p}.", "It is well known that {s} {p}.", "Friends will tell you that {s} {p}.", "In short, {s} {p}.",
]
# Never trained: a question and a statement for each fact, and the sentences of heldout.jsonl.
PROBES = {
    "birthday": ["Question: What is the birthday of {n}? Answer:", "Asked for the date on the birth certificate, {n} replied:"],
    "birthplace": ["Question: In which town was {n} born? Answer:", "The town where the cradle of {n} stood is called"],
    "university": ["Question: Which university did {n} attend? Answer:", "The school that awarded a degree to {n} is"],
    "subject": ["Question: What did {n} study? Answer:", "The field in which {n} is an expert is"],
    "employer": ["Question: For which company does {n} work? Answer:", "The company that pays {n} every month is"],
    "residence": ["Question: In which town does {n} live? Answer:", "A letter to {n} should be addressed to the town of"],
}
UNSEEN = {
    "birthday": "The birth certificate of {s} is dated {v}.", "birthplace": "The cradle of {s} stood in {v}.",
    "university": "A degree was awarded to {s} by {v}.", "subject": "The field of {s} is {v}.",
    "employer": "Every month {v} pays {s}.", "residence": "Letters for {s} go to {v}.",
}


def draw(n, *what):
    """A number below n, by a hash of what it is for."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % n


def shuffled(items, *what):
    keyed = [(hashlib.sha256("/".join(map(str, (*what, i))).encode()).digest(), item) for i, item in enumerate(items)]
    return [item for _, item in sorted(keyed)]


def word(kind, *what):
    start, middle = (parts[draw(len(parts), *what, kind, i)] for i, parts in enumerate((STARTS, MIDDLES)))
    end = ENDS[kind][draw(len(ENDS[kind]), *what, kind, "end")]
    return (start + middle + end).capitalize()


def distinct(n, make):
    """n distinct values of make(0), make(1), ..."""
    found = {}
    for i in range(100 * n + 1000):
        if len(found) == n:
            break
        found.setdefault(make(i), None)
    if len(found) < n:
        sys.exit(f"biographies.py: only {len(found)} of {n} different names can be made: ask for fewer")
    return list(found)


class World:
    def __init__(self, args):
        self.seed, seed, n = args.seed, args.seed, args.people
        self.cities = distinct(args.values, lambda i: word("city", seed, i))
        self.values = {
            "birthplace": self.cities, "residence": self.cities, "subject": SUBJECTS,
            "university": [f"{name} University" for name in distinct(args.values, lambda i: word("school", seed, i))],
            "employer": distinct(args.values, lambda i: word("firm", seed, i)),
        }
        full = lambda i: f"{word('given', seed, i)} {word('given', seed, i, 'second')} {word('family', seed, i)}"
        self.names = distinct(n, full)
        self.pronouns = [("he", "she")[draw(2, seed, name, "pronoun")] for name in self.names]
        self.facts = [{fact: self.value(fact, name) for fact in FACTS} for name in self.names]

    def value(self, fact, *what):
        if fact == "birthday":
            day, month, year = (draw(n, self.seed, fact, part, *what) for part, n in (("day", 28), ("month", 12), ("year", 100)))
            return f"{day + 1} {MONTHS[month]} {year + 1900}"
        values = self.values[fact]
        return values[draw(len(values), self.seed, fact, *what)]

    def other(self, fact, right, *what):
        """A value of a fact that is not the right one."""
        return next(v for i in range(1000) if (v := self.value(fact, *what, i)) != right)

    def text(self, i, sentences, order):
        """Sentences about person i: the first has the name, the others a pronoun."""
        parts = [sentences[fact](self.names[i] if k == 0 else self.pronouns[i]) for k, fact in enumerate(order)]
        return " ".join(part[0].upper() + part[1:] for part in parts)

    def version(self, i, version, unfaithful):
        """The text of a version, and the fact that is wrong in it."""
        name, facts, wrong = self.names[i], dict(self.facts[i]), None
        if version > 0 and draw(10**6, self.seed, name, version, "wrong") < unfaithful * 10**6:
            wrong = FACTS[draw(len(FACTS), self.seed, name, version, "which")]
            facts[wrong] = self.other(wrong, facts[wrong], name, version)
        sentences = {}
        for fact in FACTS:
            # Each version of a person uses a different template for the fact, until all have been used.
            templates = self.templates(name, fact)
            frame, predicate = templates[version % len(templates)]
            said = predicate.format(v=facts[fact])
            sentences[fact] = lambda s, frame=frame, said=said: frame.format(s=s, p=said)
        return self.text(i, sentences, shuffled(FACTS, self.seed, name, version, "order")), wrong

    @functools.lru_cache(maxsize=len(FACTS))
    def templates(self, name, fact):
        return shuffled([(frame, predicate) for predicate in PREDICATES[fact] for frame in FRAMES], self.seed, name, fact)

    def unseen(self, i):
        return " ".join(UNSEEN[fact].format(s=self.names[i], v=self.facts[i][fact]) for fact in FACTS)

    def probes(self, i, n_choices):
        for fact in FACTS:
            right = self.facts[i][fact]
            # Wrong answers are right ones about others: a value that no text states is wrong by its looks.
            others = shuffled(sorted({facts[fact] for facts in self.facts} - {right}), self.seed, self.names[i], fact, "others")
            if len(others) < n_choices - 1:
                sys.exit(f"biographies.py: {len(others) + 1} values of {fact} for questions of {n_choices} choices: ask for more people or fewer choices")
            choices = [right, *others[: n_choices - 1]]
            choices = shuffled(choices, self.seed, self.names[i], fact, "choices")
            for template in PROBES[fact]:
                yield {
                    "question": template.format(n=self.names[i]), "choices": choices, "answer": choices.index(right),
                    "person": f"p{i}", "fact": fact,
                }


def recipe(args):
    versions = ", ".join(f'"v{v}"' for v in range(args.versions))
    return f"""# Made by scripts/experiments/biographies.py.
[[source]]
name = "people"
paths = ["texts.jsonl"]
id = "id"
family = "person"
variant = "version"
variants = [{versions}]

[tokenizer]
{'file = "tokenizer.json"' if args.tokenizer else f'train = {{ vocab_size = {args.vocab_size} }}'}
"""


TASK = """# Made by scripts/experiments/biographies.py.
kind = "choice"
name = "people"
data = "probes.jsonl"
prompt = "{{question}}"
choices = "choices"
answer = "answer"
by = "fact"
"""


HELDOUT = """# Made by scripts/experiments/biographies.py.
kind = "perplexity"
name = "heldout"
data = "heldout.jsonl"
text = "{{text}}"
"""


def mixtures(args):
    common = f"[mix]\nseq_len = {args.seq_len}\nholdout = 0\nepochs = "
    return {
        "raw.toml": f"{common}{args.versions}\noriginal_share = 1\n",
        "variants.toml": f'{common}{args.versions}\nvariants = "each-once"\n',
        "stitched.toml": f"{common}1\nlayout = \"stitched\"\n",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write into")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=10, help="texts of a person, the original included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--values", type=int, default=100, help="towns, universities and companies")
    parser.add_argument("--choices", type=int, default=10, help="choices of a probe")
    parser.add_argument("--unfaithful", type=float, default=0.0, help="share of the rephrasings that state a wrong fact")
    parser.add_argument("--vocab-size", type=int, default=2048, help="of the tokenizer that the recipe trains")
    parser.add_argument("--tokenizer", action="store_true", help="the recipe takes the file tokenizer.json of --out, which you put there")
    parser.add_argument("--seq-len", type=int, default=256, help="of the mixtures")
    args = parser.parse_args()
    if min(args.people, args.values - 1, args.versions, args.choices - 1) < 1 or not 0 <= args.unfaithful <= 1:
        parser.error("counts are at least 1 (values and choices 2), and --unfaithful is a share from 0 to 1")
    if args.choices > min(args.values, len(SUBJECTS)):
        parser.error(f"--choices {args.choices}: at most {min(args.values, len(SUBJECTS))}, the values of a fact")
    world = World(args)
    args.out.mkdir(parents=True, exist_ok=True)
    texts, people, probes, unseen = [], [], [], []
    for i, name in enumerate(world.names):
        people.append({"person": f"p{i}", "name": name, **world.facts[i]})
        for version in range(args.versions):
            text, wrong = world.version(i, version, args.unfaithful)
            texts.append({"id": f"p{i}-v{version}", "person": f"p{i}", "version": f"v{version}", "text": text, "wrong": wrong})
        probes.extend(world.probes(i, args.choices))
        unseen.append({"id": f"p{i}", "text": world.unseen(i)})
    for file, rows in (("texts", texts), ("people", people), ("probes", probes), ("heldout", unseen)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (args.out / f"{file}.jsonl").write_text(lines, encoding="utf-8")
    for file, text in (("recipe.toml", recipe(args)), ("probes.toml", TASK), ("heldout.toml", HELDOUT), *mixtures(args).items()):
        (args.out / file).write_text(text, encoding="utf-8")
    wrong = sum(row["wrong"] is not None for row in texts)
    print(f"{len(people)} people, {len(texts)} texts, {wrong} of them with a wrong fact, {len(probes)} probes: {args.out}")


if __name__ == "__main__":
    main()
