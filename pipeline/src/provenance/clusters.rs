//! Clusters of duplicates: a document that stayed and all that were removed because of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::audit::{self, str_of};
use super::{Build, STAYING};
use crate::error::Result;

/// A cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// Value of `--cluster`: the number of a cluster of near-duplicates, or `source/name` of the document that stayed.
    pub cluster: String,
    /// `source/name` of the document that stayed; empty if none did.
    pub kept: String,
    /// Removed documents, in the order of their names.
    pub removed: Vec<Member>,
}

/// A document that went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Source.
    pub source: String,
    /// Name there.
    pub id: String,
    /// How it was found.
    pub method: String,
    /// Jaccard index with the document that stayed, if they were compared.
    pub jaccard: Option<f64>,
}

/// All clusters, the largest first, ties in the order of their names.
///
/// # Errors
/// An audit table cannot be read.
pub fn clusters(build: &Build) -> Result<Vec<Cluster>> {
    let mut found: BTreeMap<(String, String), Vec<Member>> = BTreeMap::new();
    audit::for_each(build.out(), "dups-", &[], |row| {
        // What stays is only reported.
        if STAYING.contains(&str_of(&row, "method")) {
            return;
        }
        let kept = match str_of(&row, "kept") {
            "" => String::new(),
            kept => match str_of(&row, "against") {
                "" => format!("{}/{kept}", str_of(&row, "kept_source")),
                build => format!("{build}: {}/{kept}", str_of(&row, "kept_source")),
            },
        };
        let number = row.get("cluster").and_then(serde_json::Value::as_u64);
        let cluster = number.map_or_else(|| kept.clone(), |number| number.to_string());
        found.entry((cluster, kept)).or_default().push(Member {
            source: str_of(&row, "removed_source").to_owned(),
            id: str_of(&row, "removed").to_owned(),
            method: str_of(&row, "method").to_owned(),
            jaccard: row.get("jaccard").and_then(serde_json::Value::as_f64),
        });
    })?;
    let mut clusters: Vec<Cluster> = (found.into_iter())
        .map(|((cluster, kept), mut removed)| {
            removed.sort_by(|a, b| (&a.source, &a.id, &a.method).cmp(&(&b.source, &b.id, &b.method)));
            Cluster { cluster, kept, removed }
        })
        .collect();
    // Stable, so that equal sizes stay in the order of their names.
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.removed.len()));
    Ok(clusters)
}
