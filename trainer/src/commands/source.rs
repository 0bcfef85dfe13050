//! Assembles a configuration from a preset or file and single keys.

use std::path::Path;

use crate::cli::ConfigSource;
use crate::config::value::Value;
use crate::config::{PRESETS, Preset, Values};
use crate::device::DeviceChoice;
use crate::error::{Error, Result};

/// The default preset.
pub(super) const DEFAULT_PRESET: &str = "tiny";

/// Values, the problems found so far, and the name they go by.
pub(super) struct Source {
    pub(super) values: Values,
    pub(super) problems: Vec<String>,
    /// Name of the preset or of the file, without folder and ending.
    pub(super) name: String,
    /// Where the values come from, for people.
    pub(super) origin: String,
}

impl Source {
    /// The values that can be changed.
    pub(super) fn new(values: Values) -> Self {
        Self { values, problems: Vec::new(), name: String::new(), origin: String::new() }
    }

    /// Gives a key the path of a flag.
    pub(super) fn set_path(&mut self, flag: &str, key: &'static str, path: &Path) {
        match path.to_str() {
            Some(text) => self.values.set(key, Value::Text(text.to_string().into())),
            // A configuration is text: a path that is not UTF-8 would be recorded incorrectly.
            None => self.problems.push(format!("{flag} {}: expected a path that is UTF-8", path.display())),
        }
    }

    /// Flags of single keys come last.
    pub(super) fn apply(&mut self, shards: Option<&Path>, steps: Option<u64>, device: Option<DeviceChoice>) {
        if let Some(shards) = shards {
            self.set_path("--shards", "data.shards", shards);
        }
        let flags = [
            ("run.steps", steps.map(|steps| steps.to_string())),
            ("run.device", device.map(|device| device.to_string())),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                self.values.read_assignment(&format!("{key}={value}"), &mut self.problems);
            }
        }
    }
}

/// Reads preset or file, then `--set`.
pub(super) fn read(source: &ConfigSource) -> Result<Source> {
    let (mut values, mut problems) = (Values::default(), Vec::new());
    let (name, origin) = match (&source.config, &source.preset) {
        (Some(path), _) => {
            let file = of_file(path)?;
            (values, problems) = (file.values, file.problems);
            (file.name, file.origin)
        }
        (None, asked) => {
            let name = asked.as_deref().unwrap_or(DEFAULT_PRESET);
            let preset = Preset::find(name).ok_or_else(|| unknown_preset(name))?;
            values.read_toml(preset.toml, &format!("preset {name}"), &mut problems);
            let why = if asked.is_some() { "requested" } else { "the default" };
            (name.to_string(), format!("preset {name} ({why})"))
        }
    };
    for assignment in &source.set {
        values.read_assignment(assignment, &mut problems);
    }
    Ok(Source { values, problems, name, origin })
}

/// Reads a file.
pub(super) fn of_file(path: &Path) -> Result<Source> {
    let mut source = Source::new(Values::default());
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    source.values.read_toml(&text, &path.display().to_string(), &mut source.problems);
    source.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    source.origin = format!("configuration {}", path.display());
    Ok(source)
}

fn unknown_preset(name: &str) -> Error {
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    Error::Usage(format!("unknown preset {name:?}; available: {}", names.join(", ")))
}
