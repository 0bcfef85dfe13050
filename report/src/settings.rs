//! Settings side by side: what differs between configurations, and all of their keys.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::figure::{Cell, Table};

/// Every key of a configuration with its value.
pub type Settings = BTreeMap<String, String>;

/// A configuration in TOML as one flat table; tables in lists are numbered from 0.
///
/// # Errors
/// The text is not TOML.
pub fn flat(text: &str) -> Result<Settings, toml::de::Error> {
    let table: toml::Table = text.parse()?;
    let mut flat = BTreeMap::new();
    flatten("", &toml::Value::Table(table), &mut flat);
    Ok(flat)
}

fn flatten(key: &str, value: &toml::Value, flat: &mut Settings) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(name, value)| flatten(&below(name), value, flat))
        }
        toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {
            values.iter().enumerate().for_each(|(i, value)| flatten(&below(&i.to_string()), value, flat));
        }
        toml::Value::String(text) => {
            flat.insert(key.to_owned(), text.clone());
        }
        _ => {
            flat.insert(key.to_owned(), value.to_string());
        }
    }
}

/// The keys that differ between several configurations, then all keys, folded away.
pub fn side_by_side(named: &[(&str, &Settings)]) -> Markup {
    let mut keys: Vec<&String> = named.iter().flat_map(|(_, settings)| settings.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |keys: &[&String]| {
        let columns =
            std::iter::once("key".to_owned()).chain(named.iter().map(|(name, _)| (*name).to_owned()));
        let row = |key: &&String| {
            let values = named.iter().map(|(_, settings)| {
                settings.get(*key).map_or(Cell::Empty, |value| Cell::Text(value.clone()))
            });
            std::iter::once(Cell::Text((*key).clone())).chain(values).collect()
        };
        Table { columns: columns.collect(), rows: keys.iter().map(row).collect() }
    };
    let differs =
        |key: &&String| named.iter().any(|(_, settings)| settings.get(*key) != named[0].1.get(*key));
    let differing: Vec<&String> = keys.iter().copied().filter(differs).collect();
    html! {
        @if named.len() > 1 {
            h3 { "What differs" }
            @if differing.is_empty() { p { "Nothing: they have the same configuration." } }
            @else { (of(&differing).html()) }
        }
        details {
            summary { "All " (keys.len()) " keys" }
            (of(&keys).html())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_flat_and_their_differences_found() {
        let a = flat("[run]\nseed = 1\n[[optim.group]]\nnames = [\"a\"]\nlr = 0.5\n").unwrap();
        let text: Vec<_> = a.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(text, ["optim.group.0.lr=0.5", "optim.group.0.names=[\"a\"]", "run.seed=1"]);
        let b = flat("[run]\nseed = 2\n[[optim.group]]\nnames = [\"a\"]\nlr = 0.5\n").unwrap();
        let page = side_by_side(&[("<a>", &a), ("b", &b)]).into_string();
        let (differing, all) = page.split_once("<details>").unwrap();
        assert!(differing.contains("run.seed") && !differing.contains("optim.group"), "{differing}");
        assert!(all.contains("optim.group.0.lr") && !page.contains("<a>"), "{all}");
        assert!(flat("a = ").is_err());
    }
}
