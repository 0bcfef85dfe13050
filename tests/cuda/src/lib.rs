//! A driver of CUDA (`libcuda.so`) that runs kernels on the CPU, for tests where there is no NVIDIA GPU.
//!
//! A program that loads it finds one device of compute capability 9.0. What it compiles to PTX, by
//! LLVM or NVRTC, is parsed (`program.rs`) and executed by warps of 32 lanes in lockstep (`warp.rs`),
//! blocks of threads side by side on the cores at hand (`launch.rs`), products for tensor cores
//! included (`matrix.rs`). It says nothing about speed. It finds what a GPU would refuse or break on:
//! instructions that do not exist, accesses outside allocations or shared memory, barriers that part
//! of a block never reaches; and wrong numbers, compared with the same computation elsewhere.
//!
//! Where it differs from a GPU: launches finish before they return, on one stream; sums of tensor
//! cores are f32 sums in order; approximations (`ex2.approx`) are exact; `fma` rounds twice, through
//! f64; fragments of `wmma` have an order of their own, which programs must not rely on.
//!
//! `CUDA_EMULATOR_TRACE=FILE` appends a line for every launch: kernel, grid, block, shared bytes,
//! instructions of warps, seconds. `CUDA_EMULATOR_PTX=FOLDER` keeps the modules there. Kernels whose names
//! begin with one of `CUDA_EMULATOR_SKIP=NAME,NAME` are not executed, which is for those that measure the
//! speed of the device; those of `CUDA_EMULATOR_FAIL=NAME,NAME` fail.

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
mod warp;

pub use launch::{Failure, Grid, launch};
pub use memory::Memory;
pub use program::{Kernel, parse};
