//! Documents of a build by the names people use: `NAME`, `SOURCE/NAME`, or `SHARD:NUMBER`, which is never ambiguous.

use std::collections::BTreeMap;
use std::path::Path;

use moe_shards::{FamilyId, Manifest};

use crate::error::Result;
use crate::intact;

/// A document in the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the shard in the manifest.
    pub shard: u32,
    /// Its name.
    pub shard_name: String,
    /// Number of the document in it, from 0.
    pub doc: u32,
    /// Position of its source in the manifest.
    pub source: u16,
    /// Which text of its family it is.
    pub variant: u8,
    /// Its family.
    pub family: FamilyId,
    /// Its name in its source.
    pub id: String,
    /// Its tokens, with the end of document.
    pub n_tokens: u64,
}

impl Place {
    /// A name that no other document has.
    pub fn exact_name(&self) -> String {
        format!("{}:{}", self.shard_name, self.doc)
    }

    /// Whether another document has the same name in the same source, as the same variant.
    pub fn is_alike(&self, other: &Place) -> bool {
        (self.source, self.variant, &self.id) == (other.source, other.variant, &other.id)
            && (self.shard, self.doc) != (other.shard, other.doc)
    }
}

/// The documents that each name means, in the order of the shards. A name that no document has is not in the result.
///
/// # Errors
/// A shard is missing or damaged.
pub fn find<'n>(
    out: &Path,
    manifest: &Manifest,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<BTreeMap<&'n str, Vec<Place>>> {
    // What to look for in each shard: bare names, names after a source, and numbers.
    let names: Vec<&str> = names.into_iter().collect();
    let mut found = BTreeMap::<&str, Vec<Place>>::new();
    for (number, info) in (0..).zip(&manifest.shards) {
        let source = manifest.sources.get(usize::from(info.source)).map(|source| source.name.as_str());
        let mut by_id = BTreeMap::<&str, Vec<&str>>::new();
        let mut by_number = BTreeMap::<u32, Vec<&str>>::new();
        for &name in &names {
            by_id.entry(name).or_default().push(name);
            if let Some(inner) =
                source.and_then(|source| name.strip_prefix(source)).and_then(|rest| rest.strip_prefix('/'))
            {
                by_id.entry(inner).or_default().push(name);
            }
            let place = name.strip_prefix(&info.name).and_then(|rest| rest.strip_prefix(':'));
            if let Some(doc) = place.and_then(|doc| doc.parse().ok()) {
                by_number.entry(doc).or_default().push(name);
            }
        }
        let shard = intact::open(out, info)?;
        for doc in 0..shard.n_docs() {
            let id = shard.id(doc)?;
            let called = by_id.get(id).into_iter().chain(by_number.get(&doc)).flatten();
            for &name in called {
                let meta = shard.meta(doc)?;
                found.entry(name).or_default().push(Place {
                    shard: number,
                    shard_name: info.name.clone(),
                    doc,
                    source: info.source,
                    variant: info.variant,
                    family: meta.family,
                    id: id.to_owned(),
                    n_tokens: shard.span(doc)?.1,
                });
            }
        }
    }
    Ok(found)
}
