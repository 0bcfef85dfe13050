//! Memory that a thread reuses.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Buffers that a thread keeps.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of f32 values, which goes back to the thread that drops it.
#[derive(Debug)]
pub struct Scratch {
    values: Vec<f32>,
    n: usize,
}

impl Scratch {
    /// `n` arbitrary values.
    pub fn of(n: usize) -> Self {
        let mut values = FREE.with_borrow_mut(|free| {
            let fit = (0..free.len()).filter(|&i| free[i].len() >= n).min_by_key(|&i| free[i].len());
            match fit {
                Some(index) => free.swap_remove(index),
                None => free.pop().unwrap_or_default(),
            }
        });
        if values.len() < n {
            // The contents of a smaller one need not be copied.
            values = vec![0.0; n];
        }
        Self { values, n }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT && !values.is_empty() {
                free.push(values);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.n]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.n]
    }
}
