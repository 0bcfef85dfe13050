//! Compares MinHash with labeled pairs: how many of the pairs at each Jaccard index become
//! candidates, how many of these verification keeps, and what would be removed without it.
//! `scripts/bench/dedup-truth.sh` runs it; the output is Markdown.
//!
//! A truth file is tab-separated with a heading line: Jaccard index, id, id. The documents are
//! `.jsonl.gz` files with `id` and `text`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Parser;
use flate2::read::MultiGzDecoder;
use moe_data::dedup::minhash::signature::{
    Profile, SketchConfig, Sketcher, candidate_probability, jaccard, overlap,
};

#[derive(Parser)]
struct Args {
    /// Name of the collection, for the heading.
    #[arg(long)]
    name: String,
    /// True pairs.
    #[arg(long)]
    truth: PathBuf,
    /// Jaccard index from which a pair counts as duplicates.
    #[arg(long, default_value_t = 0.7)]
    threshold: f64,
    /// Files of the collection.
    documents: Vec<PathBuf>,
}

type Failure = Box<dyn std::error::Error>;

fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>>, Failure> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn BufRead> = match is_gzip {
        true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        false => Box::new(BufReader::new(file)),
    };
    Ok(reader.lines())
}

/// Ids with texts, in the order of the files.
fn documents(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        for line in lines(path)? {
            let value: serde_json::Value = serde_json::from_str(&line?)?;
            let field = |name: &str| {
                let field = value[name].as_str().map(str::to_owned);
                field.ok_or_else(|| format!("{}: a document without `{name}`", path.display()))
            };
            documents.push((field("id")?, field("text")?));
        }
    }
    Ok(documents)
}

/// The results of one profile on the collection.
struct Sketched {
    sets: Vec<Vec<u64>>,
    keys: Vec<Vec<u64>>,
}

impl Sketched {
    fn new(config: &SketchConfig, documents: &[(String, String)]) -> Sketched {
        let mut sketcher = Sketcher::new(config);
        let sets = documents.iter().map(|(_, text)| sketcher.set(text).to_vec()).collect();
        let keys = documents.iter().map(|(_, text)| {
            let mut keys = Vec::new();
            sketcher.keys(text, &mut keys);
            keys
        });
        Sketched { sets, keys: keys.collect() }
    }

    fn is_candidate(&self, a: usize, b: usize) -> bool {
        self.keys[a].iter().zip(&self.keys[b]).any(|(a, b)| a == b)
    }

    fn jaccard(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.sets[a], &self.sets[b]);
        jaccard(overlap(a, b), a.len(), b.len())
    }

    /// All pairs that share a band key.
    fn candidates(&self) -> BTreeSet<(usize, usize)> {
        let mut bands: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (document, keys) in self.keys.iter().enumerate() {
            keys.iter().for_each(|key| bands.entry(*key).or_default().push(document));
        }
        let pairs = bands.values().flat_map(|members| {
            members.iter().enumerate().flat_map(|(n, a)| members[n + 1..].iter().map(|b| (*a, *b)))
        });
        pairs.filter(|(a, b)| a != b).collect()
    }
}

/// Documents that a run without verification removes: all but one of each connected component.
fn removed_unverified(n: usize, pairs: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..n).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    for (a, b) in pairs {
        let (a, b) = (root(&mut parent, *a), root(&mut parent, *b));
        parent[a.max(b)] = a.min(b);
    }
    (0..n).filter(|i| root(&mut parent, *i) != *i).collect()
}

/// Documents that are similar, by exact comparison, to an earlier one that stays.
fn removed_verified(sketched: &Sketched, pairs: &BTreeSet<(usize, usize)>, threshold: f64) -> Vec<usize> {
    let mut earlier: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    pairs.iter().for_each(|(a, b)| earlier.entry(*b).or_default().push(*a));
    let mut removed = BTreeSet::new();
    for (document, candidates) in earlier {
        let is_like =
            |other: &usize| !removed.contains(other) && sketched.jaccard(*other, document) >= threshold;
        if candidates.iter().any(is_like) {
            removed.insert(document);
        }
    }
    removed.into_iter().collect()
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let documents = documents(&args.documents)?;
    let numbers: BTreeMap<&str, usize> =
        documents.iter().enumerate().map(|(number, (id, _))| (id.as_str(), number)).collect();
    let mut truth = Vec::new();
    for line in lines(&args.truth)?.skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let [similarity, left, right] = fields[..] else {
            return Err(format!("{}: not three columns: {line}", args.truth.display()).into());
        };
        let number = |id: &str| numbers.get(id).copied().ok_or_else(|| format!("no document `{id}`"));
        truth.push((similarity.parse::<f64>()?, number(left)?, number(right)?));
    }
    let configs = [Profile::Native, Profile::Datatrove].map(|profile| SketchConfig {
        profile,
        ngram: 5,
        bands: 14,
        rows: 8,
        seed: 1,
    });
    let sketched = configs.map(|config| Sketched::new(&config, &documents));
    let threshold = args.threshold;

    println!("### {}: {} documents, {} pairs\n", args.name, documents.len(), truth.len());
    println!(
        "| Jaccard | pairs | S-curve | native: candidates | verified | datatrove: candidates | verified |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut bins: BTreeMap<u32, Vec<&(f64, usize, usize)>> = BTreeMap::new();
    truth.iter().for_each(|pair| bins.entry((pair.0 * 20.0 + 1e-9) as u32).or_default().push(pair));
    for (bin, pairs) in &bins {
        let curve: f64 = pairs.iter().map(|pair| candidate_probability(pair.0, 14, 8)).sum();
        let mut cells = Vec::new();
        for sketched in &sketched {
            let found: Vec<_> = pairs.iter().filter(|(_, a, b)| sketched.is_candidate(*a, *b)).collect();
            let verified = found.iter().filter(|(_, a, b)| sketched.jaccard(*a, *b) >= threshold).count();
            cells.push(format!("{} | {verified}", found.len()));
        }
        let from = f64::from(*bin) / 20.0;
        println!("| {from:.2}.. | {} | {curve:.1} | {} |", pairs.len(), cells.join(" | "));
    }

    println!("\n| | native | datatrove |\n| --- | ---: | ---: |");
    let alike: Vec<_> = truth.iter().filter(|pair| pair.0 >= threshold).collect();
    let row = |name: &str, value: &dyn Fn(&Sketched) -> String| {
        println!("| {name} | {} | {} |", value(&sketched[0]), value(&sketched[1]));
    };
    let name = format!("pairs from {threshold} on that are candidates");
    row(&name, &|sketched| {
        let found = alike.iter().filter(|(_, a, b)| sketched.is_candidate(*a, *b)).count();
        format!("{found} of {}", alike.len())
    });
    row("all candidates, labeled or not", &|sketched| sketched.candidates().len().to_string());
    row("of these below the threshold", &|sketched| {
        let candidates = sketched.candidates();
        candidates.iter().filter(|(a, b)| sketched.jaccard(*a, *b) < threshold).count().to_string()
    });
    row("removed without verification", &|sketched| {
        removed_unverified(documents.len(), &sketched.candidates()).len().to_string()
    });
    row("removed with verification", &|sketched| {
        removed_verified(sketched, &sketched.candidates(), threshold).len().to_string()
    });
    row("removed without verification though nothing kept is alike", &|sketched| {
        let removed = removed_unverified(documents.len(), &sketched.candidates());
        let is_wrong = |document: &&usize| {
            let like = |other: usize| {
                other != **document
                    && removed.binary_search(&other).is_err()
                    && sketched.jaccard(other, **document) >= threshold
            };
            !(0..documents.len()).any(like)
        };
        removed.iter().filter(is_wrong).count().to_string()
    });
    println!();
    Ok(())
}
