//! `moe-data mix`: from shards and a mixture to `plan.lock`, the exact sequence of samples.
//!
//! Each pool is laid out in passes (`pool`), packed (`best_fit`), given a quota of samples (`quota`), and
//! the pools are interleaved by the rule of `moe_shards::interleave`. The result is a pure function of
//! the manifest and the mixture.

pub mod best_fit;
pub mod explain;
pub mod mixture;
pub mod pool;
pub mod quota;
pub mod worth;

use std::path::Path;

use moe_shards::family::Holdout;
use moe_shards::interleave::{Counts, Interleaver};
use moe_shards::{Hash, Manifest, PLAN_VERSION, PackRef, PhaseLock, PlanLock};

use self::mixture::{Mixture, PoolConfig};
use self::pool::{PoolBuilder, PoolWish};
use self::worth::PoolWorth;
use crate::error::{Error, Result};
use crate::watch::Watch;

/// Folder of the plan's files in the output folder.
const PLAN_DIR: &str = "plan";

/// What `mix` is asked to do.
#[derive(Clone, Debug)]
pub struct MixOptions {
    /// Replace a plan that is there.
    pub force: bool,
    /// Lay out and report, write nothing.
    pub dry_run: bool,
}

/// What `mix` made.
#[derive(Debug)]
pub struct MixOutcome {
    /// The plan.
    pub lock: PlanLock,
    /// What it is worth, by pool.
    pub worth: Vec<PoolWorth>,
    /// Whether a plan was written; not when it was there already, or on a dry run.
    pub written: bool,
}

/// Families that all passes of a mixture visit: the length of its progress bar.
pub fn work(manifest: &Manifest, mixture: &Mixture) -> u64 {
    let originals = |source: &str| -> u64 {
        let number = manifest.sources.iter().position(|s| s.name == source).unwrap_or(usize::MAX);
        manifest
            .shards
            .iter()
            .filter(|s| usize::from(s.source) == number && s.variant == 0)
            .map(|s| s.n_docs)
            .sum()
    };
    mixture.pool.iter().map(|pool| originals(&pool.source) * u64::from(mixture.epochs(pool))).sum()
}

/// Makes the plan of a resolved mixture over the build in `out`.
///
/// # Errors
/// Damaged shards, a wish that the epochs cannot serve, another plan in the way, a full disk.
pub fn make_plan(
    out: &Path,
    manifest: &Manifest,
    mixture: &Mixture,
    options: &MixOptions,
    watch: &Watch,
) -> Result<MixOutcome> {
    let manifest_hash = manifest.hash()?;
    let resolved =
        toml::to_string(mixture).map_err(|e| Error::Usage(format!("the mixture cannot be written: {e}")))?;
    // A folder of its own for each plan: an older plan's files stay whole until the new plan.lock is there.
    let fingerprint = Hash::of(format!("{PLAN_VERSION}\n{manifest_hash}\n{resolved}").as_bytes());
    let folder = format!("{PLAN_DIR}/{}", fingerprint.short());
    let folder = (!options.dry_run).then_some(folder.as_str());
    if let Some(folder) = folder {
        if !options.force {
            refuse_other_plan(out, manifest_hash, folder)?;
        }
        for dir in [out.to_owned(), out.join(folder)] {
            moe_shards::atomic::remove_leftovers(&dir)?;
        }
    }

    let mut builders = Vec::new();
    for pool in &mixture.pool {
        builders.push(open_pool(out, folder, manifest, mixture, pool)?);
    }
    let quotas = quota::lay_out(&mut builders, mixture, |builder| builder.add_pass(out, folder, watch))?;
    let worth =
        builders.iter().zip(&quotas).map(|(b, &n)| PoolWorth::new(b, n)).collect::<Result<Vec<_>>>()?;

    let rule = Interleaver::new(&quotas)?;
    if rule.total() == 0 {
        let message =
            "the plan has no samples: all families are held out or the shards are empty; lower `mix.holdout`";
        return Err(Error::Usage(message.to_owned()));
    }
    let mut lock = PlanLock {
        version: PLAN_VERSION,
        seed: mixture.mix.seed,
        holdout_ppm: mixture.holdout_ppm(),
        manifest: manifest_hash,
        pools: builders.into_iter().map(|builder| builder.lock).collect(),
        phases: vec![PhaseLock {
            name: "main".to_owned(),
            generation: 0,
            t_start: 0,
            n_samples: rule.total(),
            seq_len: mixture.mix.seq_len,
            quotas,
            counts: PackRef { file: String::new(), blake3: Hash::default() },
            chain: Hash::default(),
        }],
        id: Hash::default(),
    };
    let mut written = false;
    if let Some(folder) = folder {
        let file = format!("{folder}/phase-000.counts");
        lock.phases[0].counts = PackRef { blake3: Counts::write(&out.join(&file), &rule)?, file };
        lock.seal()?;
        written = install(out, &lock, &resolved)?;
        remove_other_plans(out, folder)?;
    }
    Ok(MixOutcome { lock, worth, written })
}

fn open_pool(
    out: &Path,
    folder: Option<&str>,
    manifest: &Manifest,
    mixture: &Mixture,
    pool: &PoolConfig,
) -> Result<PoolBuilder> {
    let source = manifest.sources.iter().position(|source| source.name == pool.source);
    let source = source.ok_or_else(|| Error::Usage(format!("the build has no source `{}`", pool.source)))?;
    let wish = PoolWish {
        name: pool.source.clone(),
        seed: mixture.mix.seed,
        seq_len: mixture.mix.seq_len,
        packing: mixture.mix.packing,
        max_windows: u64::from(mixture.mix.windows),
        original_share: mixture.original_share(),
        holdout: Holdout { ppm: mixture.holdout_ppm(), seed: mixture.mix.seed },
    };
    // `SourceInfo` positions fit: the manifest numbers sources with u16.
    PoolBuilder::open(out, folder, manifest, source as u16, wish)
}

/// Refuses to replace another plan of the same shards, or one that cannot be read, before any work. A plan of other
/// shards can no longer be used, so nothing is lost with it.
fn refuse_other_plan(out: &Path, manifest: Hash, folder: &str) -> Result<()> {
    let path = out.join(PlanLock::FILE);
    if !path.exists() {
        return Ok(());
    }
    let id = match PlanLock::read(out) {
        Ok(old) if old.manifest != manifest => return Ok(()),
        // The folder is named by the manifest and the mixture: the same folder is the same plan.
        Ok(old) if old.phases.iter().any(|phase| Path::new(&phase.counts.file).starts_with(folder)) => {
            return Ok(());
        }
        Ok(old) => old.id.short(),
        Err(_) => "unreadable".to_owned(),
    };
    Err(Error::Usage(format!(
        "{} holds another plan (id {id}) of the same shards; runs that use it could not resume: give --force to replace it",
        path.display()
    )))
}

/// Puts the plan in place; says whether it was new.
fn install(out: &Path, lock: &PlanLock, resolved: &str) -> Result<bool> {
    if out.join(PlanLock::FILE).exists() && PlanLock::read(out).is_ok_and(|old| old == *lock) {
        return Ok(false);
    }
    let header = "# The mixture of plan.lock, resolved by `moe-data mix`.\n";
    moe_shards::atomic::write_file(&out.join("plan.toml"), format!("{header}{resolved}").as_bytes())?;
    lock.write(out)?;
    Ok(true)
}

/// Removes the files of plans that are no longer in place.
fn remove_other_plans(out: &Path, keep: &str) -> Result<()> {
    let dir = out.join(PLAN_DIR);
    for entry in std::fs::read_dir(&dir).map_err(Error::io(&dir, "list"))? {
        let path = entry.map_err(Error::io(&dir, "list"))?.path();
        if path != out.join(keep) {
            std::fs::remove_dir_all(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}
