//! Follows the files of a run: lines as they are written, and from the beginning if a resumed run has cut
//! them back.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moe_cli::lock;
use moe_report::settings;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::report::log::{AlarmLine, RunLog};
use crate::run::{ALARMS, AlarmKind};

/// How often to check whether a run that writes nothing is still in progress.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A process trains it.
    Running,
    /// No process trains it, and it has not reached its end: it was stopped or killed, and may be resumed.
    Stopped,
    /// It reached its end.
    Done,
    /// Loss or gradient was not finite.
    Diverged,
}

/// Follows a run.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    metrics: Tail,
    alarm_lines: Tail,
    /// Its metrics.
    pub log: RunLog,
    /// Alarms, in order.
    pub alarms: Vec<AlarmLine>,
    /// Lines that are not our records.
    pub n_bad: u64,
    /// Steps of the whole run, if known.
    pub n_steps: Option<f64>,
    /// Its state.
    pub status: Status,
    asked: Option<Instant>,
}

impl Follower {
    /// Looks at the run in `dir` for the first time.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none; a file cannot be read.
    pub fn open(dir: &Path) -> Result<Follower> {
        let is_run =
            ["metrics.jsonl", ".lock", "config.lock.toml"].iter().any(|name| dir.join(name).is_file());
        if !is_run {
            return Err(Error::Usage(format!(
                "{}: expected a run's folder, with metrics.jsonl or config.lock.toml; found neither",
                dir.display()
            )));
        }
        let name =
            dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
        let mut follower = Follower {
            dir: dir.to_path_buf(),
            metrics: Tail::new(dir.join("metrics.jsonl")),
            alarm_lines: Tail::new(dir.join(ALARMS)),
            log: RunLog::new(&name),
            alarms: Vec::new(),
            n_bad: 0,
            n_steps: None,
            status: Status::Running,
            asked: None,
        };
        follower.look()?;
        Ok(follower)
    }

    /// Reads what is new since the last call; returns whether anything is.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn look(&mut self) -> Result<bool> {
        let lines = self.metrics.read()?;
        if lines.is_anew {
            let name = std::mem::take(&mut self.log.name);
            self.log = RunLog {
                name,
                seq_len: self.log.seq_len,
                first_sample: self.log.first_sample,
                ..RunLog::default()
            };
            self.n_bad = 0;
        }
        for line in lines.lines() {
            self.n_bad += u64::from(!self.log.push(line));
        }
        self.log.finish();
        let alarms = self.alarm_lines.read()?;
        if alarms.is_anew {
            self.alarms.clear();
        }
        self.alarms.extend(alarms.lines().filter_map(AlarmLine::parse));
        let before = self.status;
        if lines.has_come() && self.status == Status::Stopped {
            self.status = Status::Running;
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            self.circumstances()?;
            self.status = self.ask()?;
        }
        Ok(lines.has_come() || alarms.has_come() || self.status != before)
    }

    /// The first alarm of one of these kinds.
    pub fn alarm_of(&self, kinds: &[AlarmKind]) -> Option<&AlarmLine> {
        self.alarms.iter().find(|alarm| kinds.iter().any(|kind| kind.name() == alarm.kind))
    }

    /// Length, sequence and first sample of the run. A resumed run may have another length.
    fn circumstances(&mut self) -> Result<()> {
        let lock = self.dir.join("config.lock.toml");
        match std::fs::read_to_string(&lock) {
            Ok(text) => {
                let config = settings::flat(&text).map_err(|error| {
                    Error::Data(format!("{}: is not valid TOML: {error}", lock.display()))
                })?;
                self.n_steps = config.get("run.steps").and_then(|steps| steps.parse().ok());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&lock, "read")(error)),
        }
        if self.log.seq_len.is_none() {
            // A run that has just begun has no checkpoint, and one may be replaced while it is read; the next
            // call will try again.
            let state = checkpoint::resolve(&self.dir, None).and_then(|path| checkpoint::read_state(&path));
            if let Ok(state) = state {
                self.log.seq_len = Some(state.seq_len as f64);
                self.log.first_sample = state.origin.unwrap_or_default().t as f64;
            }
        }
        Ok(())
    }

    fn ask(&self) -> Result<Status> {
        if self.is_locked()? {
            return Ok(Status::Running);
        }
        let is_done = self.n_steps.is_some_and(|n_steps| self.log.last_step() >= n_steps);
        let non_finite = AlarmKind::NonFinite.name();
        let diverged = self
            .alarms
            .last()
            .is_some_and(|alarm| alarm.kind == non_finite && alarm.step as f64 >= self.log.last_step());
        Ok(match (is_done, diverged) {
            (_, true) => Status::Diverged,
            (true, false) => Status::Done,
            (false, false) => Status::Stopped,
        })
    }

    /// Whether a process holds the run. This takes the lock for a moment; a process that starts retries.
    fn is_locked(&self) -> Result<bool> {
        lock::is_held(&self.dir).map_err(Error::io(&self.dir.join(lock::FILE), "lock"))
    }
}

/// A file that grows by lines and may be replaced by another one.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
}

/// What is new.
struct Lines {
    /// Whether the lines are from the beginning of the file.
    is_anew: bool,
    /// Whole lines.
    bytes: Vec<u8>,
}

impl Lines {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }

    fn has_come(&self) -> bool {
        self.is_anew || !self.bytes.is_empty()
    }
}

impl Tail {
    fn new(path: PathBuf) -> Tail {
        Tail { path, file: None, offset: 0 }
    }

    fn read(&mut self) -> Result<Lines> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io(&self.path, "look at")(e)),
        };
        let had = self.file.is_some();
        if let Some(file) = &self.file {
            let held = file.metadata().map_err(Error::io(&self.path, "look at"))?;
            // While a file is open, its inode number is not reused, so a replacement has another one.
            let is_same = now.as_ref().is_some_and(|now| is_same(&held, now) && now.len() >= self.offset);
            if !is_same {
                self.file = None;
            }
        }
        let mut is_anew = false;
        if self.file.is_none() {
            self.offset = 0;
            is_anew = had;
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(&self.path, "open")(e)),
            }
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(self.offset)).map_err(Error::io(&self.path, "read"))?;
            file.read_to_end(&mut bytes).map_err(Error::io(&self.path, "read"))?;
            // The rest is a line that is being written, or that a kill has cut off.
            bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            self.offset += bytes.len() as u64;
        }
        Ok(Lines { is_anew, bytes })
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.created().ok() == b.created().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn steps(follower: &mut Follower) -> Vec<f64> {
        follower.look().unwrap();
        follower.log.train.steps.clone()
    }

    #[test]
    fn lines_are_followed_through_halves_kills_and_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1,\"train/ce\":5}\n{\"step\":2,\"tra").unwrap();
        let mut follower = Follower::open(dir.path()).unwrap();
        assert_eq!(steps(&mut follower), [1.0]);
        let append = |text: &str| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("in/ce\":4}\n{\"step\":3,\"train/ce\":3}\n{\"st");
        assert_eq!(steps(&mut follower), [1.0, 2.0, 3.0]);
        assert_eq!(follower.log.train.points("train/ce"), [(1.0, 5.0), (2.0, 4.0), (3.0, 3.0)]);
        // A resumed run replaces the file by a shorter one, which may grow past the old one before it is
        // seen.
        let other = "{\"step\":1,\"train/ce\":5}\n{\"step\":2,\"train/ce\":4}\n{\"step\":3,\"train/ce\":3.5}\n{\"step\":4,\"train/ce\":3.25}\n";
        moe_shards::atomic::write_file(&path, other.as_bytes()).unwrap();
        assert_eq!(steps(&mut follower), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(follower.log.train.last("train/ce"), Some(3.25));
        append("junk\n{\"step\":5,\"train/ce\":3}\n");
        assert_eq!((steps(&mut follower).len(), follower.n_bad), (5, 1));
        std::fs::remove_file(&path).unwrap();
        assert!(steps(&mut follower).is_empty());
    }

    #[test]
    fn a_run_without_a_process_is_stopped_done_or_diverged() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let status = || Follower::open(dir.path()).map(|follower| follower.status);
        assert!(status().is_err());
        write("config.lock.toml", "[run]\nsteps = 2\n");
        write("metrics.jsonl", "{\"step\":1}\n");
        assert_eq!(status().unwrap(), Status::Stopped);
        write(".lock", "");
        let lock = File::open(dir.path().join(".lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(status().unwrap(), Status::Running);
        lock.unlock().unwrap();
        write("metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n");
        assert_eq!(status().unwrap(), Status::Done);
        write("alarms.jsonl", "{\"schema\":1,\"step\":2,\"alarm\":\"non-finite\",\"message\":\"m\"}\n");
        let follower = Follower::open(dir.path()).unwrap();
        assert_eq!(follower.status, Status::Diverged);
        assert!(follower.alarm_of(&[AlarmKind::Spike]).is_none());
        assert_eq!(follower.alarm_of(&[AlarmKind::NonFinite]).map(|alarm| alarm.step), Some(2));
    }
}
