//! Formats of floating-point numbers, as bits.

pub(crate) fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

pub(crate) fn bits(value: f32) -> u64 {
    u64::from(value.to_bits())
}

pub(crate) fn from_bf16(bits: u64) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// To nearest, ties to even.
pub(crate) fn to_bf16(value: f32) -> u64 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    u64::from((bits + 0x7fff + (bits >> 16 & 1)) >> 16)
}

pub(crate) fn from_f16(bits: u64) -> f32 {
    let bits = bits as u32;
    let (sign, exponent, fraction) = ((bits & 0x8000) << 16, bits >> 10 & 0x1f, bits & 0x3ff);
    let magnitude = match exponent {
        0 => return f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// To nearest, ties to even.
pub(crate) fn to_f16(value: f32) -> u64 {
    let bits = value.to_bits();
    let sign = u64::from(bits >> 16 & 0x8000);
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    if value.is_nan() {
        return 0x7fff;
    }
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    if magnitude < 2f32.powi(-14) {
        return sign | (magnitude * 2f32.powi(24)).round_ties_even() as u64;
    }
    let bits = magnitude.to_bits();
    sign | u64::from((bits - (112 << 23) + 0xfff + (bits >> 13 & 1)) >> 13)
}

/// To the 10 bits of TF32, to nearest, ties away from zero (`cvt.rna`).
pub(crate) fn to_tf32(value: f32) -> u64 {
    if !value.is_finite() {
        return bits(value);
    }
    u64::from((value.to_bits() + 0x1000) & !0x1fff)
}

/// The bits of a TF32 factor that a tensor core reads.
pub(crate) fn from_tf32(bits: u64) -> f32 {
    f32::from_bits(bits as u32 & !0x1fff)
}

/// `a * b + c` of f32, rounded to f64 in between.
pub(crate) fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_round_to_nearest() {
        assert_eq!(to_bf16(1.0), 0x3f80);
        // 1 + 2^-8 is between 1 and 1 + 2^-7, a tie, which goes to even; 1 + 3 * 2^-8 goes up.
        assert_eq!(to_bf16(1.0 + 2f32.powi(-8)), 0x3f80);
        assert_eq!(to_bf16(1.0 + 3.0 * 2f32.powi(-8)), 0x3f82);
        assert_eq!(to_f16(1.0), 0x3c00);
        assert_eq!(to_f16(65_519.0), 0x7bff);
        assert_eq!(to_f16(65_520.0), 0x7c00);
        assert_eq!(to_f16(2f32.powi(-24)), 1);
        assert_eq!(from_tf32(to_tf32(1.0 + 2f32.powi(-11))), 1.0 + 2f32.powi(-10));
        for half in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(to_f16(from_f16(half)), half);
        }
    }
}
