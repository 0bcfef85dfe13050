//! Sums and maxima over the units of a cube, in a fixed order.

use cubecl::prelude::*;

/// Units of the cubes that reduce rows.
pub(crate) const UNITS: u32 = 256;

/// The sum of `value` over all units of the cube, returned to each of them; `scratch` has a place for each.
///
/// Every unit must call it.
#[cube]
pub(crate) fn cube_sum(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: u32) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!((units >> (level + 1)) as usize);
        if unit < half {
            let other = scratch[unit + half];
            scratch[unit] += other;
        }
        sync_cube();
    }
    scratch[0]
}

/// The largest `value` of all units of the cube, for each of them.
///
/// Every unit must call it.
#[cube]
pub(crate) fn cube_max(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: u32) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    scratch[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!((units >> (level + 1)) as usize);
        if unit < half {
            let other = scratch[unit + half];
            if other > scratch[unit] {
                scratch[unit] = other;
            }
        }
        sync_cube();
    }
    scratch[0]
}
