//! Results of pure functions, kept for the next call: this affects speed, never results.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// Results that are kept.
const CACHED: usize = 8;

/// The last few results of a pure function, shared between threads.
#[derive(Debug)]
pub(crate) struct Cache<K, V>(Mutex<Kept<K, V>>);

#[derive(Debug)]
struct Kept<K, V> {
    values: BTreeMap<K, Arc<V>>,
    /// Keys in the order in which they came.
    order: VecDeque<K>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Cache(Mutex::new(Kept { values: BTreeMap::new(), order: VecDeque::new() }))
    }
}

impl<K: Ord + Copy, V> Cache<K, V> {
    /// The value of `key`, made by `make` if it is not there.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        // A poisoned lock is harmless: a value is found or made again.
        if let Some(hit) = self.0.lock().unwrap_or_else(PoisonError::into_inner).values.get(&key) {
            return Ok(hit.clone());
        }
        // Made outside the lock: two threads may make the same value, and it is the same.
        let made = Arc::new(make()?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.values.insert(key, made.clone()).is_none() {
            kept.order.push_back(key);
        }
        // Evict the oldest, not the smallest: readers at distant places must not evict each other's values.
        if kept.order.len() > CACHED {
            let oldest = kept.order.pop_front();
            oldest.and_then(|key| kept.values.remove(&key));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_at_distant_places_keep_their_values() {
        let cache = Cache::default();
        let made = std::cell::RefCell::new(Vec::new());
        let get = |key: u32| {
            let value = cache.get(key, || {
                made.borrow_mut().push(key);
                Ok(key * 2)
            });
            assert_eq!(*value.unwrap(), key * 2);
        };
        for step in 0..20 {
            for _ in 0..3 {
                get(step);
                get(1000 + step);
            }
        }
        let once: Vec<u32> = (0..20).flat_map(|step| [step, 1000 + step]).collect();
        assert_eq!(*made.borrow(), once);
    }
}
