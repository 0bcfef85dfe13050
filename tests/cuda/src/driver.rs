//! The functions of `libcuda.so` that burn's runtime calls (CUDA driver API 13.0).

// The names are those of the API.
#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::launch::{Grid, launch};
use crate::memory::Memory;
use crate::program::{Kernel, parse};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_PTX: c_int = 218;
const NOT_FOUND: c_int = 500;
const NOT_SUPPORTED: c_int = 801;
const ILLEGAL_ADDRESS: c_int = 700;

/// 80 GB, as on an H100.
const MEMORY: usize = 80_000_000_000;
/// As a driver of CUDA 12.8 reports, so that PTX 8.7 is generated.
const VERSION: c_int = 12_080;
const MAX_THREADS: u32 = 1024;
const MAX_BLOCKS: u32 = 65_535;
const MAX_SHARED: u32 = 232_448;

static DEVICE: Memory = Memory::new();

/// Modules that cannot be freed or found any more are of no use to the program, so they stay.
#[derive(Default)]
struct Modules {
    modules: Vec<HashMap<String, Arc<Kernel>>>,
    functions: Vec<Arc<Kernel>>,
}

static MODULES: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);
/// For events, the times when they were recorded.
static EVENTS: LazyLock<Mutex<Vec<Option<Instant>>>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a result to the place given by the caller.
unsafe fn give<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: the caller of the driver provides memory for the result.
    unsafe { to.write(value) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { give(version, VERSION) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    unsafe { give(device, ordinal) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { give(count, 1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, size: c_int, _device: c_int) -> c_int {
    // burn infers tensor cores from the name: only some of NVIDIA's GTX cards have none.
    let name = c"emulated H100";
    let bytes = name.to_bytes_with_nul().len();
    if size < bytes as c_int {
        return INVALID_VALUE;
    }
    // SAFETY: there is room for it.
    unsafe { to.copy_from_nonoverlapping(name.as_ptr(), bytes) };
    SUCCESS
}

/// The attributes of an H100 (CUdevice_attribute).
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(to: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    let value = match attribute {
        // Threads of a block, and their extents.
        1..=3 => 1024,
        4 => 64,
        // Blocks of a grid.
        5 => c_int::MAX,
        6 | 7 => MAX_BLOCKS as c_int,
        // Shared memory of a block, by default and on request.
        8 => 49_152,
        97 => MAX_SHARED as c_int,
        // Lanes, registers of a block, multiprocessors.
        10 => 32,
        12 => 65_536,
        16 => 132,
        // Compute capability.
        75 => 9,
        76 => 0,
        _ => return INVALID_VALUE,
    };
    unsafe { give(to, value) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    unsafe { give(bytes, MEMORY) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetPCIBusId(_to: *mut c_char, _size: c_int, _device: c_int) -> c_int {
    NOT_SUPPORTED
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) -> c_int {
    unsafe { give(context, 1) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(_context: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> c_int {
    unsafe { give(stream, 1) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(_stream: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_stream: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(_stream: usize, _event: usize, _flags: c_uint) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> c_int {
    let mut events = locked(&EVENTS);
    let at = events.iter().position(Option::is_none).unwrap_or(events.len());
    if at == events.len() {
        events.push(None);
    }
    events[at] = Some(Instant::now());
    unsafe { give(event, at + 1) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    locked(&EVENTS)[event - 1] = None;
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, _stream: usize) -> c_int {
    locked(&EVENTS)[event - 1] = Some(Instant::now());
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(_event: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) -> c_int {
    let events = locked(&EVENTS);
    let (Some(start), Some(end)) = (events[start - 1], events[end - 1]) else {
        return INVALID_VALUE;
    };
    unsafe { give(milliseconds, end.saturating_duration_since(start).as_secs_f32() * 1e3) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: usize) -> c_int {
    match DEVICE.allocate(bytes) {
        Some(first) => unsafe { give(address, first) },
        None => OUT_OF_MEMORY,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    unsafe { cuMemAllocAsync(address, bytes, 0) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, _stream: usize) -> c_int {
    if DEVICE.free(address) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    cuMemFreeAsync(address, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocHost_v2(address: *mut u64, bytes: usize) -> c_int {
    unsafe { cuMemAllocAsync(address, bytes, 0) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: u64) -> c_int {
    cuMemFreeAsync(address, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: usize) -> c_int {
    if !DEVICE.holds(to, bytes) {
        return complain("a copy to the device ends outside its allocation", INVALID_VALUE);
    }
    // SAFETY: the device has the bytes, and so does the caller.
    unsafe { (to as *mut u8).copy_from(from, bytes) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: usize) -> c_int {
    if !DEVICE.holds(from, bytes) {
        return complain("a copy from the device ends outside its allocation", INVALID_VALUE);
    }
    // SAFETY: as above.
    unsafe { to.copy_from(from as *const u8, bytes) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: usize) -> c_int {
    if !DEVICE.holds(from, bytes) || !DEVICE.holds(to, bytes) {
        return complain("a copy on the device ends outside its allocation", INVALID_VALUE);
    }
    // SAFETY: the device has both.
    unsafe { (to as *mut u8).copy_from(from as *const u8, bytes) };
    SUCCESS
}

/// The layout of `CUDA_MEMCPY2D_st`.
#[repr(C)]
struct Copy2D {
    from_x: usize,
    from_y: usize,
    from_type: c_uint,
    from_host: *const u8,
    from_device: u64,
    from_array: usize,
    from_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_type: c_uint,
    to_host: *mut u8,
    to_device: u64,
    to_array: usize,
    to_pitch: usize,
    width: usize,
    height: usize,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const Copy2D, _stream: usize) -> c_int {
    const ON_DEVICE: c_uint = 2;
    // SAFETY: the caller passes a description of memory that it owns.
    unsafe {
        let copy = &*copy;
        let from = if copy.from_type == ON_DEVICE { copy.from_device as *const u8 } else { copy.from_host };
        let to = if copy.to_type == ON_DEVICE { copy.to_device as *mut u8 } else { copy.to_host };
        for row in 0..copy.height {
            let from = from.add((copy.from_y + row) * copy.from_pitch + copy.from_x);
            let to = to.add((copy.to_y + row) * copy.to_pitch + copy.to_x);
            let is_held = |on_device, address| on_device != ON_DEVICE || DEVICE.holds(address, copy.width);
            if !is_held(copy.from_type, from as u64) || !is_held(copy.to_type, to as u64) {
                return complain("a copy of rows ends outside its allocation", INVALID_VALUE);
            }
            to.copy_from(from, copy.width);
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> c_int {
    // SAFETY: PTX is a zero-terminated string.
    let Ok(text) = (unsafe { CStr::from_ptr(image) }).to_str() else {
        return complain("a module that is no PTX", INVALID_PTX);
    };
    match parse(text, &DEVICE) {
        Ok(kernels) => {
            let mut modules = locked(&MODULES);
            keep(text, &kernels, modules.modules.len());
            modules
                .modules
                .push(kernels.into_iter().map(|(name, kernel)| (name, Arc::new(kernel))).collect());
            unsafe { give(module, modules.modules.len()) }
        }
        Err(text) => complain(&text, INVALID_PTX),
    }
}

/// Writes a module where `CUDA_EMULATOR_PTX` says.
fn keep(text: &str, kernels: &HashMap<String, Kernel>, number: usize) {
    let Some(folder) = std::env::var_os("CUDA_EMULATOR_PTX") else { return };
    let name = kernels.keys().min().map_or("none", String::as_str);
    let path = std::path::Path::new(&folder).join(format!("{number:04}-{name}.ptx"));
    if let Err(error) = std::fs::write(&path, text) {
        eprintln!("cuda emulator: {}: {error}", path.display());
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(_module: usize) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> c_int {
    // SAFETY: a name is a zero-terminated string.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let mut modules = locked(&MODULES);
    let Some(kernel) = modules.modules.get(module - 1).and_then(|kernels| kernels.get(&*name)).cloned()
    else {
        return NOT_FOUND;
    };
    modules.functions.push(kernel);
    unsafe { give(function, modules.functions.len()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(_function: usize, _attribute: c_int, _value: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    blocks_x: c_uint,
    blocks_y: c_uint,
    blocks_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    shared: c_uint,
    _stream: usize,
    arguments: *const *const c_void,
    _extra: *const c_void,
) -> c_int {
    let Some(kernel) = locked(&MODULES).functions.get(function - 1).cloned() else {
        return NOT_FOUND;
    };
    let blocks = [blocks_x, blocks_y, blocks_z];
    let threads = [threads_x, threads_y, threads_z];
    let is_valid = blocks_x >= 1
        && blocks_x <= c_int::MAX as u32
        && blocks[1..].iter().all(|extent| (1..=MAX_BLOCKS).contains(extent))
        && threads.iter().all(|extent| *extent >= 1)
        && threads.iter().product::<u32>() <= MAX_THREADS
        && threads_z <= 64
        && shared + kernel.shared as u32 <= MAX_SHARED;
    if !is_valid {
        let text =
            format!("{}: {blocks:?} blocks of {threads:?} threads, {shared} bytes shared", kernel.name);
        return complain(&text, INVALID_VALUE);
    }
    let mut parameters = vec![0u8; kernel.parameters.last().map_or(0, |(at, size)| at + size)];
    for (i, (at, size)) in kernel.parameters.iter().enumerate() {
        // SAFETY: the caller passes a pointer to each parameter.
        let from = unsafe { std::slice::from_raw_parts((*arguments.add(i)).cast::<u8>(), *size) };
        parameters[*at..at + size].copy_from_slice(from);
    }
    static FAIL: LazyLock<Names> = LazyLock::new(|| Names::of("CUDA_EMULATOR_FAIL"));
    static SKIP: LazyLock<Names> = LazyLock::new(|| Names::of("CUDA_EMULATOR_SKIP"));
    if FAIL.have(&kernel.name) {
        return complain(&format!("{} fails, as CUDA_EMULATOR_FAIL says", kernel.name), ILLEGAL_ADDRESS);
    }
    if SKIP.have(&kernel.name) {
        // No time is zero.
        std::thread::sleep(Duration::from_millis(3));
        return SUCCESS;
    }
    let started = Instant::now();
    let grid = Grid { blocks, threads, shared: shared as usize };
    match launch(&kernel, grid, &parameters, &DEVICE) {
        Ok(executed) => {
            trace(&kernel.name, grid, executed, started);
            SUCCESS
        }
        Err(failure) => complain(&failure.0, ILLEGAL_ADDRESS),
    }
}

/// Prefixes of kernels' names.
struct Names(String);

impl Names {
    /// From an environment variable, separated by commas.
    fn of(variable: &str) -> Self {
        Self(std::env::var(variable).unwrap_or_default())
    }

    fn have(&self, name: &str) -> bool {
        self.0.split(',').any(|start| !start.is_empty() && name.starts_with(start))
    }
}

fn trace(name: &str, grid: Grid, executed: u64, started: Instant) {
    static TO: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
        let path = std::env::var_os("CUDA_EMULATOR_TRACE")?;
        std::fs::File::options().create(true).append(true).open(path).ok().map(Mutex::new)
    });
    let Some(to) = &*TO else { return };
    let ([x, y, z], [a, b, c]) = (grid.blocks, grid.threads);
    let seconds = started.elapsed().as_secs_f64();
    let line = format!("{name} {x},{y},{z} {a},{b},{c} {} {executed} {seconds:.6}\n", grid.shared);
    if let Err(error) = locked(to).write_all(line.as_bytes()) {
        eprintln!("cuda emulator: no trace: {error}");
    }
}

/// Prints what went wrong, which the codes of the API cannot express.
fn complain(text: &str, code: c_int) -> c_int {
    eprintln!("cuda emulator: {text}");
    code
}

fn describe(code: c_int) -> &'static CStr {
    match code {
        SUCCESS => c"no error",
        INVALID_VALUE => c"invalid value, as the emulator said",
        OUT_OF_MEMORY => c"out of memory",
        INVALID_PTX => c"PTX that the emulator does not know, as it said",
        NOT_FOUND => c"not found",
        ILLEGAL_ADDRESS => c"a kernel failed, as the emulator said",
        _ => c"not supported by the emulator",
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: c_int, text: *mut *const c_char) -> c_int {
    unsafe { give(text, describe(code).as_ptr()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    unsafe { give(text, describe(code).as_ptr()) }
}
