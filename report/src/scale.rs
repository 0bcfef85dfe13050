//! From values to places in a picture, and the ticks of an axis.

/// Maps values to positions between two ends of an axis, linear or logarithmic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    /// An axis that covers all finite values; a logarithmic one all positive values. A single value gets some
    /// room around it.
    pub(crate) fn of(values: impl Iterator<Item = f64>, is_log: bool) -> Scale {
        let fits = |x: &f64| x.is_finite() && (!is_log || *x > 0.0);
        let (low, high) = values
            .filter(fits)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        match (low <= high, is_log) {
            (false, _) => {
                Scale { low: if is_log { 1.0 } else { 0.0 }, high: if is_log { 10.0 } else { 1.0 }, is_log }
            }
            (true, true) if low == high => Scale { low: low / 2.0, high: high * 2.0, is_log },
            (true, false) if low == high => {
                let room = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
                Scale { low: low - room, high: high + room, is_log }
            }
            (true, _) => Scale { low, high, is_log },
        }
    }

    /// The same with its ends moved out to the next ticks, and to zero if that is near.
    pub(crate) fn rounded(mut self, n_ticks: usize) -> Scale {
        if self.is_log {
            return self;
        }
        if self.low > 0.0 && self.low < 0.3 * self.high {
            self.low = 0.0;
        }
        let step = step(self.high - self.low, n_ticks);
        self.low = (self.low / step).floor() * step;
        self.high = (self.high / step).ceil() * step;
        self
    }

    /// Position of a value from 0 (low end) to 1 (high end); `None` if it has none.
    pub(crate) fn place(&self, x: f64) -> Option<f64> {
        if !x.is_finite() || self.is_log && x <= 0.0 {
            return None;
        }
        Some(match self.is_log {
            true => (x / self.low).ln() / (self.high / self.low).ln(),
            false => (x - self.low) / (self.high - self.low),
        })
    }

    /// About `n` round values along the axis.
    pub(crate) fn ticks(&self, n: usize) -> Vec<f64> {
        if self.is_log {
            let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            let decades: Vec<f64> = (first..=last).map(|power| 10f64.powi(power)).collect();
            if decades.len() > 2 {
                let every = decades.len().div_ceil(n);
                return decades.into_iter().step_by(every).collect();
            }
            let fine = (first - 1..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power)));
            let fine: Vec<f64> = fine.filter(|x| (self.low..=self.high).contains(x)).collect();
            return if fine.is_empty() { vec![self.low, self.high] } else { fine };
        }
        let step = step(self.high - self.low, n);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that a span has about `n` of them.
fn step(span: f64, n: usize) -> f64 {
    let rough = span / n as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        let scale = Scale::of([4.3, 8.3].into_iter(), false);
        assert_eq!(scale.ticks(5), [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(scale.rounded(5).ticks(5), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(
            Scale::of([1.0, 10_000.0].into_iter(), true).ticks(6),
            [1.0, 10.0, 100.0, 1000.0, 10_000.0]
        );
        assert_eq!(Scale::of([2.0, 6.0].into_iter(), true).ticks(6), [2.0, 5.0]);
        // Near zero the axis begins there.
        assert_eq!(Scale::of([0.1, 0.9].into_iter(), false).rounded(4).place(0.0), Some(0.0));
    }

    #[test]
    fn every_input_has_an_axis() {
        for is_log in [false, true] {
            for values in
                [vec![], vec![f64::NAN], vec![0.0], vec![5.0], vec![-3.0, -3.0], vec![f64::INFINITY, 2.0]]
            {
                let scale = Scale::of(values.iter().copied(), is_log).rounded(5);
                assert!(!scale.ticks(5).is_empty(), "{values:?}");
                assert!(scale.place(2.0).is_some_and(f64::is_finite), "{values:?}");
                assert_eq!(scale.place(f64::NAN), None);
            }
        }
    }
}
