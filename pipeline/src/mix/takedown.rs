//! Documents that a plan no longer shows, by name or with all texts of their families; and what remains of these.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use moe_shards::{FamilyId, Manifest, PlanLock, TakedownShard};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::{intact, lookup};

/// Prefix of a document's name or a family's id that means all texts of the family.
const FAMILY: &str = "family:";

/// What a plan still shows of the families with removed texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// Documents that are hidden.
    pub documents: u64,
    /// Families of these.
    pub families: u64,
    /// Those with remaining texts, and these texts.
    pub families_with_texts: u64,
    /// Visible texts of these families.
    pub texts: u64,
}

/// Counts what all takedowns of a plan leave of the affected families; `None` without any.
///
/// # Errors
/// A shard is missing or damaged.
pub fn remains(out: &Path, manifest: &Manifest, lock: &PlanLock) -> Result<Option<Remains>> {
    let listed = lock.takedowns.iter().flat_map(|takedown| &takedown.shards);
    let hidden: BTreeSet<(&str, u32)> =
        listed.flat_map(|shard| shard.docs.iter().map(|doc| (shard.name.as_str(), *doc))).collect();
    if hidden.is_empty() {
        return Ok(None);
    }
    let mut families = BTreeSet::new();
    for info in manifest.shards.iter().filter(|info| hidden.iter().any(|(name, _)| *name == info.name)) {
        let shard = intact::open(out, info)?;
        for doc in (0..shard.n_docs()).filter(|doc| hidden.contains(&(info.name.as_str(), *doc))) {
            families.insert(shard.meta(doc)?.family);
        }
    }
    let mut remains =
        Remains { documents: hidden.len() as u64, families: families.len() as u64, ..Remains::default() };
    for texts in members(out, manifest, &families)?.values() {
        let left =
            texts.iter().filter(|(shard, doc)| !hidden.contains(&(shard.as_str(), *doc))).count() as u64;
        remains.families_with_texts += u64::from(left > 0);
        remains.texts += left;
    }
    Ok(Some(remains))
}

/// All documents of these families, by shard and number.
fn members(
    out: &Path,
    manifest: &Manifest,
    families: &BTreeSet<FamilyId>,
) -> Result<BTreeMap<FamilyId, Vec<(String, u32)>>> {
    let mut members = BTreeMap::<FamilyId, Vec<(String, u32)>>::new();
    if families.is_empty() {
        return Ok(members);
    }
    for info in &manifest.shards {
        let shard = intact::open(out, info)?;
        for doc in 0..shard.n_docs() {
            let family = shard.meta(doc)?.family;
            if families.contains(&family) {
                members.entry(family).or_default().push((info.name.clone(), doc));
            }
        }
    }
    Ok(members)
}

/// The id of a family as `explain` and `why` print it.
fn family_id(text: &str) -> Option<FamilyId> {
    let is_id = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| is_id).map(FamilyId)
}

/// The documents of these names, in all shards: see [`lookup`]. Two documents of one source are never hidden by one name.
pub(super) fn find_documents<'n>(
    out: &Path,
    manifest: &Manifest,
    names: &'n [String],
) -> Result<Vec<TakedownShard>> {
    let wanted: BTreeSet<&'n str> = names.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // A document may have the name of a family, so whole names come first.
    let member = |name: &'n str| name.strip_prefix(FAMILY).map(str::trim);
    let names = wanted.iter().copied();
    let mut found = lookup::find(out, manifest, names.clone().chain(names.filter_map(member)))?;
    let mut families = BTreeSet::new();
    let mut known = BTreeSet::new();
    for name in wanted.iter().filter(|name| !found.contains_key(*name)) {
        let Some(inner) = member(name) else { continue };
        let ids: Vec<FamilyId> = match found.get(inner) {
            Some(places) => places.iter().map(|place| place.family).collect(),
            None => family_id(inner).into_iter().collect(),
        };
        known.extend(ids.iter().map(|id| (*id, *name)));
        families.extend(ids);
    }
    found.retain(|name, _| wanted.contains(name));
    let members = members(out, manifest, &families)?;
    let named: BTreeSet<&str> =
        known.iter().filter(|(id, _)| members.contains_key(id)).map(|(_, name)| *name).collect();
    let is_missing = |name: &&&str| !found.contains_key(**name) && !named.contains(**name);
    let missing: Vec<&str> = wanted.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        let n = missing.len();
        return Err(Error::Usage(format!(
            "--takedown: {n} of {} documents are in no shard: `{}`{}",
            wanted.len(),
            missing[..n.min(5)].join("`, `"),
            if n > 5 { " and more" } else { "" }
        )));
    }
    for (name, places) in &found {
        let alike: Vec<String> = (places.iter())
            .filter(|place| places.iter().any(|other| place.is_alike(other)))
            .map(|place| format!("`{}` ({} tokens)", place.exact_name(), place.n_tokens))
            .collect();
        if let Some(first) = places.first().filter(|_| !alike.is_empty()) {
            return Err(Error::Usage(format!(
                "--takedown: {} documents of one source are called `{name}`: {}; name those to hide as `SHARD:NUMBER` (`moe-data why {}` shows their files and texts)",
                alike.len(),
                alike.join(", "),
                first.id
            )));
        }
    }
    let mut by_shard = BTreeMap::<&str, BTreeSet<u32>>::new();
    let of_families = members.values().flatten();
    for (shard, doc) in of_families {
        by_shard.entry(shard).or_default().insert(*doc);
    }
    for place in found.values().flatten() {
        by_shard.entry(&place.shard_name).or_default().insert(place.doc);
    }
    let listed = |(name, docs): (&str, BTreeSet<u32>)| TakedownShard {
        name: name.to_owned(),
        docs: docs.into_iter().collect(),
    };
    Ok(by_shard.into_iter().map(listed).collect())
}
