//! `moe-train verify-resume`: two runs of the same configuration, one of them killed halfway and resumed, and
//! a comparison of how they end. Each part is a separate process, so that only what is on disk survives.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{INTERRUPTED, source, stop_flag};
use crate::checkpoint::{self, checkpoint_name, checkpoints_dir};
use crate::cli::VerifyResumeArgs;
use crate::config::RunConfig;
use crate::config::value::Value as Setting;
use crate::error::{Error, Result};
use crate::printer::Printer;

/// How often to look at the run that is to be killed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) fn run(args: VerifyResumeArgs, printer: &mut Printer) -> Result<u8> {
    let (steps, half) = (args.steps, args.steps / 2);
    let mut source = source::read(&args.source)?;
    source.apply(args.shards.as_deref(), None, args.device);
    let mut values = source.values;
    // A checkpoint at the kill, a line of the metrics that spans it, and a validation.
    let rhythm =
        [("run.save_every", half), ("run.log_every", half + 1), ("run.eval_every", steps), ("run.keep", 9)];
    rhythm.into_iter().for_each(|(key, n)| values.set(key, Setting::Int(n as i64)));
    let config = RunConfig::new(values, source.problems)?;
    if let Some(all) = config.run.steps.filter(|all| *all < steps) {
        return Err(Error::Usage(format!("--steps {steps}: the run has only {all} steps; give fewer")));
    }
    let stop = stop_flag()?;

    let work = &args.work;
    if work.exists() {
        return Err(Error::Usage(format!(
            "--work {}: exists; name a new folder, or remove what an earlier check left there",
            work.display()
        )));
    }
    std::fs::create_dir_all(work).map_err(Error::io(work, "create"))?;
    let file = work.join("config.toml");
    moe_shards::atomic::write_file(&file, config.values.to_toml(false).as_bytes())?;

    let (straight, killed) = (work.join("straight"), work.join("killed"));
    let end = ["--stop-after".to_string(), steps.to_string()];
    printer.say(format!("{steps} steps without interruption"));
    let train = |run: &Path| -> Result<Command> {
        let mut command = program()?;
        command.arg("train").arg("--config").arg(&file).arg("--run").arg(run).args(&end);
        Ok(command)
    };
    if let Some(code) = run_child(&mut train(&straight)?, None, &stop)? {
        return give_up(work, code);
    }
    let done = checkpoint::load(&checkpoint::resolve(&straight, None)?)?.state.step;
    if done < steps {
        std::fs::remove_dir_all(work).map_err(Error::io(work, "remove"))?;
        return Err(Error::Usage(format!("--steps {steps}: the run has only {done} steps; give fewer")));
    }
    printer.say(format!("{steps} steps, killed (SIGKILL) after step {half}"));
    let until = checkpoints_dir(&killed).join(checkpoint_name(half));
    if let Some(code) = run_child(&mut train(&killed)?, Some(&until), &stop)? {
        return give_up(work, code);
    }
    printer.say("and resumed");
    let from = checkpoint_name(half);
    let mut resume = program()?;
    resume.arg("resume").arg(&killed).arg("--from").arg(from).args(&end);
    if let Some(code) = run_child(&mut resume, None, &stop)? {
        return give_up(work, code);
    }

    let [one, other] = [End::of(&straight, steps)?, End::of(&killed, steps)?];
    let differing = one.differing(&other);
    if args.json {
        let record = json!({
            "steps": steps,
            "killed_after": half,
            "without_a_stop": one.json(),
            "killed_and_resumed": other.json(),
            "exact": differing.is_empty(),
        });
        printer.data(format!("{record:#}"))?;
    } else {
        printer.data(format!("{:<22} {:<12} {}", "", "uninterrupted", "killed and resumed"))?;
        for ((name, a), (_, b)) in one.0.iter().zip(&other.0) {
            let verdict = if a == b { "the same" } else { "DIFFERENT" };
            printer.data(format!("{name:<22} {a:<12} {b:<12} {verdict}"))?;
        }
    }
    if !differing.is_empty() {
        let problem = format!(
            "the resumed run does not equal the uninterrupted run: {} differ; both runs were kept",
            differing.join(", ")
        );
        return Err(Error::checkpoint(work, problem));
    }
    std::fs::remove_dir_all(work).map_err(Error::io(work, "remove"))?;
    printer.say("exact: the run that was killed and resumed equals the uninterrupted run, bit for bit");
    Ok(0)
}

/// This program, quiet.
fn program() -> Result<Command> {
    let path = std::env::current_exe().map_err(Error::io(Path::new("this program"), "find"))?;
    let mut command = Command::new(path);
    command.arg("--quiet").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// The exit code to pass on; a process without one was ended by a signal.
fn code_of(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Runs a command to its end, or kills it when a folder appears. Returns its exit code if it failed, after it
/// has said why; a signal to this program ends it too.
fn run_child(command: &mut Command, until: Option<&Path>, stop: &AtomicBool) -> Result<Option<u8>> {
    let io = |action| Error::io(Path::new("moe-train"), action);
    let mut child = command.spawn().map_err(io("run"))?;
    loop {
        let is_there = until.is_some_and(Path::is_dir);
        let is_over = stop.load(Ordering::SeqCst);
        if is_there || is_over {
            child.kill().map_err(io("kill"))?;
            child.wait().map_err(io("wait for"))?;
            return Ok(is_over.then_some(INTERRUPTED));
        }
        if let Some(status) = child.try_wait().map_err(io("wait for"))? {
            // It may have finished between the two looks.
            let has_done = status.success() && until.is_none_or(Path::is_dir);
            return Ok((!has_done).then(|| code_of(status)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Removes the unfinished runs; the run that failed has said why.
fn give_up(work: &Path, code: u8) -> Result<u8> {
    std::fs::remove_dir_all(work).map_err(Error::io(work, "remove"))?;
    Ok(code)
}

/// The end state of a run: names, and digests that are short enough to read.
struct End(Vec<(&'static str, String)>);

impl End {
    fn of(run: &Path, step: u64) -> Result<Self> {
        let path = checkpoints_dir(run).join(checkpoint_name(step));
        let loaded = checkpoint::load(&path)?;
        let state = loaded.state;
        let optimizer = moe_shards::Hash::of_file(&path.join("optim.safetensors"))?;
        let metrics = moe_shards::Hash::of(lines_without_clock(&run.join("metrics.jsonl"))?.as_bytes());
        let mut hashes = vec![
            ("parameters", state.parameter_hash),
            ("optimizer state", optimizer),
            ("samples read", state.data_hash),
            ("lines of the metrics", metrics),
        ];
        if loaded.has_average {
            hashes.push(("average of weights", moe_shards::Hash::of_file(&path.join("ema.safetensors"))?));
        }
        Ok(Self(hashes.into_iter().map(|(name, hash)| (name, hash.short().to_string())).collect()))
    }

    /// Names of what differs.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&other.0);
        pairs.filter(|(a, b)| a != b).map(|((name, _), _)| *name).collect()
    }

    fn json(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, hash)| ((*name).to_string(), hash.clone().into())).collect()
    }
}

/// The metrics of a run without measured times.
fn lines_without_clock(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let mut lines = String::new();
    for line in text.lines() {
        let damaged = |error| Error::Data(format!("{}: a line is not JSON: {error}", path.display()));
        let mut record: Map<String, Value> = serde_json::from_str(line).map_err(damaged)?;
        record.retain(|key, _| !key.starts_with("perf/"));
        lines.push_str(&format!("{}\n", Value::Object(record)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_the_clock_does_not_count() {
        let dir = tempfile::tempdir().expect("dir");
        let lines = |text: &str| {
            let path = dir.path().join("metrics.jsonl");
            std::fs::write(&path, text).expect("write");
            lines_without_clock(&path).expect("lines")
        };
        let one = lines("{\"step\":1,\"train/ce\":2.5,\"perf/tokens_per_s\":10.0}\n");
        assert_eq!(one, lines("{\"step\":1,\"perf/tokens_per_s\":11.0,\"train/ce\":2.5}\n"));
        assert_ne!(one, lines("{\"step\":1,\"train/ce\":2.5000001}\n"));

        let end =
            |optimizer: &str| End(vec![("parameters", "aa".into()), ("optimizer state", optimizer.into())]);
        assert!(end("bb").differing(&end("bb")).is_empty());
        assert_eq!(end("bb").differing(&end("bc")), ["optimizer state"]);
    }
}
