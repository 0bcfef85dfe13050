//! `cvt`, from one type to another (PTX ISA 8.7, section 9.7.9.21).

use crate::float::{bits, f32_of, from_bf16, from_f16, to_bf16, to_f16, to_tf32};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Signed(u32),
    Unsigned(u32),
    Half,
    Brain,
    Single,
    Double,
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "s8" | "s16" | "s32" | "s64" => Kind::Signed(name[1..].parse().ok()?),
        "u8" | "u16" | "u32" | "u64" => Kind::Unsigned(name[1..].parse().ok()?),
        "f16" => Kind::Half,
        "bf16" => Kind::Brain,
        "f32" => Kind::Single,
        "f64" => Kind::Double,
        _ => return None,
    })
}

/// The conversion with these parts of the opcode, after `cvt`.
pub(crate) fn conversion(parts: &[&str]) -> Option<Box<dyn Fn(u64) -> u64 + Send + Sync>> {
    let (modifiers, types) = parts.split_at(parts.len().checked_sub(2)?);
    let [to, from] = types else { return None };
    let has = |name: &str| modifiers.contains(&name);
    let is_known = |name: &&str| {
        ["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi", "sat", "ftz", "approx"].contains(name)
    };
    if !modifiers.iter().all(is_known) || has("rm") || has("rp") {
        return None;
    }
    if *to == "tf32" {
        return (*from == "f32" && has("rna")).then(|| Box::new(|x| to_tf32(f32_of(x))) as _);
    }
    let (to, from) = (kind(to)?, kind(from)?);
    let is_saturated = has("sat");
    let round = match modifiers.iter().find(|name| name.ends_with('i')) {
        Some(&"rni") => f64::round_ties_even,
        Some(&"rzi") => f64::trunc,
        Some(&"rmi") => f64::floor,
        Some(&"rpi") => f64::ceil,
        _ => |x| x,
    };
    if has("rz") && matches!(to, Kind::Half | Kind::Brain | Kind::Single) && from != to {
        return None;
    }
    let is_integer = |kind| matches!(kind, Kind::Signed(_) | Kind::Unsigned(_));
    Some(match (is_integer(from), is_integer(to)) {
        (true, true) => Box::new(move |x| {
            let value = integer(from, x);
            cut(to, if is_saturated { value.clamp(range(to).0, range(to).1) } else { value })
        }),
        (true, false) => Box::new(move |x| {
            // Directly to f32: through f64, large integers would be rounded twice.
            let value = integer(from, x);
            match to {
                Kind::Double => (value as f64).to_bits(),
                _ => narrow(to, value as f32),
            }
        }),
        (false, true) => Box::new(move |x| {
            let value = round(float(from, x));
            let (low, high) = range(to);
            let value = if value.is_nan() { 0 } else { (value as i128).clamp(low, high) };
            cut(to, value)
        }),
        (false, false) => Box::new(move |x| {
            let value = round(float(from, x));
            // NaN becomes 0.
            let value = match is_saturated {
                true if value.is_nan() => 0.0,
                true => value.clamp(0.0, 1.0),
                false => value,
            };
            match to {
                Kind::Double => value.to_bits(),
                _ => narrow(to, value as f32),
            }
        }),
    })
}

fn integer(kind: Kind, bits: u64) -> i128 {
    match kind {
        Kind::Signed(width) => i128::from((bits << (64 - width)) as i64 >> (64 - width)),
        Kind::Unsigned(width) => i128::from(bits << (64 - width) >> (64 - width)),
        _ => 0,
    }
}

fn range(kind: Kind) -> (i128, i128) {
    match kind {
        Kind::Signed(width) => (-(1 << (width - 1)), (1 << (width - 1)) - 1),
        Kind::Unsigned(width) => (0, (1 << width) - 1),
        _ => (0, 0),
    }
}

/// The value in the register: narrow signed types are extended to 32 bits.
fn cut(kind: Kind, value: i128) -> u64 {
    match kind {
        Kind::Signed(width) if width < 32 => integer(kind, value as u64) as u32 as u64,
        Kind::Signed(width) | Kind::Unsigned(width) => (value as u64) << (64 - width) >> (64 - width),
        _ => value as u64,
    }
}

fn float(kind: Kind, bits: u64) -> f64 {
    match kind {
        Kind::Half => f64::from(from_f16(bits)),
        Kind::Brain => f64::from(from_bf16(bits)),
        Kind::Single => f64::from(f32_of(bits)),
        _ => f64::from_bits(bits),
    }
}

fn narrow(kind: Kind, value: f32) -> u64 {
    match kind {
        Kind::Half => to_f16(value),
        Kind::Brain => to_bf16(value),
        _ => bits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, x: u64) -> u64 {
        conversion(&name.split('.').collect::<Vec<_>>()).unwrap()(x)
    }

    #[test]
    fn conversions_are_those_of_the_manual() {
        assert_eq!(run("u64.u32", 0xffff_ffff_8000_0000), 0x8000_0000);
        assert_eq!(run("s64.s32", 0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!(run("s32.s8", 0xff), 0xffff_ffff);
        assert_eq!(f32_of(run("rn.f32.s32", 0xffff_ffff)), -1.0);
        assert_eq!(f32_of(run("rn.f32.u32", 16_777_217)), 16_777_216.0);
        assert_eq!(run("rzi.s32.f32", bits(-1.9)), 0xffff_ffff);
        assert_eq!(run("rni.s32.f32", bits(2.5)), 2);
        assert_eq!(run("rzi.u32.f32", bits(-3.0)), 0);
        assert_eq!(run("rzi.s32.f32", bits(f32::NAN)), 0);
        assert_eq!(f32_of(run("sat.f32.f32", bits(7.0))), 1.0);
        assert_eq!(run("rn.bf16.f32", bits(1.0)), 0x3f80);
        assert!(conversion(&["e4m3x2", "f32"]).is_none());
    }
}
