//! A warp: 32 lanes that execute one statement at a time.
//!
//! Lanes that diverge at a branch execute one path after the other up to where the paths reconverge
//! ([`crate::flow`]), as GPUs did before Volta and as compilers still arrange it.

use crate::memory::{LOCAL, Memory, PARAM, SHARED, SPACES, read, write};

/// The end of the program, which is also where paths reconverge that only share the end.
pub(crate) const END: usize = usize::MAX;
pub(crate) const LANES: usize = 32;
/// One value for each lane.
pub(crate) type Lanes = [u64; LANES];

/// What a statement does to the lanes of a mask.
pub(crate) type Effect = Box<dyn Fn(&mut Warp<'_>, u32) + Send + Sync>;

pub(crate) enum Action {
    Do(Effect),
    /// To this statement.
    Branch(usize),
    Exit,
    /// All threads of the block wait for each other.
    Barrier,
    /// The lanes in this register, or all, execute it together.
    Together(Option<usize>, Effect),
}

pub(crate) struct Step {
    /// A register, and whether it must be false.
    pub guard: Option<(usize, bool)>,
    pub action: Action,
    /// For messages.
    pub text: Box<str>,
}

/// How a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Barrier,
    End,
}

/// Lanes that continue from a statement to where they rejoin others.
struct Way {
    at: usize,
    mask: u32,
    meeting: usize,
}

pub(crate) struct Warp<'a> {
    pub registers: Vec<Lanes>,
    pub memory: &'a Memory,
    pub parameters: &'a [u8],
    /// Shared memory of the block.
    pub shared: *mut u8,
    pub shared_size: usize,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    /// Of lanes that have not ended.
    pub live: u32,
    /// Remaining work, the next on top.
    ways: Vec<Way>,
    /// Number of executed statements.
    pub executed: u64,
    /// The first fault.
    pub fault: Option<String>,
    /// The allocation of the device that was used last.
    known: (u64, u64),
}

impl<'a> Warp<'a> {
    pub(crate) fn new(registers: usize, local: usize, memory: &'a Memory, parameters: &'a [u8]) -> Self {
        Self {
            registers: vec![[0; LANES]; registers],
            memory,
            parameters,
            shared: std::ptr::null_mut(),
            shared_size: 0,
            local: vec![0; local * LANES],
            live: 0,
            ways: Vec::new(),
            executed: 0,
            fault: None,
            known: (0, 0),
        }
    }

    /// Moves all these lanes to the first statement.
    pub(crate) fn begin(&mut self, live: u32) {
        self.live = live;
        self.ways.clear();
        self.ways.push(Way { at: 0, mask: live, meeting: END });
    }

    /// Executes up to a barrier of the block, or the end.
    ///
    /// # Errors
    /// A fault of a statement, or a statement for several lanes that some of them do not reach.
    pub(crate) fn run(&mut self, steps: &[Step], meetings: &[usize]) -> Result<Stop, String> {
        while let Some(Way { mut at, mut mask, meeting }) = self.ways.pop() {
            mask &= self.live;
            while mask != 0 && at != meeting {
                let Some(step) = steps.get(at) else {
                    return Err("a way leads out of the program".into());
                };
                self.executed += 1;
                let guarded = mask & self.guard(step.guard);
                match &step.action {
                    Action::Do(effect) => {
                        if guarded != 0 {
                            effect(self, guarded);
                        }
                        at += 1;
                    }
                    Action::Branch(to) if guarded == mask => at = *to,
                    Action::Branch(_) if guarded == 0 => at += 1,
                    Action::Branch(to) => {
                        let again = meetings[at];
                        self.ways.push(Way { at: again, mask, meeting });
                        self.ways.push(Way { at: at + 1, mask: mask & !guarded, meeting: again });
                        self.ways.push(Way { at: *to, mask: guarded, meeting: again });
                        break;
                    }
                    Action::Exit => {
                        self.live &= !guarded;
                        mask &= !guarded;
                        at += 1;
                    }
                    Action::Barrier => {
                        if mask != self.live {
                            return Err(format!(
                                "only lanes {mask:#010x} of {:#010x} come to a barrier",
                                self.live
                            ));
                        }
                        self.ways.push(Way { at: at + 1, mask, meeting });
                        return Ok(Stop::Barrier);
                    }
                    Action::Together(members, effect) => {
                        let members = members.map_or(self.live, |register| {
                            self.registers[register][mask.trailing_zeros() as usize] as u32 & self.live
                        });
                        if members & !mask != 0 {
                            return Err(format!(
                                "only lanes {mask:#010x} of {members:#010x} come to a common statement"
                            ));
                        }
                        effect(self, guarded);
                        at += 1;
                    }
                }
                if let Some(fault) = self.fault.take() {
                    return Err(format!("{fault}: {}", step.text));
                }
            }
        }
        if self.live == 0 { Ok(Stop::End) } else { Err("the program ends without `ret`".into()) }
    }

    fn guard(&self, guard: Option<(usize, bool)>) -> u32 {
        guard.map_or(u32::MAX, |(register, is_not)| {
            let holds = self.mask_of(register);
            if is_not { !holds } else { holds }
        })
    }

    /// The lanes for which a predicate is true.
    pub(crate) fn mask_of(&self, register: usize) -> u32 {
        let values = &self.registers[register];
        (0..LANES).fold(0, |mask, lane| mask | ((values[lane] as u32 & 1) << lane))
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.fault.get_or_insert(text);
    }

    /// Writes the result of a function of the lane.
    #[inline]
    pub(crate) fn set(&mut self, register: usize, mask: u32, value: impl Fn(usize) -> u64) {
        let values: Lanes = std::array::from_fn(&value);
        self.assign(register, mask, &values);
    }

    #[inline]
    pub(crate) fn assign(&mut self, register: usize, mask: u32, values: &Lanes) {
        let to = &mut self.registers[register];
        if mask == u32::MAX {
            *to = *values;
        } else {
            for lane in lanes(mask) {
                to[lane] = values[lane];
            }
        }
    }

    /// The place of this many bytes at a lane's address; otherwise records a fault.
    pub(crate) fn place(&mut self, space: Space, address: u64, width: usize, lane: usize) -> Option<*mut u8> {
        let space = match (space, address & SPACES) {
            (Space::Generic, SHARED) => Space::Shared,
            (Space::Generic, LOCAL) => Space::Local,
            (Space::Generic, PARAM) => Space::Param,
            (Space::Generic, _) => Space::Global,
            (space, _) => space,
        };
        let offset = (address & 0xffff_ffff) as usize;
        if !address.is_multiple_of(width as u64) {
            self.fail(format!("{width} bytes at {address:#x} ({space:?}) are not aligned"));
            return None;
        }
        let size = match space {
            Space::Shared => self.shared_size,
            Space::Local => self.local.len() / LANES,
            Space::Param => self.parameters.len(),
            _ => {
                let (first, end) = self.known;
                if address < first || address + width as u64 > end {
                    self.known = self.memory.around(address).unwrap_or((0, 0));
                }
                if address + width as u64 > self.known.1 {
                    self.fail(format!("{width} bytes at {address:#x} are outside all allocations"));
                    return None;
                }
                return Some(address as *mut u8);
            }
        };
        if offset + width > size {
            self.fail(format!("{width} bytes at {offset} of {size} bytes ({space:?})"));
            return None;
        }
        // SAFETY: all three are at least as long as was just checked.
        Some(match space {
            Space::Shared => unsafe { self.shared.add(offset) },
            Space::Local => unsafe { self.local.as_mut_ptr().add(lane * size + offset) },
            _ => unsafe { self.parameters.as_ptr().add(offset).cast_mut() },
        })
    }

    /// Zero after a fault.
    pub(crate) fn load(&mut self, space: Space, address: u64, width: usize, lane: usize) -> u64 {
        let place = self.place(space, address, width, lane);
        // SAFETY: `place` has checked it.
        place.map_or(0, |from| unsafe { read(from, width) })
    }

    pub(crate) fn store(&mut self, space: Space, address: u64, width: usize, lane: usize, value: u64) {
        if let Some(to) = self.place(space, address, width, lane) {
            // SAFETY: `place` has checked it; parameters are never written, which `decode` refuses.
            unsafe { write(to, width, value) };
        }
    }
}

/// Address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// The lanes of a mask.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}
