//! Arithmetic and logic on each lane separately (PTX ISA 8.7, sections 9.7.1 to 9.7.5 and 9.7.8).

use crate::float::{bits, f32_of, from_bf16, from_f16, fused, to_bf16, to_f16};
use crate::warp::{Effect, Lanes};

#[inline]
pub(crate) fn map1(to: usize, a: usize, f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Option<Effect> {
    Some(Box::new(move |warp, mask| {
        let a = &warp.registers[a];
        let values: Lanes = std::array::from_fn(|lane| f(a[lane]));
        warp.assign(to, mask, &values);
    }))
}

#[inline]
pub(crate) fn map2(
    to: usize,
    a: usize,
    b: usize,
    f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static,
) -> Option<Effect> {
    Some(Box::new(move |warp, mask| {
        let (a, b) = (&warp.registers[a], &warp.registers[b]);
        let values: Lanes = std::array::from_fn(|lane| f(a[lane], b[lane]));
        warp.assign(to, mask, &values);
    }))
}

#[inline]
pub(crate) fn map3(
    [to, a, b, c]: [usize; 4],
    f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static,
) -> Option<Effect> {
    Some(Box::new(move |warp, mask| {
        let (a, b, c) = (&warp.registers[a], &warp.registers[b], &warp.registers[c]);
        let values: Lanes = std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]));
        warp.assign(to, mask, &values);
    }))
}

pub(crate) fn one(to: usize, a: usize, parts: &[&str], last: &str) -> Option<Effect> {
    match (parts[0], last) {
        ("cvta", _) if !parts.contains(&"to") => {
            let base = match parts {
                [_, "shared", ..] => crate::memory::SHARED,
                [_, "local", ..] => crate::memory::LOCAL,
                [_, "param", ..] => crate::memory::PARAM,
                _ => return map1(to, a, |a| a),
            };
            map1(to, a, move |a| base | (a & 0xffff_ffff))
        }
        ("cvta", _) => map1(to, a, |a| a),
        ("not", "pred") => map1(to, a, |a| a & 1 ^ 1),
        ("not", "b16") => map1(to, a, |a| !a & 0xffff),
        ("not", "b32") => map1(to, a, |a| !a & 0xffff_ffff),
        ("not", "b64") => map1(to, a, |a| !a),
        ("neg", "s32") => map1(to, a, |a| u64::from((a as u32).wrapping_neg())),
        ("neg", "s64") => map1(to, a, |a| a.wrapping_neg()),
        ("neg", "f32") => map1(to, a, |a| (a ^ 0x8000_0000) & 0xffff_ffff),
        ("neg", "f64") => map1(to, a, |a| a ^ (1 << 63)),
        ("neg", "bf16") => map1(to, a, |a| (a ^ 0x8000) & 0xffff),
        ("abs", "s32") => map1(to, a, |a| u64::from((a as i32).unsigned_abs())),
        ("abs", "s64") => map1(to, a, |a| (a as i64).unsigned_abs()),
        ("abs", "f32") => map1(to, a, |a| a & 0x7fff_ffff),
        ("abs", "f64") => map1(to, a, |a| a & (u64::MAX >> 1)),
        ("abs", "bf16") => map1(to, a, |a| a & 0x7fff),
        ("popc", "b32") => map1(to, a, |a| u64::from((a as u32).count_ones())),
        ("popc", "b64") => map1(to, a, |a| u64::from(a.count_ones())),
        ("clz", "b32") => map1(to, a, |a| u64::from((a as u32).leading_zeros())),
        ("clz", "b64") => map1(to, a, |a| u64::from(a.leading_zeros())),
        ("brev", "b32") => map1(to, a, |a| u64::from((a as u32).reverse_bits())),
        ("bfind", "u32") if !parts.contains(&"shiftamt") => {
            map1(to, a, |a| u64::from(31u32.wrapping_sub((a as u32).leading_zeros())))
        }
        ("ex2", "f32") => float1(to, a, f32::exp2),
        ("lg2", "f32") => float1(to, a, f32::log2),
        ("rcp", "f32") => float1(to, a, |a| 1.0 / a),
        ("sqrt", "f32") => float1(to, a, f32::sqrt),
        ("rsqrt", "f32") => float1(to, a, |a| 1.0 / a.sqrt()),
        ("sin", "f32") => float1(to, a, f32::sin),
        ("cos", "f32") => float1(to, a, f32::cos),
        ("tanh", "f32") => float1(to, a, f32::tanh),
        ("rcp", "f64") => map1(to, a, |a| (1.0 / f64::from_bits(a)).to_bits()),
        ("sqrt", "f64") => map1(to, a, |a| f64::from_bits(a).sqrt().to_bits()),
        _ => None,
    }
}

fn float1(to: usize, a: usize, f: fn(f32) -> f32) -> Option<Effect> {
    map1(to, a, move |a| bits(f(f32_of(a))))
}

fn float2(
    to: usize,
    a: usize,
    b: usize,
    f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static,
) -> Option<Effect> {
    map2(to, a, b, move |a, b| bits(f(f32_of(a), f32_of(b))))
}

fn double2(to: usize, a: usize, b: usize, f: fn(f64, f64) -> f64) -> Option<Effect> {
    map2(to, a, b, move |a, b| f(f64::from_bits(a), f64::from_bits(b)).to_bits())
}

/// Two packed halves.
fn packed(a: u64, b: u64, from: fn(u64) -> f32, to: fn(f32) -> u64, f: fn(f32, f32) -> f32) -> u64 {
    let low = to(f(from(a & 0xffff), from(b & 0xffff)));
    low | to(f(from(a >> 16 & 0xffff), from(b >> 16 & 0xffff))) << 16
}

fn maximum(a: f32, b: f32) -> f32 {
    a.max(b)
}

fn minimum(a: f32, b: f32) -> f32 {
    a.min(b)
}

fn with_nan(f: fn(f32, f32) -> f32) -> impl Fn(f32, f32) -> f32 {
    move |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { f(a, b) }
}

fn arithmetic(name: &str) -> Option<fn(f32, f32) -> f32> {
    Some(match name {
        "add" => |a, b| a + b,
        "sub" => |a, b| a - b,
        "mul" => |a, b| a * b,
        "div" => |a, b| a / b,
        "max" => maximum,
        "min" => minimum,
        _ => return None,
    })
}

pub(crate) fn two(to: usize, a: usize, b: usize, parts: &[&str], last: &str) -> Option<Effect> {
    let name = parts[0];
    let is_wide = parts.contains(&"wide");
    let is_high = parts.contains(&"hi");
    match last {
        "f32" if parts.contains(&"NaN") => return float2(to, a, b, with_nan(arithmetic(name)?)),
        "f32" if name == "copysign" => {
            return map2(to, a, b, |a, b| (a & 0x8000_0000) | (b & 0x7fff_ffff));
        }
        "f32" => return float2(to, a, b, arithmetic(name)?),
        "bf16" => {
            let f = arithmetic(name)?;
            return map2(to, a, b, move |a, b| to_bf16(f(from_bf16(a & 0xffff), from_bf16(b & 0xffff))));
        }
        "f16" => {
            let f = arithmetic(name)?;
            return map2(to, a, b, move |a, b| to_f16(f(from_f16(a), from_f16(b))));
        }
        "bf16x2" => {
            let f = arithmetic(name)?;
            return map2(to, a, b, move |a, b| packed(a, b, from_bf16, to_bf16, f));
        }
        _ => {}
    }
    let narrow = |f: fn(u32, u32) -> u32| map2(to, a, b, move |a, b| u64::from(f(a as u32, b as u32)));
    let signed = |f: fn(i32, i32) -> i32| map2(to, a, b, move |a, b| u64::from(f(a as i32, b as i32) as u32));
    let wide = |f: fn(u64, u64) -> u64| map2(to, a, b, f);
    match (name, last) {
        ("mul", "u32") if is_wide => wide(|a, b| u64::from(a as u32) * u64::from(b as u32)),
        ("mul", "s32") if is_wide => wide(|a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        ("mul", "u16") if is_wide => wide(|a, b| u64::from(a as u16) * u64::from(b as u16)),
        ("mul", "s16") if is_wide => {
            wide(|a, b| u64::from((i32::from(a as i16) * i32::from(b as i16)) as u32))
        }
        ("mul", "u32") if is_high => narrow(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mul", "s32") if is_high => signed(|a, b| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        ("mul", "u16") if is_high => wide(|a, b| ((a & 0xffff) * (b & 0xffff)) >> 16),
        ("mul", "u64") if is_high => wide(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mul", _) if is_high || is_wide => None,
        ("add", "s32" | "u32") => narrow(u32::wrapping_add),
        ("sub", "s32" | "u32") => narrow(u32::wrapping_sub),
        ("mul", "s32" | "u32") => narrow(u32::wrapping_mul),
        ("add", "s64" | "u64") => wide(u64::wrapping_add),
        ("sub", "s64" | "u64") => wide(u64::wrapping_sub),
        ("mul", "s64" | "u64") => wide(u64::wrapping_mul),
        ("add", "s16" | "u16") => wide(|a, b| a.wrapping_add(b) & 0xffff),
        ("sub", "s16" | "u16") => wide(|a, b| a.wrapping_sub(b) & 0xffff),
        ("mul", "s16" | "u16") => wide(|a, b| a.wrapping_mul(b) & 0xffff),
        ("div", "u32") => narrow(|a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        ("div", "s32") => signed(|a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
        ("rem", "u32") => narrow(|a, b| a.checked_rem(b).unwrap_or(a)),
        ("rem", "s32") => signed(|a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
        ("div", "u64") => wide(|a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        ("rem", "u64") => wide(|a, b| a.checked_rem(b).unwrap_or(a)),
        ("div", "s64") => wide(|a, b| (a as i64).checked_div(b as i64).unwrap_or(-1) as u64),
        ("rem", "s64") => wide(|a, b| (a as i64).checked_rem(b as i64).unwrap_or(a as i64) as u64),
        ("min", "u32") => narrow(u32::min),
        ("max", "u32") => narrow(u32::max),
        ("min", "s32") => signed(i32::min),
        ("max", "s32") => signed(i32::max),
        ("min", "u64") => wide(u64::min),
        ("max", "u64") => wide(u64::max),
        ("min", "s64") => wide(|a, b| (a as i64).min(b as i64) as u64),
        ("max", "s64") => wide(|a, b| (a as i64).max(b as i64) as u64),
        ("and", _) => wide(|a, b| a & b),
        ("or", _) => wide(|a, b| a | b),
        ("xor", _) => wide(|a, b| a ^ b),
        ("shl", "b16") => wide(|a, b| if b as u32 > 15 { 0 } else { a << b & 0xffff }),
        ("shl", "b32") => narrow(|a, b| a.checked_shl(b).unwrap_or(0)),
        ("shl", "b64") => wide(|a, b| a.checked_shl(b as u32).unwrap_or(0)),
        ("shr", "u16" | "b16") => wide(|a, b| (a & 0xffff).checked_shr(b as u32).unwrap_or(0)),
        ("shr", "u32" | "b32") => narrow(|a, b| a.checked_shr(b).unwrap_or(0)),
        ("shr", "u64" | "b64") => wide(|a, b| a.checked_shr(b as u32).unwrap_or(0)),
        ("shr", "s32") => signed(|a, b| a >> (b as u32).min(31)),
        ("shr", "s64") => wide(|a, b| ((a as i64) >> (b as u32).min(63)) as u64),
        ("add", "f64") => double2(to, a, b, |a, b| a + b),
        ("sub", "f64") => double2(to, a, b, |a, b| a - b),
        ("mul", "f64") => double2(to, a, b, |a, b| a * b),
        ("div", "f64") => double2(to, a, b, |a, b| a / b),
        ("max", "f64") => double2(to, a, b, f64::max),
        ("min", "f64") => double2(to, a, b, f64::min),
        _ => None,
    }
}

pub(crate) fn three(of: [usize; 4], parts: &[&str], last: &str) -> Option<Effect> {
    let rounds_down = parts.contains(&"rm");
    match (parts[0], last) {
        ("selp", _) => map3(of, |a, b, p| if p & 1 == 1 { a } else { b }),
        ("fma" | "mad", "f32") if rounds_down => map3(of, |a, b, c| {
            let exact = f64::from(f32_of(a)) * f64::from(f32_of(b)) + f64::from(f32_of(c));
            let near = exact as f32;
            bits(if f64::from(near) > exact { near.next_down() } else { near })
        }),
        ("fma" | "mad", "f32") => map3(of, |a, b, c| bits(fused(f32_of(a), f32_of(b), f32_of(c)))),
        ("fma", "bf16") => map3(of, |a, b, c| {
            to_bf16(fused(from_bf16(a & 0xffff), from_bf16(b & 0xffff), from_bf16(c & 0xffff)))
        }),
        ("fma", "f16") => map3(of, |a, b, c| to_f16(fused(from_f16(a), from_f16(b), from_f16(c)))),
        ("fma", "bf16x2") => map3(of, |a, b, c| {
            let half = |at: u32| {
                let [a, b, c] = [a, b, c].map(|x| from_bf16(x >> at & 0xffff));
                to_bf16(fused(a, b, c)) << at
            };
            half(0) | half(16)
        }),
        ("fma", "f64") => {
            map3(of, |a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits())
        }
        ("mad", "u32") if parts.contains(&"wide") => {
            map3(of, |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c))
        }
        ("mad", "s32") if parts.contains(&"wide") => {
            map3(of, |a, b, c| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c))
        }
        ("mad", "u32" | "s32") if parts.contains(&"lo") => {
            map3(of, |a, b, c| u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32)))
        }
        ("mad", "u64" | "s64") if parts.contains(&"lo") => {
            map3(of, |a, b, c| a.wrapping_mul(b).wrapping_add(c))
        }
        ("mad", "u16" | "s16") if parts.contains(&"lo") => {
            map3(of, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff)
        }
        ("bfe", "u32" | "u64") => {
            let bits = if last == "u32" { 32 } else { 64 };
            map3(of, move |a, at, count| {
                let (at, count) = (at & 0xff, (count & 0xff).min(bits));
                let a = a & (u64::MAX >> (64 - bits));
                if at >= bits || count == 0 { 0 } else { a >> at & (u64::MAX >> (64 - count)) }
            })
        }
        ("prmt", "b32") if parts.len() == 2 => map3(of, |a, b, selection| {
            let bytes = (a & 0xffff_ffff) | b << 32;
            (0..4).fold(0, |value, i| {
                let choice = selection >> (4 * i) & 0xf;
                let byte = bytes >> (8 * (choice & 7)) & 0xff;
                let byte = if choice & 8 == 0 { byte } else { (byte >> 7) * 0xff };
                value | byte << (8 * i)
            })
        }),
        ("shf", "b32") => {
            let (is_left, wraps) = (parts.contains(&"l"), parts.contains(&"wrap"));
            map3(of, move |a, b, count| {
                let both = (a & 0xffff_ffff) | b << 32;
                let count = if wraps { count & 31 } else { (count & 0xffff_ffff).min(32) };
                (if is_left { both << count >> 32 } else { both >> count }) & 0xffff_ffff
            })
        }
        _ => None,
    }
}
