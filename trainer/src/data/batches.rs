//! How many samples each step takes: the same number always, or fewer at the start (`data.batch_ramp`). It is
//! a pure function of the step number, so that a resumed run, and any run of the same configuration, takes
//! the same samples.

/// Samples of the steps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches(Vec<Part>);

/// Steps that take the same number of samples each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first_step: u64,
    /// Samples of the steps before.
    before: u64,
    batch: u64,
}

impl Batches {
    /// Steps of `batch` samples after those of a ramp, each of whose entries is as in `2 until step 100` or
    /// `4 until sample 2000`.
    ///
    /// # Errors
    /// The first entry that is invalid, and why.
    pub fn new(ramp: &[String], batch: usize) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let (mut first_step, mut before) = (0, 0);
        for entry in ramp {
            let refused = |why: String| Err(format!("data.batch_ramp: {entry:?}: {why}"));
            let Some((size, until)) = parse(entry) else {
                return refused(
                    "expected something like \"2 until step 100\" or \"4 until sample 2000\"".into(),
                );
            };
            let n_steps = match until {
                Until::Step(step) => step.saturating_sub(first_step),
                // The step that contains the sample is the last one.
                Until::Sample(sample) => sample.saturating_sub(before).div_ceil(size),
            };
            if n_steps == 0 {
                return refused(format!("ends where it begins, at step {first_step} and sample {before}"));
            }
            parts.push(Part { first_step, before, batch: size });
            first_step += n_steps;
            before =
                size.checked_mul(n_steps).and_then(|samples| before.checked_add(samples)).unwrap_or(u64::MAX);
        }
        parts.push(Part { first_step, before, batch: batch as u64 });
        let is_no_multiple =
            |pair: &&[Part]| pair[1].batch <= pair[0].batch || !pair[1].batch.is_multiple_of(pair[0].batch);
        if let Some(pair) = parts.windows(2).find(is_no_multiple) {
            return Err(format!(
                "data.batch_ramp: {} samples follow {}; each batch must be a multiple of the one before, and data.batch = \
                 {batch} of the last",
                pair[1].batch, pair[0].batch
            ));
        }
        Ok(Self(parts))
    }

    /// Samples of a step, from 0.
    pub fn size(&self, step: u64) -> usize {
        self.part(step).batch as usize
    }

    /// Samples of all steps before one.
    pub fn before(&self, step: u64) -> u64 {
        let part = self.part(step);
        part.before.saturating_add((step - part.first_step).saturating_mul(part.batch))
    }

    /// Samples of steps `from..to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        self.before(to).saturating_sub(self.before(from))
    }

    /// Whole steps from step `from` on for which `n` samples are enough.
    pub fn steps(&self, from: u64, n: u64) -> u64 {
        let end = self.before(from).saturating_add(n);
        let part = self.0.iter().rev().find(|part| part.before <= end).unwrap_or(&self.0[0]);
        (part.first_step + (end - part.before) / part.batch).saturating_sub(from)
    }

    /// Whether steps differ in size.
    pub fn is_ramp(&self) -> bool {
        self.0.len() > 1
    }

    fn part(&self, step: u64) -> &Part {
        // The first begins at step 0.
        self.0.iter().rev().find(|part| part.first_step <= step).unwrap_or(&self.0[0])
    }
}

enum Until {
    Step(u64),
    Sample(u64),
}

fn parse(entry: &str) -> Option<(u64, Until)> {
    let words: Vec<&str> = entry.split_whitespace().collect();
    let [size, "until", unit, end] = words[..] else { return None };
    let (size, end) = (size.parse().ok().filter(|size| *size > 0)?, end.parse().ok()?);
    match unit {
        "step" => Some((size, Until::Step(end))),
        "sample" => Some((size, Until::Sample(end))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(ramp: &[&str], batch: usize) -> Result<Batches, String> {
        Batches::new(&ramp.iter().map(|entry| (*entry).to_string()).collect::<Vec<_>>(), batch)
    }

    #[test]
    fn a_ramp_by_hand() {
        // Steps 0..3 take 2 samples, steps 3..5 take 4: the second of them holds sample 13, the last before
        // 13 is 12.
        let ramp = batches(&["2 until step 3", "4 until sample 13"], 8).expect("a ramp");
        assert_eq!((0..7).map(|step| ramp.size(step)).collect::<Vec<_>>(), [2, 2, 2, 4, 4, 8, 8]);
        assert_eq!((0..8).map(|step| ramp.before(step)).collect::<Vec<_>>(), [0, 2, 4, 6, 10, 14, 22, 30]);
        assert_eq!((ramp.between(2, 6), ramp.is_ramp()), (18, true));
        let steps = |from, n| ramp.steps(from, n);
        assert_eq!(
            [steps(0, 0), steps(0, 1), steps(0, 5), steps(0, 13), steps(0, 14), steps(0, 29)],
            [0, 0, 2, 4, 5, 6]
        );
        // From step 4 on 4 + 8 + 8 samples.
        assert_eq!([steps(4, 3), steps(4, 19), steps(4, 20)], [0, 2, 3]);
    }

    #[test]
    fn without_a_ramp_all_steps_are_alike() {
        let plain = batches(&[], 3).expect("no ramp");
        assert_eq!((plain.size(9), plain.before(9), plain.steps(0, 50), plain.is_ramp()), (3, 27, 16, false));
        assert_eq!(plain.before(u64::MAX), u64::MAX);
    }

    #[test]
    fn invalid_ramps_are_refused() {
        let problem = |ramp: &[&str]| batches(ramp, 8).expect_err("a problem");
        for entry in ["2", "2 until 5", "2 until token 5", "0 until step 5", "2 until step x"] {
            assert!(problem(&[entry]).contains(&format!("{entry:?}: expected something like")), "{entry}");
        }
        assert!(problem(&["2 until step 3", "4 until step 3"]).contains("at step 3 and sample 6"));
        assert!(problem(&["3 until step 3"]).contains("8 samples follow 3"));
        assert!(problem(&["8 until step 3"]).contains("8 samples follow 8"));
    }
}
