//! `moe-data mix`: from shards and a mixture to `plan.lock`, the exact sequence of samples.
//!
//! The pools of the mixture are opened (`layout`, `pool`), phases divide their budgets (`amounts`, `curve`), passes
//! are laid out and packed as far as needed (`stream`, `best_fit`), and the pools are interleaved by the rule of
//! `moe_shards::interleave`. The result is a pure function of the manifest and the mixture.

pub mod amounts;
pub mod best_fit;
pub mod count;
pub mod curve;
pub mod effective_tokens;
pub mod explain;
mod extend;
mod files;
mod folder;
pub mod layout;
pub mod mixture;
pub mod pool;
pub mod share;
mod stitch;
pub mod stream;
pub mod takedown;

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::interleave::{Counts, Interleaver};
use moe_shards::{Hash, Manifest, PackRef, PhaseLock, PlanLock};

use self::amounts::{Clip, PhaseWish};
use self::effective_tokens::{PlanTokens, PoolTokens};
pub use self::extend::Extension;
pub use self::folder::{MIXTURE_FILE, WORTH_FILE};
use self::layout::{Common, MixPool, check_disjoint};
use self::mixture::Mixture;
use self::pool::Site;
use self::stream::{Amount, Stream};
use crate::error::{Error, Result};
use crate::intact;
use crate::watch::Watch;

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
    /// Compares all tokens with their digests first, since nothing else here reads them; advances by their bytes.
    pub check: Option<Watch>,
}

/// What `mix` made.
#[derive(Debug)]
pub struct MixOutcome {
    /// The plan.
    pub lock: PlanLock,
    /// What its pools are worth; for an extension, the continued pools.
    pub worth: Vec<PoolTokens>,
    /// What the whole is worth.
    pub plan: PlanTokens,
    /// Wishes that were cut down.
    pub clips: Vec<Clip>,
    /// Whether a plan was written: false if it existed already, or on a dry run.
    pub written: bool,
}

impl MixOutcome {
    /// A plan that is in place already.
    fn unchanged(lock: PlanLock) -> MixOutcome {
        let (worth, clips) = (Vec::new(), Vec::new());
        MixOutcome { lock, plan: PlanTokens::new(&worth, None), worth, clips, written: false }
    }
}

/// Most families visited by all passes of a mixture: the length of its progress bar.
pub fn work(manifest: &Manifest, mixture: &Mixture) -> u64 {
    let originals = |sources: &[String]| -> u64 {
        let of_pool = |source: u16| {
            let source = manifest.sources.get(usize::from(source));
            source.is_some_and(|source| sources.contains(&source.name))
        };
        let shards = manifest.shards.iter().filter(|shard| of_pool(shard.source) && shard.variant == 0);
        shards.map(|shard| shard.n_docs).sum()
    };
    let passes = |pool| mixture.max_epochs(pool).ceil() as u64;
    mixture.pool.iter().map(|pool| originals(pool.source.as_slice()) * passes(pool)).sum()
}

/// Makes the plan of a resolved mixture over the build in `out`.
///
/// # Errors
/// Shards are damaged, a request exceeds the caps, another plan is in the way, or the disk is full.
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
    if let Some(extension) = &options.extend
        && let Some(lock) = extension.already_made(out, manifest, &resolved, options)?
    {
        if !options.dry_run {
            files::finish(out, &lock)?;
            folder::clean(out)?;
        }
        return Ok(MixOutcome::unchanged(lock));
    }
    let old = options
        .extend
        .as_ref()
        .map(|extension| extension.open(out, manifest, mixture, options))
        .transpose()?;
    let extends = old.as_ref().zip(options.extend.as_ref());
    let extends = extends.map(|(old, extension)| extension.identity(old.lock.id, &old.takedown));
    let folder = folder::name(manifest_hash, &resolved, options.proxy, extends.as_deref());
    let folder = (!options.dry_run).then_some(folder.as_str());
    if let Some(folder) = folder {
        files::check(out)?;
        if !options.force && old.is_none() {
            folder::refuse_other_plan(out, manifest_hash, folder)?;
        }
        for dir in [out.to_owned(), out.join(folder)] {
            moe_shards::atomic::remove_leftovers(&dir)?;
        }
        if let Some(check) = &options.check {
            let shards = intact::open_all(out, manifest)?;
            let checked = intact::check(&shards, check);
            check.finish();
            checked?;
        }
    }
    let site = Site { out, folder };
    let laid_out = lay_out(&site, manifest, mixture, options, old.as_ref(), watch);
    let installed = laid_out.and_then(|mut outcome| {
        outcome.written = folder.is_some() && files::install(out, &outcome.lock, &resolved, &outcome.worth)?;
        Ok(outcome)
    });
    if folder.is_some() && !matches!(installed, Err(Error::Interrupted)) {
        folder::clean(out)?;
    }
    installed
}

/// Lays the plan out and writes its files, but not `plan.lock`, which names them.
fn lay_out(
    site: &Site<'_>,
    manifest: &Manifest,
    mixture: &Mixture,
    options: &MixOptions,
    old: Option<&extend::Old>,
    watch: &Watch,
) -> Result<MixOutcome> {
    let manifest_hash = manifest.hash()?;
    let generation = old.map_or(0, extend::Old::generation);
    let common = Common { site: *site, manifest, mixture, proxy: options.proxy, generation };
    let mut next_number = old.map_or(0, |old| old.lock.pools.len() as u32);
    let shows = options.extend.as_ref().is_none_or(|extension| extension.new_phases);
    let (mut pools, wishes, mut clips) = match shows {
        true => open_pools(&common, old, &mut next_number)?,
        false => (Vec::new(), Vec::new(), Vec::new()),
    };
    let served = serve(&mut pools, &wishes, &mut clips, &common, &mut next_number, watch)?;
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
    append_phases(&mut lock, &wishes, &served, next_number, generation, site)?;
    let worth = pools
        .iter()
        .flat_map(|pool| &pool.parts)
        .map(|part| PoolTokens::new(part, &lock.phases))
        .collect::<Result<Vec<_>>>()?;
    let plan = PlanTokens::new(&worth, options.parameters);
    plan.check(mixture)?;
    let mut streams: Vec<&Stream> =
        pools.iter().flat_map(|pool| &pool.parts).flat_map(|part| &part.streams).collect();
    streams.sort_by_key(|stream| stream.number);
    lock.pools.extend(streams.into_iter().map(|stream| stream.lock.clone()));
    if let Some(old) = &old {
        old.finish(&mut lock)?;
    }
    lock.seal()?;
    Ok(MixOutcome { lock, worth, plan, clips, written: false })
}

/// Opens the pools and divides the budgets.
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

/// Lets the pools serve the phases. Any shortfall is added to the `clips`, or an error.
fn serve(
    pools: &mut [MixPool],
    wishes: &[PhaseWish],
    clips: &mut Vec<Clip>,
    common: &Common<'_>,
    next_number: &mut u32,
    watch: &Watch,
) -> Result<Served> {
    let mixture = common.mixture;
    let (mut parts, mut problems) = (Vec::new(), Vec::new());
    for (i, pool) in pools.iter_mut().enumerate() {
        let amounts: Vec<Amount> = wishes.iter().map(|wish| wish.amounts[i]).collect();
        parts.push(pool.split(&amounts)?);
        for (wish, parts) in wishes.iter().zip(&parts[i]) {
            let [asked, given] = pool.asked_and_given(parts)?;
            let config = &mixture.pool[i];
            if let Some(max) = mixture.max_uses_per_text(config).filter(|_| given < asked) {
                let cap = format!("`max_uses_per_text = {max}`");
                // `epochs` is a ceiling, and `max_uses_per_text` is meant to rest below it; the others are requests.
                if config.repeat.is_some() || config.curve.is_some() || mixture.is_strict() {
                    problems.push(format!(
                        "pool `{}`: its passes ask for {asked} trained tokens, with {cap} its texts give {given}, and families rest: ask for less, raise `max_uses_per_text`, or add variants",
                        pool.name
                    ));
                }
                clips.push(Clip { phase: wish.name.clone(), pool: pool.name.clone(), asked, given, cap });
            }
        }
    }
    let refused = |problems: Vec<String>| amounts::refused(problems, "give what is possible");
    if !problems.is_empty() && !mixture.redistributes() {
        return Err(refused(problems));
    }
    let mut served = Vec::new();
    for (phase, wish) in wishes.iter().enumerate() {
        let mut bins = BTreeMap::new();
        for (pool, parts) in pools.iter_mut().zip(&parts) {
            let taken =
                pool.serve(&parts[phase], wish.seq_len, &wish.name, next_number, &common.site, watch)?;
            let missing: u64 = taken.iter().map(|taken| taken.missing_tokens).sum();
            // If sequence lengths change, whole bins may hold a little less than requested.
            if missing > 2 * taken.len() as u64 * u64::from(wish.seq_len) {
                let asked: u64 = parts[phase].iter().map(Amount::tokens).sum();
                let (given, cap) = (asked - missing, "its passes".to_owned());
                problems.push(format!(
                    "pool `{}`: phase `{}` asks for {asked} trained tokens, its passes give {given}: ask for less",
                    pool.name, wish.name
                ));
                clips.push(Clip { phase: wish.name.clone(), pool: pool.name.clone(), asked, given, cap });
            }
            bins.extend(taken.into_iter().map(|taken| (taken.stream, taken.bins)));
        }
        served.push(bins);
    }
    match problems.is_empty() || mixture.redistributes() {
        true => Ok(served),
        false => Err(refused(problems)),
    }
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
            let why = match generation {
                0 => "all families are held out or the shards are empty; lower `mix.holdout`",
                _ => {
                    "the plan has shown its pools as often as the mixture allows; raise `epochs`, or add documents"
                }
            };
            return Err(Error::Usage(format!("phase `{}` of the plan has no samples: {why}", wish.name)));
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
