//! `moe-data mix`: from shards and a mixture to `plan.lock`, the exact sequence of samples.
//!
//! The pools of the mixture are opened (`layout`, `pool`), phases share out their budgets (`amounts`, `curve`), passes
//! are laid out and packed as far as they are needed (`stream`, `best_fit`), and the pools are interleaved by the rule of
//! `moe_shards::interleave`. The result is a pure function of the manifest and the mixture.

pub mod amounts;
pub mod best_fit;
pub mod count;
pub mod curve;
pub mod explain;
mod extend;
mod files;
pub mod layout;
pub mod mixture;
pub mod pool;
pub mod stream;
pub mod worth;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moe_shards::interleave::{Counts, Interleaver};
use moe_shards::{Hash, Manifest, PackRef, PhaseLock, PlanLock};

use self::amounts::{Clip, PhaseWish};
pub use self::extend::Extension;
use self::layout::{Common, MixPool, check_disjoint};
use self::mixture::Mixture;
use self::pool::Site;
use self::stream::{Amount, Stream};
use self::worth::{PlanWorth, PoolWorth};
use crate::error::{Error, Result};
use crate::watch::Watch;

/// The mixture of a plan, with every default filled in, in the output folder.
pub const MIXTURE_FILE: &str = "plan.toml";
/// Folder of the plan's files in the output folder.
const PLAN_DIR: &str = "plan";
/// Names the plan's folder, with the manifest and the mixture.
const FOLDER_VERSION: u32 = 1;

/// What `mix` is asked to do.
#[derive(Clone, Debug, Default)]
pub struct MixOptions {
    /// Replace a plan that is there.
    pub force: bool,
    /// Lay out and report, write nothing.
    pub dry_run: bool,
    /// Keep this share of the families and budgets.
    pub proxy: Option<[u64; 2]>,
    /// Parameters of the model, for a warning.
    pub parameters: Option<u64>,
    /// Extend the plan that is there.
    pub extend: Option<Extension>,
}

/// What `mix` made.
#[derive(Debug)]
pub struct MixOutcome {
    /// The plan.
    pub lock: PlanLock,
    /// What its pools are worth. Of an extension, the pools that go on.
    pub worth: Vec<PoolWorth>,
    /// What the whole is worth.
    pub plan: PlanWorth,
    /// Wishes that were cut down.
    pub clips: Vec<Clip>,
    /// Whether a plan was written; not when it was there already, or on a dry run.
    pub written: bool,
}

/// Families that all passes of a mixture visit at most: the length of its progress bar.
pub fn work(manifest: &Manifest, mixture: &Mixture) -> u64 {
    let originals = |sources: &[String]| -> u64 {
        let of_pool = |source: u16| {
            let source = manifest.sources.get(usize::from(source));
            source.is_some_and(|source| sources.contains(&source.name))
        };
        let shards = manifest.shards.iter().filter(|shard| of_pool(shard.source) && shard.variant == 0);
        shards.map(|shard| shard.n_docs).sum()
    };
    let passes = |pool| u64::from(mixture.max_epochs(pool));
    mixture.pool.iter().map(|pool| originals(pool.source.as_slice()) * passes(pool)).sum()
}

/// Makes the plan of a resolved mixture over the build in `out`.
///
/// # Errors
/// Damaged shards, a wish that the caps forbid, another plan in the way, a full disk.
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
    let old = options
        .extend
        .as_ref()
        .map(|extension| extension.open(out, manifest, mixture, options))
        .transpose()?;
    // A folder of its own for each plan: an older plan's files stay whole until the new plan.lock is there.
    let mut identity = format!("{FOLDER_VERSION}\n{manifest_hash}\n{resolved}");
    if let Some([num, den]) = options.proxy {
        identity.push_str(&format!("\nproxy {num}/{den}"));
    }
    if let (Some(old), Some(extension)) = (&old, &options.extend) {
        identity.push_str(&format!("\n{}", extension.identity(old)));
    }
    let folder = format!("{PLAN_DIR}/{}", Hash::of(identity.as_bytes()).short());
    let folder = (!options.dry_run).then_some(folder.as_str());
    if let Some(folder) = folder {
        files::check(out)?;
        if !options.force && old.is_none() {
            refuse_other_plan(out, manifest_hash, folder)?;
        }
        for dir in [out.to_owned(), out.join(folder)] {
            moe_shards::atomic::remove_leftovers(&dir)?;
        }
    }

    let site = Site { out, folder };
    let generation = old.as_ref().map_or(0, extend::Old::generation);
    let common = Common { site, manifest, mixture, proxy: options.proxy, generation };
    let mut next_number = old.as_ref().map_or(0, |old| old.lock.pools.len() as u32);
    let shows = options.extend.as_ref().is_none_or(|extension| extension.new_phases);
    let (mut pools, wishes, clips) = match shows {
        true => open_pools(&common, old.as_ref(), &mut next_number)?,
        false => (Vec::new(), Vec::new(), Vec::new()),
    };
    let served = serve(&mut pools, &wishes, &mut next_number, &site, watch)?;
    for part in pools.iter_mut().flat_map(|pool| &mut pool.parts) {
        part.forget_unshown()?;
    }

    let mut lock = match &old {
        Some(old) => old.frozen(manifest_hash, shows)?,
        None => PlanLock {
            version: 0,
            seed: mixture.mix.seed,
            holdout_ppm: mixture.holdout_ppm(),
            proxy: options.proxy,
            manifest: manifest_hash,
            pools: Vec::new(),
            phases: Vec::new(),
            extends: Vec::new(),
            takedowns: Vec::new(),
            id: Hash::default(),
        },
    };
    append_phases(&mut lock, &wishes, &served, next_number, generation, &site)?;
    let worth = pools
        .iter()
        .flat_map(|pool| &pool.parts)
        .map(|part| PoolWorth::new(part, &lock.phases))
        .collect::<Result<Vec<_>>>()?;
    let plan = PlanWorth::new(&worth, options.parameters);
    plan.check(mixture)?;
    let mut streams: Vec<&Stream> =
        pools.iter().flat_map(|pool| &pool.parts).flat_map(|part| &part.streams).collect();
    streams.sort_by_key(|stream| stream.number);
    lock.pools.extend(streams.into_iter().map(|stream| stream.lock.clone()));
    if let Some(old) = &old {
        old.finish(&mut lock)?;
    }
    lock.seal()?;
    let mut written = false;
    if folder.is_some() {
        written = files::install(out, &lock, &resolved)?;
        files::remove_other_plans(out, &lock)?;
    }
    Ok(MixOutcome { lock, worth, plan, clips, written })
}

/// Opens the pools and shares out the budgets.
fn open_pools(
    common: &Common<'_>,
    old: Option<&extend::Old>,
    next_number: &mut u32,
) -> Result<(Vec<MixPool>, Vec<PhaseWish>, Vec<Clip>)> {
    let mut pools = Vec::new();
    for pool in &common.mixture.pool {
        pools.push(match old {
            Some(old) => old.continue_pool(common, pool, next_number)?,
            None => common.open(pool, pool.name(), &[], next_number)?,
        });
    }
    check_disjoint(common.mixture, &pools)?;
    let (wishes, clips) = amounts::share_out(common.mixture, common.proxy, |pool| pools[pool].room())?;
    Ok((pools, wishes, clips))
}

/// Bins of each stream in each phase.
type Served = Vec<BTreeMap<u32, u64>>;

fn serve(
    pools: &mut [MixPool],
    wishes: &[PhaseWish],
    next_number: &mut u32,
    site: &Site<'_>,
    watch: &Watch,
) -> Result<Served> {
    let mut parts = Vec::new();
    for (i, pool) in pools.iter_mut().enumerate() {
        let amounts: Vec<Amount> = wishes.iter().map(|wish| wish.amounts[i]).collect();
        parts.push(pool.split(&amounts)?);
    }
    let mut served = Vec::new();
    for (phase, wish) in wishes.iter().enumerate() {
        let mut bins = BTreeMap::new();
        for (pool, parts) in pools.iter_mut().zip(&parts) {
            bins.extend(pool.serve(&parts[phase], wish.seq_len, &wish.name, next_number, site, watch)?);
        }
        served.push(bins);
    }
    Ok(served)
}

fn append_phases(
    lock: &mut PlanLock,
    wishes: &[PhaseWish],
    served: &Served,
    n_pools: u32,
    generation: u32,
    site: &Site<'_>,
) -> Result<()> {
    for (wish, bins) in wishes.iter().zip(served) {
        let quotas: Vec<u64> = (0..n_pools).map(|pool| bins.get(&pool).copied().unwrap_or(0)).collect();
        let rule = Interleaver::new(&quotas)?;
        if rule.total() == 0 {
            let message = format!(
                "phase `{}` of the plan has no samples: all families are held out or the shards are empty; lower `mix.holdout`",
                wish.name
            );
            return Err(Error::Usage(message));
        }
        let mut counts = PackRef { file: String::new(), blake3: Hash::default() };
        if let Some(folder) = site.folder {
            let file = format!("{folder}/phase-{:03}.counts", lock.phases.len());
            counts = PackRef { blake3: Counts::write(&site.out.join(&file), &rule)?, file };
        }
        lock.phases.push(PhaseLock {
            name: wish.name.clone(),
            generation,
            t_start: lock.n_samples(),
            n_samples: rule.total(),
            shown_samples: None,
            seq_len: wish.seq_len,
            quotas,
            counts,
            chain: Hash::default(),
        });
    }
    Ok(())
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
        Ok(old) if old.extends.is_empty() && folders(&old).contains(folder) => return Ok(()),
        Ok(old) => old.id.short(),
        Err(_) => "unreadable".to_owned(),
    };
    Err(Error::Usage(format!(
        "{} holds another plan (id {id}) of the same shards; runs that use it could not resume: give --force to replace it",
        path.display()
    )))
}

/// Files of a plan beside `plan.lock`.
fn packs(lock: &PlanLock) -> impl Iterator<Item = &PackRef> {
    let packs = lock.pools.iter().flat_map(|pool| {
        pool.passes.iter().filter_map(|pass| pass.pack.as_ref()).chain([&pool.validation.pack])
    });
    packs.chain(lock.phases.iter().map(|phase| &phase.counts))
}

/// Folders with files of a plan, relative to the output folder.
fn folders(lock: &PlanLock) -> BTreeSet<String> {
    let folder = |file: &PackRef| file.file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    packs(lock).filter_map(folder).collect()
}
