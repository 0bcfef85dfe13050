//! A CUDA driver (`libcuda.so`) that runs kernels on the CPU, for tests without an NVIDIA GPU.
//!
//! A program that loads it finds one device of compute capability 9.0. What it compiles to PTX, by LLVM or
//! NVRTC, is parsed (`program.rs`) and executed by warps of 32 lanes in lockstep (`warp.rs`), blocks of
//! threads in parallel on the available cores (`launch.rs`), including products for tensor cores
//! (`matrix.rs`). It says nothing about speed. It finds what a GPU would reject or fail on: instructions that
//! do not exist, accesses outside allocations or shared memory, barriers that part of a block never reaches;
//! and wrong numbers, compared with the same computation elsewhere.
//!
//! Where it differs from a GPU: launches finish before they return, on one stream; sums of tensor cores are
//! f32 sums in order; approximations (`ex2.approx`) are exact; `fma` rounds twice, through f64; fragments of
//! `wmma` have their own order, which programs must not rely on.
//!
//! `CUDA_EMULATOR_TRACE=FILE` appends a line for every launch: kernel, grid, block, shared bytes,
//! instructions of warps, seconds. `CUDA_EMULATOR_PTX=FOLDER` keeps the modules there. Kernels whose names
//! begin with one of `CUDA_EMULATOR_SKIP=NAME,NAME` are not executed, for kernels that measure the speed of
//! the device; those of `CUDA_EMULATOR_FAIL=NAME,NAME` fail.

mod arithmetic;
mod convert;
mod decode;
mod driver;
mod float;
mod flow;
mod launch;
mod matrix;
mod memory;
mod program;
mod statement;
mod warp;

pub use launch::{Failure, Grid, launch};
pub use memory::Memory;
pub use program::{Kernel, parse};
