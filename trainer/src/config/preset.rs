//! Presets: complete configurations that are part of the program.

/// A named configuration.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its TOML text.
    pub toml: &'static str,
}

/// All presets; the same files are in `configs/train/`.
pub const PRESETS: &[Preset] = &[
    Preset { name: "smoke", toml: include_str!("../../../configs/train/smoke.toml") },
    Preset { name: "tiny", toml: include_str!("../../../configs/train/tiny.toml") },
    Preset { name: "char", toml: include_str!("../../../configs/train/char.toml") },
    Preset { name: "mini-1b", toml: include_str!("../../../configs/train/mini-1b.toml") },
    Preset { name: "wide-1b", toml: include_str!("../../../configs/train/wide-1b.toml") },
    Preset { name: "speedrun-moe64", toml: include_str!("../../../configs/train/speedrun-moe64.toml") },
    Preset { name: "moonlet-7b", toml: include_str!("../../../configs/train/moonlet-7b.toml") },
];

impl Preset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<Self> {
        PRESETS.iter().copied().find(|preset| preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RunConfig, Values};

    #[test]
    fn every_preset_is_valid() {
        for preset in PRESETS {
            let (mut values, mut problems) = (Values::default(), Vec::new());
            values.read_toml(preset.toml, preset.name, &mut problems);
            assert!(RunConfig::new(values, problems).is_ok(), "{}", preset.name);
        }
    }
}
