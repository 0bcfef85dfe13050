//! Statements of PTX and what the parts of their opcodes mean.

use crate::warp::Space;

/// An operand of a statement.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Register(usize),
    Registers(Vec<usize>),
    /// Base register and offset in bytes.
    Address(usize, i64),
    /// `d|p`, two results.
    Pair(usize, usize),
    Label(usize),
}

impl Operand {
    pub(crate) fn register(&self) -> Option<usize> {
        match self {
            Self::Register(register) => Some(*register),
            _ => None,
        }
    }

    /// One register, or those in braces.
    pub(crate) fn registers(&self) -> Option<Vec<usize>> {
        match self {
            Self::Register(register) => Some(vec![*register]),
            Self::Registers(registers) => Some(registers.clone()),
            _ => None,
        }
    }
}

/// A statement, before it becomes a step.
pub(crate) struct Statement {
    /// `ld.global.nc.b32` as its parts.
    pub opcode: Vec<String>,
    pub operands: Vec<Operand>,
}

/// Bytes of a type such as `.b32`.
pub(crate) fn width(word: &str) -> Option<usize> {
    let digits = word.strip_prefix('.').unwrap_or(word).strip_prefix(['b', 'u', 's', 'f'])?;
    digits.parse::<usize>().ok().filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
}

/// The address space that the parts of an opcode name.
pub(crate) fn space(parts: &[&str]) -> Space {
    parts[1..]
        .iter()
        .find_map(|part| {
            Some(match part.split("::").next()? {
                "global" | "const" => Space::Global,
                "shared" => Space::Shared,
                "local" => Space::Local,
                "param" => Space::Param,
                _ => return None,
            })
        })
        .unwrap_or(Space::Generic)
}
