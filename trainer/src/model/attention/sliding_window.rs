//! Sliding-window attention (Beltagy et al. 2020, arXiv 2004.05150, section 3.1; causal as in Jiang et al.
//! 2023, arXiv 2310.06825, section 2): grouped-query attention in which a token sees only the last tokens of
//! its document.

use super::grouped_query::{GroupedQuery, GroupedQuerySettings};
use super::{Attend, Place};
use crate::model::cost::Cost;
use crate::model::init::Init;
use crate::settings;
use crate::settings::{Key, MANY, Section, Values, int};

settings! {
    /// The window.
    pub struct WindowSettings in "attention.swa" {
        /// tokens that a token sees, including itself
        window: usize = 512, int(1, MANY);
    }
}

/// Grouped-query attention over a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SlidingWindowSettings {
    /// The window.
    pub window: WindowSettings,
    /// Its heads, the same as in blocks with full attention.
    pub heads: GroupedQuerySettings,
}

impl SlidingWindowSettings {
    /// Keys that a query is compared with, and how many of them it sees on average.
    fn keys_of_query(&self, seq_len: usize) -> (u64, f64) {
        let (window, seq) = (self.window.window.min(seq_len), seq_len);
        let seen = window as f64 - (window as f64).powi(2) / (2.0 * seq.max(1) as f64);
        (window.saturating_mul(2).min(seq) as u64, seen)
    }
}

impl Attend for SlidingWindowSettings {
    type Layer = GroupedQuery;

    fn keys() -> Vec<Key> {
        [<GroupedQuerySettings as Section>::keys(), WindowSettings::keys()].concat()
    }

    fn read(values: &dyn Values) -> Result<Self, String> {
        Ok(Self { window: settings::read(values)?, heads: settings::read(values)? })
    }

    fn build(&self, place: Place, name: &str, init: &Init) -> GroupedQuery {
        self.heads.layer(Some(self.window.window), place, name, init)
    }

    fn problems(&self, d_model: usize) -> Vec<String> {
        self.heads.all_problems(d_model)
    }

    fn cost(&self, d_model: usize, seq_len: usize) -> Cost {
        let (compared, seen) = self.keys_of_query(seq_len);
        self.heads.cost_of(d_model, compared, seen)
    }

    fn head_dim(&self, d_model: usize) -> usize {
        self.heads.dim(d_model)
    }

    fn rotary(&self, d_model: usize) -> Option<(usize, f64)> {
        self.heads.turned(d_model, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_compared_with_two_blocks() {
        let of = |window, seq| {
            let window = WindowSettings { window };
            SlidingWindowSettings { window, ..SlidingWindowSettings::default() }.keys_of_query(seq)
        };
        // Of 8 tokens, the first sees 1 and the others 2, which is 2 - 4 / 16 apart from the tokens
        // themselves.
        assert_eq!(of(2, 8), (4, 1.75));
        // A window of the whole sequence has no effect: half of it on average.
        assert_eq!(of(8, 8), (8, 4.0));
        assert_eq!(of(6, 8), (8, 6.0 - 36.0 / 16.0));
    }
}
