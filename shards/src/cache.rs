//! Results of pure functions, kept for the next call: they change its speed, never its result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// Results that are kept.
const CACHED: usize = 8;

/// The last few results of a pure function, shared between threads.
#[derive(Debug)]
pub(crate) struct Cache<K, V>(Mutex<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Cache(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Ord + Copy, V> Cache<K, V> {
    /// The value of `key`, made by `make` if it is not there.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        // A poisoned lock is harmless: entries are inserted whole.
        if let Some(hit) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(hit.clone());
        }
        // Made outside the lock: two threads may make the same value, and it is the same.
        let made = Arc::new(make()?);
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            // Samples are asked for in ascending order, so the smallest key is the oldest.
            cache.pop_first();
        }
        cache.insert(key, made.clone());
        Ok(made)
    }
}
