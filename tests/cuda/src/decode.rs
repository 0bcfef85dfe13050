//! Statements as effects on lanes.

use crate::arithmetic::{map1, map2, one, three, two};
use crate::convert::conversion;
use crate::float::{bits, f32_of, from_bf16, from_f16, to_bf16, to_f16};
use crate::matrix;
use crate::statement::{Operand, Statement, space, width};
use crate::warp::{Action, Effect, LANES, Space, Warp, lanes};

/// # Errors
/// An unknown statement.
pub(crate) fn decode(statement: &Statement) -> Result<Action, String> {
    let parts: Vec<&str> = statement.opcode.iter().map(String::as_str).collect();
    let of = &statement.operands;
    let action = match parts[0] {
        "bra" => match of.first() {
            Some(Operand::Label(to)) => Some(Action::Branch(*to)),
            _ => None,
        },
        "ret" | "exit" => Some(Action::Exit),
        "bar" | "barrier" if parts.contains(&"sync") && !parts.contains(&"warp") => {
            (of.len() == 1).then_some(Action::Barrier)
        }
        "bar" => Some(Action::Together(register(of, 0), Box::new(|_, _| {}))),
        "membar" | "fence" | "griddepcontrol" | "prefetch" => Some(Action::Do(Box::new(|_, _| {}))),
        "trap" => Some(Action::Do(Box::new(|warp, _| warp.fail("trap".into())))),
        "wmma" | "mma" | "ldmatrix" | "stmatrix" => {
            matrix::decode(&parts, of).map(|effect| Action::Together(None, effect))
        }
        "shfl" => shuffle(&parts, of),
        "vote" => vote(&parts, of),
        _ => effect(&parts, of).map(Action::Do),
    };
    action.ok_or_else(|| "statement not known to the emulator".into())
}

fn register(of: &[Operand], at: usize) -> Option<usize> {
    of.get(at)?.register()
}

fn effect(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let last = *parts.last()?;
    match parts[0] {
        "ld" | "ldu" => return load(parts, of),
        "st" => return store(parts, of),
        "atom" | "red" => return atomic(parts, of),
        "mov" => return copy(last, of),
        "setp" => return compare(parts, of),
        "cvt" => return convert(parts, of),
        "activemask" => {
            let to = register(of, 0)?;
            return Some(Box::new(move |warp, mask| warp.set(to, mask, |_| u64::from(mask))));
        }
        _ => {}
    }
    match of.len() {
        2 => one(register(of, 0)?, register(of, 1)?, parts, last),
        3 => two(register(of, 0)?, register(of, 1)?, register(of, 2)?, parts, last),
        4 => three([register(of, 0)?, register(of, 1)?, register(of, 2)?, register(of, 3)?], parts, last),
        5 if parts[0] == "bfi" => {
            let [to, a, b, at, count] = [0, 1, 2, 3, 4].map(|i| register(of, i));
            let (to, a, b, at, count) = (to?, a?, b?, at?, count?);
            Some(Box::new(move |warp, mask| {
                let [a, b, at, count] = [a, b, at, count].map(|register| warp.registers[register]);
                warp.set(to, mask, |lane| {
                    let (at, count) = (at[lane] & 0xff, count[lane] & 0xff);
                    let field =
                        if at > 31 || count == 0 { 0 } else { (u64::MAX >> (64 - count.min(32))) << at };
                    ((b[lane] & !field) | ((a[lane] << (at & 63)) & field)) & 0xffff_ffff
                });
            }))
        }
        _ => None,
    }
}

fn copy(last: &str, of: &[Operand]) -> Option<Effect> {
    let keep = match last {
        "b16" | "u16" | "s16" => 0xffff,
        "b32" | "u32" | "s32" | "f32" => 0xffff_ffff,
        "b64" | "u64" | "s64" | "f64" => u64::MAX,
        "pred" => 1,
        _ => return None,
    };
    match of {
        [Operand::Register(to), Operand::Register(from)] => map1(*to, *from, move |a| a & keep),
        // Values packed into one register, and out of it.
        [Operand::Register(to), Operand::Registers(from)] => {
            let (to, from) = (*to, from.clone());
            let each = 8 * width(last)? / from.len();
            Some(Box::new(move |warp, mask| {
                let mut values = [0; LANES];
                for (i, register) in from.iter().enumerate() {
                    for (value, part) in values.iter_mut().zip(&warp.registers[*register]) {
                        *value |= (part & (u64::MAX >> (64 - each))) << (i * each);
                    }
                }
                warp.assign(to, mask, &values);
            }))
        }
        [Operand::Registers(to), Operand::Register(from)] => {
            let (to, from) = (to.clone(), *from);
            let each = 8 * width(last)? / to.len();
            Some(Box::new(move |warp, mask| {
                let values = warp.registers[from];
                for (i, register) in to.iter().enumerate() {
                    warp.set(*register, mask, |lane| values[lane] >> (i * each) & (u64::MAX >> (64 - each)));
                }
            }))
        }
        _ => None,
    }
}

fn compare(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let (a, b) = (register(of, 1)?, register(of, 2)?);
    let last = *parts.last()?;
    let holds: Box<dyn Fn(u64, u64) -> bool + Send + Sync> = match last {
        "f32" | "f64" | "bf16" | "f16" => {
            let value: fn(u64) -> f64 = match last {
                "f32" => |a| f64::from(f32_of(a)),
                "bf16" => |a| f64::from(from_bf16(a & 0xffff)),
                "f16" => |a| f64::from(from_f16(a)),
                _ => f64::from_bits,
            };
            // With `u`, unordered comparisons are true.
            let (name, unordered) = match parts[1].strip_suffix('u') {
                Some(name) if name != "n" => (name, true),
                _ => (parts[1], false),
            };
            let test: fn(f64, f64) -> bool = match name {
                "eq" => |a, b| a == b,
                "ne" => |a, b| a != b && !a.is_nan() && !b.is_nan(),
                "lt" => |a, b| a < b,
                "le" => |a, b| a <= b,
                "gt" => |a, b| a > b,
                "ge" => |a, b| a >= b,
                "nan" => |a, b| a.is_nan() || b.is_nan(),
                "num" => |a, b| !a.is_nan() && !b.is_nan(),
                _ => return None,
            };
            Box::new(move |a, b| {
                let (a, b) = (value(a), value(b));
                test(a, b) || unordered && (a.is_nan() || b.is_nan())
            })
        }
        _ => {
            let shift = 64 - 8 * width(last)? as u32;
            let is_signed = last.starts_with('s');
            let test: fn(i128, i128) -> bool = match parts[1] {
                "eq" => |a, b| a == b,
                "ne" => |a, b| a != b,
                "lt" | "lo" => |a, b| a < b,
                "le" | "ls" => |a, b| a <= b,
                "gt" | "hi" => |a, b| a > b,
                "ge" | "hs" => |a, b| a >= b,
                _ => return None,
            };
            let value = move |a: u64| match is_signed {
                true => i128::from((a << shift) as i64 >> shift),
                false => i128::from(a << shift >> shift),
            };
            Box::new(move |a, b| test(value(a), value(b)))
        }
    };
    let (to, other) = match of.first()? {
        Operand::Register(to) => (*to, None),
        Operand::Pair(to, other) => (*to, Some(*other)),
        _ => return None,
    };
    type Join = (usize, fn(u64, u64) -> u64);
    let with: Option<Join> = match parts.iter().find(|p| ["and", "or", "xor"].contains(p)) {
        None => None,
        Some(&"and") => Some((register(of, 3)?, |a, b| a & b)),
        Some(&"or") => Some((register(of, 3)?, |a, b| a | b)),
        Some(_) => Some((register(of, 3)?, |a, b| a ^ b)),
    };
    Some(Box::new(move |warp, mask| {
        let (a, b) = (warp.registers[a], warp.registers[b]);
        let third = with.map(|(register, f)| (warp.registers[register], f));
        let join = |lane: usize, holds: bool| {
            let holds = u64::from(holds);
            third.map_or(holds, |(values, f)| f(holds, values[lane] & 1))
        };
        if let Some(other) = other {
            warp.set(other, mask, |lane| join(lane, !holds(a[lane], b[lane])));
        }
        warp.set(to, mask, |lane| join(lane, holds(a[lane], b[lane])));
    }))
}

fn convert(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let to = register(of, 0)?;
    match parts {
        [_, "rn", kind @ ("bf16x2" | "f16x2"), "f32"] => {
            let narrow = if *kind == "bf16x2" { to_bf16 } else { to_f16 };
            // The first factor goes to the upper half.
            map2(to, register(of, 1)?, register(of, 2)?, move |a, b| {
                narrow(f32_of(b)) | narrow(f32_of(a)) << 16
            })
        }
        _ => map1(to, register(of, 1)?, conversion(&parts[1..])?),
    }
}

/// The bytes that vectors of this many elements have to be aligned to are those of the whole vector.
fn load(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let [to, Operand::Address(base, offset)] = of else { return None };
    let (to, base, offset, space) = (to.registers()?, *base, *offset as u64, space(parts));
    let last = *parts.last()?;
    let bytes = width(last)?;
    let is_signed = last.starts_with('s');
    Some(Box::new(move |warp, mask| {
        let address = warp.registers[base];
        for lane in lanes(mask) {
            let first = address[lane].wrapping_add(offset);
            aligned(warp, first, bytes * to.len());
            for (i, register) in to.iter().enumerate() {
                let value = warp.load(space, first.wrapping_add((i * bytes) as u64), bytes, lane);
                let shift = 64 - 8 * bytes as u32;
                let value = if is_signed { ((value << shift) as i64 >> shift) as u64 } else { value };
                warp.registers[*register][lane] = value;
            }
        }
    }))
}

fn store(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let [Operand::Address(base, offset), from] = of else { return None };
    let (from, base, offset, space) = (from.registers()?, *base, *offset as u64, space(parts));
    if space == Space::Param {
        return None;
    }
    let bytes = width(parts.last()?)?;
    Some(Box::new(move |warp, mask| {
        let address = warp.registers[base];
        for lane in lanes(mask) {
            let first = address[lane].wrapping_add(offset);
            aligned(warp, first, bytes * from.len());
            for (i, register) in from.iter().enumerate() {
                let value = warp.registers[*register][lane];
                warp.store(space, first.wrapping_add((i * bytes) as u64), bytes, lane, value);
            }
        }
    }))
}

fn aligned(warp: &mut Warp<'_>, address: u64, bytes: usize) {
    if !address.is_multiple_of(bytes as u64) {
        warp.fail(format!("a vector of {bytes} bytes at {address:#x} is not aligned"));
    }
}

/// Lanes one after the other; blocks in parallel under one lock.
fn atomic(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let (to, of) = if parts[0] == "atom" { (Some(register(of, 0)?), &of[1..]) } else { (None, of) };
    let Operand::Address(base, offset) = of.first()? else { return None };
    let (base, offset, space) = (*base, *offset as u64, space(parts));
    let (a, b) = (register(of, 1)?, register(of, 2));
    let last = *parts.last()?;
    let bytes = width(last)?;
    let name =
        parts[1..].iter().find(|p| ["add", "min", "max", "exch", "cas", "and", "or", "xor"].contains(p))?;
    let f: fn(u64, u64, u64) -> u64 = match (*name, last) {
        ("add", "f32") => |old, a, _| bits(f32_of(old) + f32_of(a)),
        ("add", "f64") => |old, a, _| (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        ("add", _) => |old, a, _| old.wrapping_add(a),
        ("min", "u32") => |old, a, _| u64::from((old as u32).min(a as u32)),
        ("max", "u32") => |old, a, _| u64::from((old as u32).max(a as u32)),
        ("min", "s32") => |old, a, _| u64::from((old as i32).min(a as i32) as u32),
        ("max", "s32") => |old, a, _| u64::from((old as i32).max(a as i32) as u32),
        ("exch", _) => |_, a, _| a,
        ("cas", _) => |old, a, b| if old == a { b } else { old },
        ("and", _) => |old, a, _| old & a,
        ("or", _) => |old, a, _| old | a,
        ("xor", _) => |old, a, _| old ^ a,
        _ => return None,
    };
    Some(Box::new(move |warp, mask| {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for lane in lanes(mask) {
            let address = warp.registers[base][lane].wrapping_add(offset);
            let old = warp.load(space, address, bytes, lane);
            let b = b.map_or(0, |b| warp.registers[b][lane]);
            warp.store(space, address, bytes, lane, f(old, warp.registers[a][lane], b));
            if let Some(to) = to {
                warp.registers[to][lane] = old;
            }
        }
    }))
}

/// `shfl.sync`: the source lane by mode, clamp and segment (PTX ISA 8.7, section 9.7.9.6).
fn shuffle(parts: &[&str], of: &[Operand]) -> Option<Action> {
    let (to, valid) = match of.first()? {
        Operand::Register(to) => (*to, None),
        Operand::Pair(to, valid) => (*to, Some(*valid)),
        _ => return None,
    };
    let (a, b, c, members) = (register(of, 1)?, register(of, 2)?, register(of, 3)?, register(of, 4)?);
    let mode = ["up", "down", "bfly", "idx"].into_iter().find(|mode| parts.contains(mode))?;
    Some(Action::Together(
        Some(members),
        Box::new(move |warp, mask| {
            let (values, b, c) = (warp.registers[a], warp.registers[b], warp.registers[c]);
            let source = |lane: usize| {
                let (by, clamp, segment) =
                    (b[lane] as usize & 31, c[lane] as usize & 31, c[lane] as usize >> 8 & 31);
                let last = (lane & segment) | (clamp & !segment);
                let first = lane & segment;
                let (from, is_valid) = match mode {
                    "up" => (lane.wrapping_sub(by), lane as isize - by as isize >= last as isize),
                    "down" => (lane + by, lane + by <= last),
                    "bfly" => (lane ^ by, lane ^ by <= last),
                    _ => (first | (by & !segment), first | (by & !segment) <= last),
                };
                if is_valid { (from, true) } else { (lane, false) }
            };
            if let Some(lane) = lanes(mask).find(|lane| mask >> source(*lane).0 & 1 == 0) {
                warp.fail(format!("lane {lane} shuffles from lane {}, which is not there", source(lane).0));
            }
            warp.set(to, mask, |lane| values[source(lane).0]);
            if let Some(valid) = valid {
                warp.set(valid, mask, |lane| u64::from(source(lane).1));
            }
        }),
    ))
}

fn vote(parts: &[&str], of: &[Operand]) -> Option<Action> {
    let (to, a, members) = (register(of, 0)?, register(of, 1)?, register(of, 2)?);
    let mode = ["ballot", "any", "all"].into_iter().find(|mode| parts.contains(mode))?;
    Some(Action::Together(
        Some(members),
        Box::new(move |warp, mask| {
            let holds = warp.mask_of(a) & mask;
            let value = match mode {
                "ballot" => u64::from(holds),
                "any" => u64::from(holds != 0),
                _ => u64::from(holds == mask),
            };
            warp.set(to, mask, |_| value);
        }),
    ))
}
