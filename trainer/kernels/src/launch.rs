//! Shared by all launches: outputs, grids, element types.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeCount;
use cubecl::ir::ElemType;
use cubecl::prelude::TensorArg;

pub(crate) use burn_cubecl::kernel::into_contiguous;

/// Largest extent of a grid that every API accepts.
const MAX_EXTENT: u32 = 65_535;

/// A tensor of this shape with undefined values, on the device of `like`.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    let handle = like.client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
}

/// # Panics
/// When a tensor that a kernel reads as f32 is of another type.
pub(crate) fn assert_f32(what: &str, dtype: DType) {
    assert_eq!(dtype, DType::F32, "{what} must be f32");
}

/// Where a kernel writes what replaces `x`, its input number `position`: a tensor and its argument. They are
/// `x` itself if nothing else refers to it, which must be checked before `x` is cloned.
pub(crate) fn in_place_or_new(x: &CubeTensor, position: usize) -> (CubeTensor, TensorArg) {
    if x.can_mut() {
        (x.clone(), x.as_tensor_alias(position))
    } else {
        let new = empty(x, x.shape(), x.dtype);
        (new.clone(), new.into_tensor_arg())
    }
}

/// The largest vector that the device loads at once and that divides rows of this many columns.
pub(crate) fn vector_size(like: &CubeTensor, columns: usize) -> usize {
    let mut sizes = like.client.io_optimized_vector_sizes(like.dtype.size());
    sizes.find(|&size| columns.is_multiple_of(size)).unwrap_or(1)
}

/// A grid of at least `n` cubes; a kernel compares `CUBE_POS` with `n`.
pub(crate) fn grid(n: usize) -> CubeCount {
    let n = u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let x = n.min(MAX_EXTENT);
    CubeCount::Static(x, n.div_ceil(x), 1)
}

/// A grid of at least `n` units in cubes of `units`; a kernel compares `ABSOLUTE_POS` with `n`.
pub(crate) fn grid_of_units(n: usize, units: u32) -> CubeCount {
    grid(n.div_ceil(units as usize))
}

/// The element type of a kernel's buffer.
pub(crate) fn element(dtype: DType) -> ElemType {
    dtype_to_storage_type(dtype)
}
