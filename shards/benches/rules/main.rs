//! The rules of mixing side by side: how far the prefix of a plan is from its weights, how soon a document
//! comes back, and what a rank's slice of a batch looks like. Nothing is timed, so the output is the same
//! everywhere:
//!
//! ```text
//! cargo bench -p moe-shards --bench rules -- --figure docs/benchmarks/mixing-rules.svg
//! ```

mod figure;
mod interleavings;
mod orders;
#[path = "../support/mod.rs"]
mod support;

use figure::{Axis, Panel};
use moe_shards::permute::mix64;

use interleavings::{RULES, quotas, worst_slice, worst_so_far};
use orders::{ORDERS, gaps, repeated_neighbours, seen_after_one_epoch};

const STEPS: u64 = 200_000;
const DOCUMENTS: u32 = 100_000;
const EPOCHS: u32 = 4;

/// Mixtures that are drawn for each number of sources.
const MIXTURES: u64 = 20;

/// Quotas of a random skewed mixture: a factor of 470 between the 2nd and the 98th percentile of the weights.
fn skewed(k: u64, mixture: u64) -> Vec<u64> {
    let weight = |i| {
        let uniform = |j| (mix64(mix64(mixture * 1000 + i) ^ j) >> 11) as f64 / (1u64 << 53) as f64;
        // The sum of twelve uniform numbers is close enough to normal.
        let normal = (0..12).map(uniform).sum::<f64>() - 6.0;
        (1.5 * normal).exp()
    };
    let weights: Vec<f64> = (0..k).map(weight).collect();
    quotas(&weights, STEPS)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "Worst deviation from the weights at any prefix, in samples: the worst of {MIXTURES} random skewed mixtures, \
         {STEPS} steps each.\n"
    );
    println!("| rule | k = 2 | k = 8 | k = 50 |\n| --- | ---: | ---: | ---: |");
    let mut curves = Vec::new();
    for rule in &RULES {
        let mut cells = Vec::new();
        for k in [2, 8, 50] {
            let mut worst = vec![0.0; STEPS as usize];
            for mixture in 0..MIXTURES {
                let quotas = skewed(k, mixture);
                let so_far = worst_so_far(&quotas, &(rule.run)(&quotas));
                worst.iter_mut().zip(so_far).for_each(|(w, d)| *w = f64::max(*w, d));
            }
            cells.push(format!("{:.3}", worst[worst.len() - 1]));
            if k == 50 {
                curves.push((rule.name, thinned(&worst)));
            }
        }
        println!("| {} | {} |", rule.name, cells.join(" | "));
    }

    println!(
        "\nA rank's slice of a batch, worst distance from the weights in samples (weights 8:4:2:2, batches of 512,"
    );
    println!("16 ranks with 32 samples each):\n");
    println!("| rule | contiguous | strided |\n| --- | ---: | ---: |");
    let weights = quotas(&[8.0, 4.0, 2.0, 2.0], 512 * 100);
    for rule in &RULES {
        let order = (rule.run)(&weights);
        let worst = |strided| worst_slice(&weights, &order, 512, 16, strided);
        println!("| {} | {:.1} | {:.1} |", rule.name, worst(false), worst(true));
    }

    println!("\n{EPOCHS} epochs over {DOCUMENTS} documents:\n");
    println!(
        "| order | least gap between two sightings | repeats within 1 % of an epoch | seen after one epoch | neighbours kept in the next epoch |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    let mut distributions = Vec::new();
    for order in &ORDERS {
        let shown = (order.run)(DOCUMENTS, EPOCHS);
        let gaps = gaps(DOCUMENTS, &shown);
        let close = gaps.partition_point(|&gap| gap < 0.01) as f64 / gaps.len() as f64;
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        println!(
            "| {} | {:.5} of an epoch | {} | {} | {} |",
            order.name,
            gaps[0],
            percent(close),
            percent(seen_after_one_epoch(DOCUMENTS, &shown)),
            percent(repeated_neighbours(DOCUMENTS, &shown)),
        );
        let share = |gap: f64| gaps.partition_point(|&g| g <= gap) as f64 / gaps.len() as f64 * 100.0;
        distributions
            .push((order.name, (0..=400).map(|i| f64::from(i) / 200.0).map(|x| (x, share(x))).collect()));
    }

    println!("\nDefinitions:\n");
    let rules = RULES.iter().map(|rule| (rule.name, rule.source));
    for (name, source) in rules.chain(ORDERS.iter().map(|order| (order.name, order.source))) {
        println!("- {name}: {source}");
    }
    if let Some(path) = support::option("--figure") {
        std::fs::write(path, figure::draw(&[deviation(curves), sightings(distributions)]))?;
    }
    Ok(())
}

/// Points of a curve over 1, 2, 3, ..., spaced for a logarithmic axis.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut t = 1.0f64;
    while (t as usize) <= values.len() {
        points.push((t.floor(), values[t as usize - 1]));
        t = f64::max(t + 1.0, t * 1.03);
    }
    points
}

fn deviation(lines: Vec<(&'static str, Vec<(f64, f64)>)>) -> Panel {
    Panel {
        title: "Distance from the weights, worst of 20 mixtures of 50",
        x: Axis {
            label: "samples shown",
            range: (1.0, STEPS as f64),
            logarithmic: true,
            ticks: &[
                (1.0, "1"),
                (10.0, "10"),
                (100.0, "100"),
                (1e3, "1,000"),
                (1e4, "10,000"),
                (1e5, "100,000"),
            ],
        },
        y: Axis {
            label: "worst deviation so far (samples)",
            range: (0.5, 500.0),
            logarithmic: true,
            ticks: &[
                (0.5, "0.5"),
                (1.0, "1"),
                (3.0, "3"),
                (10.0, "10"),
                (30.0, "30"),
                (100.0, "100"),
                (300.0, "300"),
            ],
        },
        lines,
    }
}

fn sightings(lines: Vec<(&'static str, Vec<(f64, f64)>)>) -> Panel {
    Panel {
        title: "How soon a document comes back, 4 epochs",
        x: Axis {
            label: "distance between two sightings (epochs)",
            range: (0.0, 2.0),
            logarithmic: false,
            ticks: &[(0.0, "0"), (0.5, "0.5"), (1.0, "1"), (1.5, "1.5"), (2.0, "2")],
        },
        y: Axis {
            label: "repeats at most that far apart (%)",
            range: (0.0, 100.0),
            logarithmic: false,
            ticks: &[(0.0, "0"), (25.0, "25"), (50.0, "50"), (75.0, "75"), (100.0, "100")],
        },
        lines,
    }
}
