//! How a part of the program declares its settings: a struct whose fields are keys, each with its
//! documentation, default and range in one place. `settings!` makes the struct and its [`Key`]s.

pub mod value;

use serde::Serialize;
use serde::de::DeserializeOwned;

use value::{Kind, Value};

/// One configuration key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Section and name, as in `moe.router.score`.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Value when the key is absent; `None` means derived or off, as `doc` says.
    pub default: Option<Value>,
    /// Whether the trained parameters depend on it. Such keys enter the fingerprint, and a resumed
    /// run may not change them.
    pub identity: bool,
    /// What it does, with its unit.
    pub doc: &'static str,
    /// If only some kinds have this key: the key that selects the kind, and the kinds that have it.
    pub of: Option<(&'static str, Vec<&'static str>)>,
}

/// A struct of settings.
pub trait Section: DeserializeOwned {
    /// Its section of the configuration, as in `moe.router`.
    const SECTION: &'static str;

    /// Its keys, in the order of its fields.
    fn keys() -> Vec<Key>;
}

/// Largest count, as of steps.
pub const MANY: i64 = 1 << 40;

/// Largest width of a part.
pub const WIDE: i64 = 1 << 20;

/// A whole number from `min` to `max`.
pub const fn int(min: i64, max: i64) -> Kind {
    Kind::Int { min, max }
}

/// A number from `min` to `max`.
pub const fn float(min: f64, max: f64) -> Kind {
    Kind::Float { min, max }
}

/// A documentation comment without the space at its start.
pub const fn without_space(doc: &'static str) -> &'static str {
    doc.split_at(1).1
}

/// Makes a struct of settings from its fields: documentation, name, type, default, [`Kind`], and `free` for
/// one that the trained parameters do not depend on. A field that may be absent is an `Option`.
///
/// ```
/// use moe_train::settings::{Section, float};
///
/// moe_train::settings! {
///     /// Settings of an example.
///     pub struct Example in "moe.example" {
///         /// strength of the example; 0 is off
///         strength: f64 = 0.0, float(0.0, 1.0);
///     }
/// }
///
/// let key = &Example::keys()[0];
/// assert_eq!((key.name, key.doc), ("moe.example.strength", "strength of the example; 0 is off"));
/// assert_eq!(Example::default().strength, 0.0);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $kind:expr $(, $free:ident)?;)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::settings::Section for $name {
            const SECTION: &'static str = $section;

            fn keys() -> Vec<$crate::settings::Key> {
                vec![$($crate::settings::Key {
                    name: concat!($section, ".", stringify!($field)),
                    kind: $kind,
                    default: $crate::settings::default_of::<$type>(&$default),
                    identity: $crate::settings!(@identity $($free)?),
                    doc: $crate::settings::without_space(concat!($($doc),+)),
                    of: None,
                }),+]
            }
        }
    };
    (@identity) => { true };
    (@identity free) => { false };
}

/// The default of a setting as a value; none if it is absent.
///
/// # Panics
/// When the type of a setting is neither a number nor a Boolean nor a word, which shows up as soon as any key
/// is used.
pub fn default_of<T: Serialize>(default: &T) -> Option<Value> {
    use serde_json::Value as Json;
    match serde_json::to_value(default) {
        Ok(Json::Null) => None,
        Ok(Json::Bool(b)) => Some(Value::Bool(b)),
        Ok(Json::String(text)) => Some(Value::Text(text.into())),
        Ok(Json::Array(words)) => {
            Some(Value::Words(words.iter().filter_map(|word| Some(word.as_str()?.to_string())).collect()))
        }
        Ok(Json::Number(n)) => n.as_i64().map(Value::Int).or_else(|| n.as_f64().map(Value::Float)),
        other => panic!("a setting is a number, a switch or a word, not {other:?}"),
    }
}

/// Where settings are read from: the value of each key, given or default.
pub trait Values {
    /// The value of a key; none if it has neither.
    fn value(&self, name: &str) -> Option<Value>;
}

/// A struct of settings from the values of its keys.
///
/// # Errors
/// What is wrong, with the section.
pub fn read<T: Section>(values: &dyn Values) -> Result<T, String> {
    let mut table = toml::Table::new();
    for key in T::keys() {
        let field = key.name.rsplit('.').next().unwrap_or(key.name);
        if let Some(value) = values.value(key.name) {
            table.insert(field.to_string(), value.into());
        }
    }
    T::deserialize(table).map_err(|error| format!("[{}]: {}", T::SECTION, error.to_string().trim_end()))
}

/// The message that a word is not a kind in a registry.
pub fn unknown_kind(key: &str, kinds: &[&str], found: &str) -> String {
    format!("`{key}`: expected one of {}, found {found:?}", kinds.join(", "))
}
