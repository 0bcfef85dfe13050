//! The chain of digests that gives a plan its id, and shows how far two plans are the same.

use std::path::PathBuf;

use super::{PhaseLock, PlanLock};
use crate::error::{Error, Result};
use crate::hash::Hash;

/// Version of the permutation and of the interleaving rule, which all plans so far share. It starts the chain
/// instead of the schema's version, so that an extension with newer features keeps the chain of the older
/// plan.
const RULES_VERSION: u32 = 1;

impl PlanLock {
    /// Computes the version, the chain and the id: `chain_i = H(chain_{i-1}, pools that phase i added, phase
    /// i)`, starting from `H(1, seed, holdout)`. A phase that an extension cut short enters as it was; how
    /// far it is shown is folded in after it. The id is the last link, with the extensions and takedowns if
    /// there are any.
    ///
    /// # Errors
    /// Never in practice: the schema has no value that JSON cannot represent.
    pub fn seal(&mut self) -> Result<()> {
        self.version = self.lowest_version();
        let mut chain = match self.proxy {
            None => digest(&(RULES_VERSION, self.seed, self.holdout_ppm))?,
            Some(proxy) => digest(&(RULES_VERSION, self.seed, self.holdout_ppm, proxy))?,
        };
        let mut first_pool = 0;
        for phase in &mut self.phases {
            let end = self.pools.partition_point(|pool| pool.generation <= phase.generation);
            let brought = &self.pools[first_pool.min(end)..end];
            let whole = PhaseLock { shown_samples: None, chain: Hash::default(), ..phase.clone() };
            phase.chain = digest(&(chain, brought, &whole))?;
            chain = phase.chain;
            if let Some(shown) = phase.shown_samples {
                chain = digest(&(chain, shown))?;
            }
            first_pool = end;
        }
        self.id = match self.extends.is_empty() && self.takedowns.is_empty() {
            true => chain,
            false => digest(&(chain, &self.extends, &self.takedowns))?,
        };
        Ok(())
    }

    /// The lowest version of the schema that can represent this plan: 1, unless it uses something newer.
    pub fn lowest_version(&self) -> u32 {
        if self.pools.iter().any(|pool| !pool.layout.is_separate() || !pool.order.is_gap()) {
            return 4;
        }
        if self.pools.iter().any(|pool| !pool.variants.is_share()) {
            return 3;
        }
        let newer_pool = |pool: &super::PoolLock| {
            pool.selection.is_some() || pool.max_uses_per_text.is_some() || pool.continues.is_some()
        };
        let newer = self.proxy.is_some()
            || !self.extends.is_empty()
            || !self.takedowns.is_empty()
            || self.pools.iter().any(newer_pool);
        if newer { 2 } else { 1 }
    }

    /// Whether a run that has read samples `0..t` of plan `id` can continue with this plan: it is the same
    /// plan, or this one extends it and does not differ before `t`.
    pub fn continues_run(&self, id: Hash, t: u64) -> bool {
        id == self.id || self.agrees_with(id).is_some_and(|until| t <= until)
    }

    /// How many first samples an earlier plan has in common with this one, when this one is an extension of
    /// it.
    pub fn agrees_with(&self, id: Hash) -> Option<u64> {
        let i = self.extends.iter().position(|earlier| earlier.plan == id)?;
        // A later extension may have started before an earlier one.
        self.extends[i..].iter().map(|earlier| earlier.until).min()
    }

    /// Samples that two plans provably share: the phases with equal links of the chain, as far as both show
    /// them and no takedown began.
    pub fn common_prefix(&self, other: &PlanLock) -> u64 {
        let mut common = 0;
        for (a, b) in self.phases.iter().zip(&other.phases) {
            if a.chain != b.chain {
                break;
            }
            common = a.t_end().min(b.t_end());
            if a.t_end() != b.t_end() {
                break;
            }
        }
        let shared = self.takedowns.iter().zip(&other.takedowns).take_while(|(a, b)| a == b).count();
        let differing = self.takedowns[shared..].iter().chain(&other.takedowns[shared..]);
        differing.map(|takedown| takedown.from).min().map_or(common, |from| common.min(from))
    }
}

fn digest<T: serde::Serialize>(value: &T) -> Result<Hash> {
    let json_error = |source| Error::Json { path: PathBuf::from(PlanLock::FILE), source };
    Ok(Hash::of(&serde_json::to_vec(value).map_err(json_error)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{ExtendsLock, PackRef, TakedownLock};

    fn phase(name: &str, t_start: u64, n_samples: u64) -> PhaseLock {
        PhaseLock {
            name: name.to_owned(),
            generation: 0,
            t_start,
            n_samples,
            shown_samples: None,
            seq_len: 8,
            quotas: Vec::new(),
            counts: PackRef { file: String::new(), blake3: Hash::default() },
            chain: Hash::default(),
        }
    }

    fn plan(phases: Vec<PhaseLock>) -> PlanLock {
        let mut plan = PlanLock {
            version: 0,
            seed: 1,
            holdout_ppm: 0,
            proxy: None,
            manifest: Hash::default(),
            pools: Vec::new(),
            phases,
            extends: Vec::new(),
            takedowns: Vec::new(),
            id: Hash::default(),
        };
        plan.seal().unwrap();
        plan
    }

    #[test]
    fn an_extension_keeps_the_links_before_it() {
        let old = plan(vec![phase("a", 0, 100), phase("b", 100, 50)]);
        assert_eq!((old.version, old.n_samples()), (1, 150));
        let mut new = plan(vec![phase("a", 0, 100), phase("b", 100, 50), phase("c", 120, 30)]);
        new.phases[1].shown_samples = Some(20);
        new.extends = vec![ExtendsLock { plan: old.id, until: 120 }];
        new.seal().unwrap();
        assert_eq!(new.phases[1].chain, old.phases[1].chain);
        assert_eq!(new.common_prefix(&old), 120);
        assert_eq!((new.continues_run(old.id, 120), new.continues_run(old.id, 121)), (true, false));
        assert!(new.continues_run(new.id, 140) && !old.continues_run(new.id, 0));

        let mut cut_elsewhere = new.clone();
        cut_elsewhere.phases[1].shown_samples = Some(19);
        cut_elsewhere.seal().unwrap();
        assert_ne!(cut_elsewhere.phases[2].chain, new.phases[2].chain);
    }

    #[test]
    fn a_takedown_ends_what_is_shared() {
        let old = plan(vec![phase("a", 0, 100)]);
        assert_eq!(old.version, 1);
        let mut new = old.clone();
        new.takedowns = vec![TakedownLock { from: 30, shards: Vec::new() }];
        new.extends = vec![ExtendsLock { plan: old.id, until: 30 }];
        new.seal().unwrap();
        assert_eq!((new.version, new.common_prefix(&old)), (2, 30));
        assert_ne!(new.id, old.id);
        assert_eq!(new.phases[0].chain, old.phases[0].chain);

        // An extension of the extension that starts earlier limits both.
        let mut third = new.clone();
        third.extends.push(ExtendsLock { plan: new.id, until: 10 });
        third.seal().unwrap();
        assert_eq!((third.agrees_with(old.id), third.agrees_with(new.id)), (Some(10), Some(10)));
    }
}
