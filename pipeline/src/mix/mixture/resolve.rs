//! Checks a mixture against a build, and fills in the pools it does not name.

use std::path::Path;

use moe_cli::nearest;
use moe_shards::Manifest;

use super::{Mixture, PoolConfig};
use crate::error::{Error, Problem, Result};

impl Mixture {
    /// The mixture with one `[[pool]]` for each pool that will exist, checked against the build.
    ///
    /// # Errors
    /// [`Error::Recipe`] with all mismatches: a missing source, language or tag (with the
    /// nearest one), a duplicate name, weights on only some pools, a budget without weights.
    pub fn resolve(mut self, manifest: &Manifest, file: Option<&Path>) -> Result<Mixture> {
        if self.pool.is_empty() {
            let sources = manifest.sources.iter().map(|source| source.name.as_str());
            self.pool =
                sources.map(|source| PoolConfig { source: source.into(), ..PoolConfig::default() }).collect();
        }
        let mut faults = self.unknown_names(manifest);
        faults.extend(self.repeated_names());
        faults.extend(self.amount_faults());
        let problem = |(key, message)| Problem { file: file.map(Path::to_owned), line: None, key, message };
        match faults.is_empty() {
            true => Ok(self),
            false => Err(Error::Recipe { problems: faults.into_iter().map(problem).collect() }),
        }
    }

    fn unknown_names(&self, manifest: &Manifest) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut check = |key: &str, kind: &str, name: &str, known: &[&str]| {
            if !known.contains(&name) {
                let hint = match known {
                    [] => format!("no document has a {kind}: name the field in the recipe's [[source]]"),
                    known => nearest::hint(name, known.iter().copied()),
                };
                faults.push((key.to_owned(), format!("the build has no {kind} `{name}`; {hint}")));
            }
        };
        let sources: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
        let languages: Vec<&str> = manifest.languages.iter().map(String::as_str).collect();
        let tags: Vec<&str> = manifest.tags.iter().map(String::as_str).collect();
        for pool in &self.pool {
            pool.source.as_slice().iter().for_each(|name| check("pool.source", "source", name, &sources));
            pool.language
                .iter()
                .flatten()
                .for_each(|name| check("pool.language", "language", name, &languages));
            pool.tag.iter().flatten().for_each(|name| check("pool.tag", "tag", name, &tags));
        }
        let pools: Vec<&str> = self.pool.iter().map(PoolConfig::name).collect();
        for phase in &self.phase {
            for name in phase.weights.iter().flat_map(|weights| weights.keys()) {
                if !pools.contains(&name.as_str()) {
                    let hint = nearest::hint(name, pools.iter().copied());
                    let message = format!("phase `{}` names no pool with `{name}`; {hint}", phase.name);
                    faults.push(("phase.weights".to_owned(), message));
                }
            }
        }
        faults
    }

    fn repeated_names(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (i, pool) in self.pool.iter().enumerate() {
            if self.pool[..i].iter().any(|other| other.name() == pool.name()) {
                let message =
                    format!("`{}` is named twice; give one of the pools another `name`", pool.name());
                faults.push((
                    if pool.name.is_some() { "pool.name" } else { "pool.source" }.to_owned(),
                    message,
                ));
            }
            let sources = pool.source.as_slice();
            for (j, name) in sources.iter().enumerate().filter(|(j, name)| sources[..*j].contains(name)) {
                faults.push(("pool.source".to_owned(), format!("number {j}: `{name}` is in the list twice")));
            }
        }
        for (i, phase) in self.phase.iter().enumerate() {
            if self.phase[..i].iter().any(|other| other.name == phase.name) {
                faults.push(("phase.name".to_owned(), format!("`{}` is named twice", phase.name)));
            }
        }
        faults
    }

    /// Amounts are given in one way: by weights in a budget, or pool by pool.
    fn amount_faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        let names = |keep: &dyn Fn(&PoolConfig) -> bool| -> String {
            let names: Vec<&str> = self.pool.iter().filter(|pool| keep(pool)).map(PoolConfig::name).collect();
            names.join("`, `")
        };
        let weighted = self.pool.iter().filter(|pool| pool.weight.is_some()).count();
        let amounts = self.pool.iter().filter(|pool| pool.has_amount()).count();
        let without = names(&|pool: &PoolConfig| pool.weight.is_none());
        if weighted != 0 && weighted != self.pool.len() {
            fault("pool.weight", format!("all pools have a weight or none; `{without}` has none"));
        }
        if self.phase.is_empty() {
            match (weighted, self.mix.tokens) {
                (0, Some(_)) => fault("mix.tokens", "a budget needs a `weight` in every [[pool]]".to_owned()),
                (1.., None) => {
                    fault("mix.tokens", "is missing; weights share out this many trained tokens".to_owned())
                }
                _ => {}
            }
            return faults;
        }
        if self.mix.tokens.is_some() {
            fault("mix.tokens", "leave it out: each [[phase]] has its own `tokens`".to_owned());
        }
        if amounts > 0 {
            let pools = names(&|pool: &PoolConfig| pool.has_amount());
            let message = "has `repeat` or `tokens`, which are amounts of a whole plan; phases share out their budgets by weights";
            fault("pool", format!("`{pools}` {message}"));
        }
        for phase in self.phase.iter().filter(|phase| phase.weights.is_none() && weighted < self.pool.len()) {
            let message =
                format!("phase `{}` has no `weights`, and pool `{without}` has no `weight`", phase.name);
            fault("phase.weights", message);
        }
        faults
    }
}
