//! Kernels in PTX with results computed by hand.

use cuda_emulator::{Failure, Grid, Memory, launch, parse};

/// Runs a kernel that takes the address of a buffer, with one block, and returns the buffer.
fn run(body: &str, threads: u32, shared: usize, input: &[u32]) -> Result<Vec<u32>, String> {
    let memory = Memory::new();
    let buffer = memory.allocate(4 * input.len()).unwrap();
    for (i, value) in input.iter().enumerate() {
        memory.store(buffer + 4 * i as u64, 4, u64::from(*value)).unwrap();
    }
    let text = format!(
        ".version 8.7\n.target sm_90a\n.address_size 64\n.extern .shared .align 128 .b8 all[];\n\
         .visible .entry kernel(\n .param .u64 .ptr .global .align 1 kernel_param_0\n)\n{{\n\
         .reg .pred %p<9>;\n ld.param.b64 %rd1, [kernel_param_0];\n mov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd2, %r1, 4;\n add.s64 %rd3, %rd1, %rd2;\n{body}\n}}\n"
    );
    let kernels = parse(&text, &memory)?;
    let grid = Grid { blocks: [1; 3], threads: [threads, 1, 1], shared };
    launch(&kernels["kernel"], grid, &buffer.to_le_bytes(), &memory).map_err(|Failure(text)| text)?;
    Ok((0..input.len()).map(|i| memory.load(buffer + 4 * i as u64, 4).unwrap() as u32).collect())
}

#[test]
fn diverged_lanes_meet_again() {
    // Lanes below 10 add 100; a loop with as many iterations as the lane's number adds 1 each; then all
    // shuffle.
    let body = "
        ld.global.b32 %r2, [%rd3];
        setp.ge.u32 %p1, %r1, 10;
        @%p1 bra $SKIP;
        add.s32 %r2, %r2, 100;
    $SKIP:
        mov.b32 %r3, 0;
        bra.uni $TEST;
    $AGAIN:
        add.s32 %r2, %r2, 1;
        add.s32 %r3, %r3, 1;
    $TEST:
        setp.lt.u32 %p2, %r3, %r1;
        @%p2 bra $AGAIN;
        activemask.b32 %r4;
        shfl.sync.bfly.b32 %r5, %r2, 1, 31, %r4;
        st.global.b32 [%rd3], %r5;
        ret;";
    let found = run(body, 32, 0, &[1000; 32]).unwrap();
    let own = |lane: u32| 1000 + lane + if lane < 10 { 100 } else { 0 };
    assert_eq!(found, (0..32).map(|lane| own(lane ^ 1)).collect::<Vec<_>>());
}

#[test]
fn warps_exchange_through_shared_memory() {
    // Every thread reads what the thread 40 positions later, in another warp, has written.
    let body = "
        mov.b64 %rd4, all;
        add.s64 %rd5, %rd4, %rd2;
        mul.lo.s32 %r2, %r1, 3;
        st.shared.b32 [%rd5], %r2;
        bar.sync 0;
        add.s32 %r3, %r1, 40;
        rem.u32 %r4, %r3, 70;
        mul.wide.u32 %rd6, %r4, 4;
        add.s64 %rd7, %rd4, %rd6;
        ld.shared.b32 %r5, [%rd7];
        st.global.b32 [%rd3], %r5;
        ret;";
    let found = run(body, 70, 280, &[0; 70]).unwrap();
    assert_eq!(found, (0..70).map(|i| (i + 40) % 70 * 3).collect::<Vec<_>>());
}

#[test]
fn faults_say_what_and_where() {
    let outside = "st.global.b32 [%rd3+4], %r1;\n ret;";
    let error = run(outside, 8, 0, &[0; 8]).unwrap_err();
    assert!(error.contains("outside all allocations") && error.contains("st.global.b32"), "{error}");

    let shared = "mov.b64 %rd4, all;\n ld.shared.b32 %r2, [%rd4+64];\n ret;";
    let error = run(shared, 1, 64, &[0]).unwrap_err();
    assert!(error.contains("4 bytes at 64 of 64 bytes (Shared)"), "{error}");

    let barrier = "setp.lt.u32 %p1, %r1, 5;\n @%p1 bra $END;\n bar.sync 0;\n $END:\n ret;";
    let error = run(barrier, 32, 0, &[0]).unwrap_err();
    assert!(error.contains("come to a barrier"), "{error}");

    let unaligned = "ld.global.v2.b32 {%r2, %r3}, [%rd1+4];\n ret;";
    let error = run(unaligned, 1, 0, &[0; 4]).unwrap_err();
    assert!(error.contains("not aligned"), "{error}");

    let unknown = "frobnicate.b32 %r2, %r1;\n ret;";
    let error = run(unknown, 1, 0, &[0]).unwrap_err();
    assert!(error.contains("not known") && error.contains("frobnicate"), "{error}");
}

/// bf16 of a small integer.
fn bf16(value: u32) -> u32 {
    (value as f32).to_bits() >> 16
}

/// A, 16 by 16, and B, 16 by `n`, of small integers, and their product.
fn matrices(n: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let a: Vec<u32> = (0..256).map(|i| (i * 7 + i / 16) % 11).collect();
    let b: Vec<u32> = (0..16 * n as u32).map(|i| (i * 5 + i / 3) % 13).collect();
    let product = (0..16 * n).map(|i| (0..16).map(|k| (a[i / n * 16 + k] * b[k * n + i % n]) as f32).sum());
    let product = product.collect();
    (a, b, product)
}

#[test]
fn wmma_multiplies_matrices() {
    let (a, b, expected) = matrices(16);
    // Two values in a word; A by rows, B by columns.
    let words = |m: Vec<u32>| m.chunks(2).map(|pair| bf16(pair[0]) | bf16(pair[1]) << 16).collect::<Vec<_>>();
    let columns = (0..256).map(|i| b[i % 16 * 16 + i / 16]).collect();
    let mut input = words(a);
    input.extend(words(columns));
    input.extend([0; 256]);
    let body = "
        mov.b32 %r9, 16;
        wmma.load.a.sync.aligned.row.m16n16k16.global.bf16 {%r10, %r11, %r12, %r13}, [%rd1], %r9;
        wmma.load.b.sync.aligned.col.m16n16k16.global.bf16 {%r14, %r15, %r16, %r17}, [%rd1+512], %r9;
        mov.b32 %r18, 0f3F800000;
        wmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32
            {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27},
            {%r10, %r11, %r12, %r13}, {%r14, %r15, %r16, %r17},
            {%r18, %r18, %r18, %r18, %r18, %r18, %r18, %r18};
        wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd1+1024],
            {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27}, %r9;
        ret;";
    let found = run(body, 32, 0, &input).unwrap();
    for (found, expected) in found[256..].iter().zip(&expected) {
        assert_eq!(f32::from_bits(*found), expected + 1.0);
    }
}

#[test]
fn mma_has_the_layouts_of_the_manual() {
    let (a, b, expected) = matrices(8);
    // The elements of lane 4 g + t (PTX ISA 8.7, 9.7.14.5.8): A at rows g and g + 8, columns 2 t and 2 t + 8
    // with their neighbors; B at rows 2 t and 2 t + 8 with theirs, column g; sums at rows g and g + 8,
    // columns 2 t and 2 t + 1.
    let pair = |x: u32, y: u32| bf16(x) | bf16(y) << 16;
    let mut input = vec![0; 32 * 10];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for (i, (row, column)) in
            [(g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)].into_iter().enumerate()
        {
            input[i * 32 + lane] = pair(a[row * 16 + column], a[row * 16 + column + 1]);
        }
        for (i, row) in [2 * t, 2 * t + 8].into_iter().enumerate() {
            input[(4 + i) * 32 + lane] = pair(b[row * 8 + g], b[(row + 1) * 8 + g]);
        }
    }
    let mut body = String::new();
    for i in 0..6 {
        body += &format!("ld.global.b32 %r{}, [%rd3+{}];\n", 10 + i, 128 * i);
    }
    body += "mov.b32 %r9, 0;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r20, %r21, %r22, %r23},
            {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%r9, %r9, %r9, %r9};\n";
    for i in 0..4 {
        body += &format!("st.global.b32 [%rd3+{}], %r{};\n", 128 * (6 + i), 20 + i);
    }
    body += "ret;";
    let found = run(&body, 32, 0, &input).unwrap();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..4 {
            let at = (g + i / 2 * 8) * 8 + 2 * t + i % 2;
            assert_eq!(f32::from_bits(found[(6 + i) * 32 + lane]), expected[at], "lane {lane}, sum {i}");
        }
    }
}

#[test]
fn atomics_of_all_threads_add_up() {
    let body = "atom.global.add.u32 %r2, [%rd1], 3;\n ret;";
    assert_eq!(run(body, 96, 0, &[5]).unwrap(), [5 + 3 * 96]);
}
