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
    Preset { name: "mixtral-8x7b", toml: include_str!("../../../configs/train/mixtral-8x7b.toml") },
    Preset { name: "olmoe-1b-7b", toml: include_str!("../../../configs/train/olmoe-1b-7b.toml") },
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
    use crate::model::size::size;

    #[test]
    fn every_preset_is_valid() {
        for preset in PRESETS {
            let (mut values, mut problems) = (Values::default(), Vec::new());
            values.read_toml(preset.toml, preset.name, &mut problems);
            assert!(RunConfig::new(values, problems).is_ok(), "{}", preset.name);
        }
    }

    #[test]
    fn published_models_have_their_published_sizes() {
        let size = |name: &str, vocab: usize| {
            let (mut values, mut problems) = (Values::default(), Vec::new());
            values.read_toml(Preset::find(name).expect("a preset").toml, name, &mut problems);
            size(&RunConfig::new(values, problems).expect("valid").model(vocab, 4096))
        };
        // A block of Mixtral: attention 2 * 4096^2 + 2 * 4096 * 1024, experts 8 * 3 * 4096 * 14336, router 8 * 4096, norms.
        let mixtral = size("mixtral-8x7b", 32_000);
        assert_eq!(mixtral.total, 32 * 1_451_270_144 + 2 * 32_000 * 4096 + 4096);
        assert_eq!(mixtral.active / 100_000_000, 128);
        // The released weights of OLMoE have 6,919,161,856, of which 16 * 2 * (2048 - 128) are scales of
        // queries and keys that are shared by heads here.
        let olmoe = size("olmoe-1b-7b", 50_304);
        assert_eq!(olmoe.total, 6_919_161_856 - 16 * 2 * (2048 - 128));
        assert_eq!(olmoe.active / 10_000_000, 128);
    }
}
