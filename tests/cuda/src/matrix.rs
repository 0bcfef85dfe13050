//! Products of small matrices by a whole warp (PTX ISA 8.7, section 9.7.14).
//!
//! Fragments of `mma`, `ldmatrix` and `stmatrix` have the layouts of the manual. Those of `wmma`, which it
//! leaves unspecified, go row by row over lanes and registers.

use crate::float::{bits, f32_of, from_bf16, from_f16, from_tf32};
use crate::statement::{Operand, space};
use crate::warp::{Effect, LANES, Space, Warp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Brain,
    Half,
    Tf32,
    Single,
}

impl Element {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bf16" => Self::Brain,
            "f16" => Self::Half,
            "tf32" => Self::Tf32,
            "f32" => Self::Single,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        if matches!(self, Self::Brain | Self::Half) { 2 } else { 4 }
    }

    fn value(self, bits: u64) -> f32 {
        match self {
            Self::Brain => from_bf16(bits & 0xffff),
            Self::Half => from_f16(bits & 0xffff),
            Self::Tf32 => from_tf32(bits),
            Self::Single => f32_of(bits),
        }
    }
}

/// m, n and k of `m16n8k16`.
fn shape(parts: &[&str]) -> Option<[usize; 3]> {
    let text = parts
        .iter()
        .find(|part| part.starts_with('m') && part[1..].starts_with(|c: char| c.is_ascii_digit()))?;
    let (m, rest) = text[1..].split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

pub(crate) fn decode(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    match (parts[0], parts[1]) {
        ("wmma", "load") => load(parts, of),
        ("wmma", "store") => store(parts, of),
        ("wmma", "mma") => {
            let [m, n, k] = shape(parts)?;
            let types = types(parts)?;
            let fragment = |element: Element, rows: usize, columns: usize| {
                move |row: usize, column: usize| rows_over_lanes(element, rows, columns, row, column)
            };
            product(
                of,
                [m, n, k],
                types,
                fragment(types.0, m, k),
                fragment(types.1, k, n),
                fragment(types.2, m, n),
            )
        }
        ("mma", _) => mma(parts, of),
        ("ldmatrix", _) => load_matrix(parts, of),
        ("stmatrix", _) => store_matrix(parts, of),
        _ => None,
    }
}

/// Types of A, B and the sums; input and output sums must have the same type.
fn types(parts: &[&str]) -> Option<(Element, Element, Element)> {
    let last = parts.len().checked_sub(4)?;
    let [d, a, b, c] = [0, 1, 2, 3].map(|i| Element::named(parts[last + i]));
    (d? == c?).then_some((a?, b?, c?))
}

/// Where an element of a fragment is: lane, register, and first bit.
type Spot = (usize, usize, usize);

/// The order of `wmma` fragments.
fn rows_over_lanes(element: Element, rows: usize, columns: usize, row: usize, column: usize) -> Spot {
    let each = rows * columns / LANES;
    let packed = 4 / element.bytes();
    let at = row * columns + column;
    (at / each, at % each / packed, at % each % packed * 8 * element.bytes())
}

fn get(warp: &Warp<'_>, from: &[usize], element: Element, (lane, register, shift): Spot) -> f32 {
    element.value(warp.registers[from[register]][lane] >> shift)
}

/// `d = a b + c`.
fn product(
    of: &[Operand],
    [m, n, k]: [usize; 3],
    types: (Element, Element, Element),
    spot_a: impl Fn(usize, usize) -> Spot + Send + Sync + 'static,
    spot_b: impl Fn(usize, usize) -> Spot + Send + Sync + 'static,
    spot_c: impl Fn(usize, usize) -> Spot + Send + Sync + 'static,
) -> Option<Effect> {
    let [d, a, b, c] = [0, 1, 2, 3].map(|i| of.get(i).and_then(Operand::registers));
    let (d, a, b, c) = (d?, a?, b?, c?);
    let (of_a, of_b, of_c) = types;
    if of_c == Element::Half {
        return None;
    }
    Some(Box::new(move |warp, _| {
        let mut left = vec![0.0; m * k];
        let mut right = vec![0.0; k * n];
        for term in 0..k {
            for row in 0..m {
                left[row * k + term] = get(warp, &a, of_a, spot_a(row, term));
            }
            for column in 0..n {
                right[term * n + column] = get(warp, &b, of_b, spot_b(term, column));
            }
        }
        let mut sums = vec![0.0f32; n];
        for row in 0..m {
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum = get(warp, &c, of_c, spot_c(row, column));
            }
            for term in 0..k {
                let factor = left[row * k + term];
                for (sum, value) in sums.iter_mut().zip(&right[term * n..]) {
                    *sum += factor * value;
                }
            }
            for (column, sum) in sums.iter().enumerate() {
                let (lane, register, _) = spot_c(row, column);
                warp.registers[d[register]][lane] = bits(*sum);
            }
        }
    }))
}

fn mma(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let [m, n, k] = shape(parts)?;
    let types = types(parts)?;
    if (m, n) != (16, 8) || types.0 != types.1 || !parts.contains(&"row") || !parts.contains(&"col") {
        return None;
    }
    // Four lanes hold one line, each as many adjacent terms as a register holds.
    let packed = 4 / types.0.bytes();
    let spot = move |line: usize, term: usize| {
        let lane = line % 8 * 4 + term / packed % 4;
        (lane, term / (4 * packed), term % packed * (32 / packed))
    };
    let spot_a = move |row: usize, term: usize| {
        let (lane, half, shift) = spot(row, term);
        (lane, half * 2 + row / 8, shift)
    };
    let spot_c = |row: usize, column: usize| (row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0);
    product(of, [m, n, k], types, spot_a, move |term, column| spot(column, term), spot_c)
}

/// Rows and columns of a `wmma` fragment, and whether columns are contiguous.
fn extent(parts: &[&str]) -> Option<(usize, usize, bool)> {
    let [m, n, k] = shape(parts)?;
    let (rows, columns) = match parts[2] {
        "a" => (m, k),
        "b" => (k, n),
        "c" | "d" => (m, n),
        _ => return None,
    };
    Some((rows, columns, parts.contains(&"col")))
}

fn load(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let (rows, columns, is_column_major) = extent(parts)?;
    let element = Element::named(parts.last()?)?;
    let [to, Operand::Address(base, offset), ..] = of else { return None };
    let (to, base, offset, pitch) = (to.registers()?, *base, *offset as u64, of.get(2)?.register()?);
    let space = space(parts);
    if to.len() * 4 / element.bytes() * LANES != rows * columns {
        return None;
    }
    Some(Box::new(move |warp, _| {
        let Some(first) = common(warp, base, offset) else { return };
        let pitch = warp.registers[pitch][0] as u32 as usize;
        for register in &to {
            warp.registers[*register] = [0; LANES];
        }
        for row in 0..rows {
            for column in 0..columns {
                let at = if is_column_major { column * pitch + row } else { row * pitch + column };
                let value = warp.load(space, first + (at * element.bytes()) as u64, element.bytes(), 0);
                let (lane, register, shift) = rows_over_lanes(element, rows, columns, row, column);
                warp.registers[to[register]][lane] |= value << shift;
            }
        }
    }))
}

fn store(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let (rows, columns, is_column_major) = extent(parts)?;
    let element = Element::named(parts.last()?)?;
    let [Operand::Address(base, offset), from, ..] = of else { return None };
    let (from, base, offset, pitch) = (from.registers()?, *base, *offset as u64, of.get(2)?.register()?);
    let space = space(parts);
    if element.bytes() != 4 {
        return None;
    }
    Some(Box::new(move |warp, _| {
        let Some(first) = common(warp, base, offset) else { return };
        let pitch = warp.registers[pitch][0] as u32 as usize;
        for row in 0..rows {
            for column in 0..columns {
                let at = if is_column_major { column * pitch + row } else { row * pitch + column };
                let (lane, register, _) = rows_over_lanes(element, rows, columns, row, column);
                let value = warp.registers[from[register]][lane];
                warp.store(space, first + (at * 4) as u64, 4, 0, value);
            }
        }
    }))
}

/// The address that all lanes must agree on, a multiple of 32 bytes.
fn common(warp: &mut Warp<'_>, base: usize, offset: u64) -> Option<u64> {
    let first = warp.registers[base][0];
    let live = warp.live;
    if crate::warp::lanes(live).any(|lane| warp.registers[base][lane] != first) {
        warp.fail("lanes give wmma different addresses".into());
        return None;
    }
    let first = first.wrapping_add(offset);
    if !first.is_multiple_of(32) {
        warp.fail(format!("wmma at {first:#x}, which is no multiple of 32 bytes"));
        return None;
    }
    Some(first)
}

/// How many matrices of 8 by 8, and whether they are transposed.
fn matrices(parts: &[&str]) -> Option<(usize, bool)> {
    let count = match *parts.iter().find(|part| part.starts_with('x'))? {
        "x1" => 1,
        "x2" => 2,
        "x4" => 4,
        _ => return None,
    };
    Some((count, parts.contains(&"trans")))
}

/// Lane `8 i + row` gives the address of a row of matrix `i`; lane `4 row + column / 2` holds elements of
/// register `i`.
fn spot(is_transposed: bool, row: usize, column: usize) -> (usize, usize) {
    let (row, column) = if is_transposed { (column, row) } else { (row, column) };
    (row * 4 + column / 2, column % 2 * 16)
}

fn load_matrix(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let (count, is_transposed) = matrices(parts)?;
    let [to, Operand::Address(base, offset)] = of else { return None };
    let (to, base, offset) = (to.registers()?, *base, *offset as u64);
    if to.len() != count || !parts.contains(&"b16") {
        return None;
    }
    Some(Box::new(move |warp, _| {
        let addresses = warp.registers[base];
        for (i, to) in to.iter().enumerate() {
            let mut values = [0; LANES];
            for row in 0..8 {
                let first = addresses[i * 8 + row].wrapping_add(offset);
                if !first.is_multiple_of(16) {
                    warp.fail(format!("ldmatrix at {first:#x}, which is no multiple of 16 bytes"));
                }
                for column in 0..8 {
                    let value = warp.load(Space::Shared, first + 2 * column as u64, 2, 0);
                    let (lane, shift) = spot(is_transposed, row, column);
                    values[lane] |= value << shift;
                }
            }
            warp.registers[*to] = values;
        }
    }))
}

fn store_matrix(parts: &[&str], of: &[Operand]) -> Option<Effect> {
    let (count, is_transposed) = matrices(parts)?;
    let [Operand::Address(base, offset), from] = of else { return None };
    let (from, base, offset) = (from.registers()?, *base, *offset as u64);
    if from.len() != count || !parts.contains(&"b16") {
        return None;
    }
    Some(Box::new(move |warp, _| {
        let addresses = warp.registers[base];
        for (i, from) in from.iter().enumerate() {
            for row in 0..8 {
                let first = addresses[i * 8 + row].wrapping_add(offset);
                for column in 0..8 {
                    let (lane, shift) = spot(is_transposed, row, column);
                    let value = warp.registers[*from][lane] >> shift & 0xffff;
                    warp.store(Space::Shared, first + 2 * column as u64, 2, 0, value);
                }
            }
        }
    }))
}
