//! Time and memory of one attention, forward and backward, on one synthetic document.

use std::time::Instant;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::noise;
use crate::model::attention::AttentionConfig;
use crate::model::context::{BatchCounts, Context, Pass};
use crate::model::init::Init;
use crate::model::rope::Ropes;
use crate::model::{Input, ModelConfig};
use crate::ops::is_cpu;

/// What one attention kind costs at one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The kind.
    pub kind: String,
    /// Tokens of the document.
    pub tokens: usize,
    /// Seconds of a forward and a backward pass.
    pub seconds: f64,
    /// Total CPU seconds, which other running work does not change much; absent if the system does not report
    /// it, and without GPU work.
    pub processor_seconds: Option<f64>,
    /// Peak bytes of the process, less those before the first pass; absent where the system does not report
    /// it.
    pub peak_bytes: Option<u64>,
}

/// Characters of a column.
const WIDTH: usize = 36;

/// Seconds for repetitions; what takes longer is measured once.
const SECONDS: f64 = 0.5;

/// Measures an attention in the blocks of a model, whose sequences are as long as the document. It should be
/// the first thing that a process does, since the peak memory is that of the process.
///
/// # Errors
/// When the device fails.
pub fn measure_attention(
    config: &AttentionConfig,
    geometry: &ModelConfig,
    device: &burn::tensor::Device,
) -> crate::Result<Measured> {
    let (tokens, autodiff) = (geometry.seq_len, device.clone().autodiff());
    let wait = || device.sync().map_err(|error| crate::Error::Device(format!("the device failed: {error}")));
    let layer = config.build(geometry.place(1.0), "bench", &Init::new(1, geometry.init_std, &autodiff));
    let positions: Vec<u32> = (0..tokens as u32).collect();
    let input = Input::new(&positions, &positions, &vec![0; tokens], [1, tokens], &autodiff);
    let ropes = Ropes::new(tokens, config.rotary(geometry.d_model), geometry.attention.stretch());
    let ctx = Context::new(&input, Pass::EVAL, BatchCounts::of(&input.valid), &ropes);
    let x: Tensor<2> = noise("x", [tokens, geometry.d_model], device).cast(geometry.compute.dtype());
    let x = Tensor::from_inner(x).require_grad();
    let pass = || {
        let (start, started) = (Instant::now(), processor_seconds());
        let gradients = layer.forward(x.clone(), &ctx).sum().backward();
        wait()?;
        let seconds = start.elapsed().as_secs_f64();
        let of_processors = started.zip(processor_seconds()).map(|(before, after)| after - before);
        drop(gradients);
        Ok::<_, crate::Error>((seconds, of_processors))
    };
    // GPU memory is not part of the memory of the process.
    let before = if is_cpu(device) { status("VmRSS:") } else { None };
    let (mut seconds, mut of_processors) = pass()?;
    let peak_bytes = before.zip(status("VmHWM:")).map(|(before, peak)| peak.saturating_sub(before));
    // The first pass starts threads and allocates memory; the fastest of several shows what the machine can
    // do.
    let mut spent = seconds;
    while spent < SECONDS {
        let again = pass()?;
        seconds = seconds.min(again.0);
        of_processors = of_processors.zip(again.1).map(|(a, b)| a.min(b));
        spent += again.0;
    }
    let kind = config.kind().to_string();
    Ok(Measured { kind, tokens, seconds, processor_seconds: of_processors, peak_bytes })
}

/// A line of Linux's status of this process, in bytes.
fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// CPU time of all threads of this process, from Linux.
fn processor_seconds() -> Option<f64> {
    let nanoseconds = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    Some(threads.map(nanoseconds).sum::<Option<u64>>()? as f64 / 1e9)
}

/// The measurements as a table: a line for each kind, a column for each length. Each cell has milliseconds,
/// CPU milliseconds in brackets, and memory.
pub fn table(measured: &[Measured]) -> String {
    let mut lengths: Vec<usize> = measured.iter().map(|cell| cell.tokens).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut kinds: Vec<&str> = Vec::new();
    for cell in measured {
        if !kinds.contains(&cell.kind.as_str()) {
            kinds.push(&cell.kind);
        }
    }
    let mut lines = vec![format!("{:<6}", "kind")];
    for length in &lengths {
        lines[0] += &format!("{:>WIDTH$}", format!("{length} tokens"));
    }
    for kind in kinds {
        let mut line = format!("{kind:<6}");
        for &length in &lengths {
            let cell = measured.iter().find(|cell| cell.kind == kind && cell.tokens == length);
            let text = cell.map_or_else(String::new, |cell| {
                let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1u32 << 20));
                let memory = cell.peak_bytes.map_or("?".to_string(), mib);
                let of_processors = cell.processor_seconds.map(|seconds| format!("({:.1})", 1e3 * seconds));
                let of_processors = of_processors.unwrap_or("(?)".to_string());
                format!("{:.1} {of_processors} ms {memory:>7} MiB", 1e3 * cell.seconds)
            });
            line += &format!("{text:>WIDTH$}");
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_lines_and_lengths_are_columns() {
        let cell = |kind: &str, tokens, seconds, peak_bytes: Option<u64>| Measured {
            kind: kind.into(),
            tokens,
            seconds,
            processor_seconds: peak_bytes.map(|_| 2.0 * seconds),
            peak_bytes,
        };
        let table = table(&[
            cell("gqa", 256, 0.0125, Some(3 << 20)),
            cell("gqa", 1024, 0.25, Some(1 << 19)),
            cell("kda", 256, 1.0, None),
        ]);
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["kind", "256", "tokens", "1024", "tokens"]);
        assert_eq!(
            words[1],
            ["gqa", "12.5", "(25.0)", "ms", "3.0", "MiB", "250.0", "(500.0)", "ms", "0.5", "MiB"]
        );
        assert_eq!(words[2], ["kda", "1000.0", "(?)", "ms", "?", "MiB"]);
    }
}
