//! `work/tasks.jsonl`: the tasks that are waiting. The first line says what they are, with the digest of all that follows; each
//! other line is a task.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moe_shards::Hash;
use moe_shards::atomic::AtomicFile;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stage::Task;
use crate::tables::{TASKS, remove_file};

/// Version of the format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Version of the format.
    pub version: u32,
    /// Version of the program and of its tasks' results: `0.1.0 (3, 4)`. Tasks of another version are not run.
    pub program: String,
    /// Name of the stage.
    pub stage: String,
    /// Tasks in the list.
    pub n_waiting: usize,
    /// Tasks of the stage, with those that are done.
    pub n_tasks: usize,
    /// Folder that relative paths of the tasks start from.
    pub folder: PathBuf,
    /// Output folder of the build, as the build was given it.
    pub out: PathBuf,
    /// BLAKE3 of the other lines.
    pub blake3: Hash,
}

/// What is read of a list.
#[derive(Clone, Debug)]
pub struct TaskList {
    /// Its first line.
    pub head: Head,
    /// The tasks that were asked for.
    pub tasks: Vec<Task>,
}

/// Version in the lists of this program.
pub(super) fn program() -> String {
    format!("{} ({}, {})", env!("CARGO_PKG_VERSION"), crate::BUILD_VERSION, crate::WORK_VERSION)
}

fn path_of(out: &Path) -> PathBuf {
    out.join("work").join(TASKS)
}

/// Writes the list of a build. Large tasks come first, so that none starts when all others have ended.
pub(super) fn write(out: &Path, stage: &str, n_tasks: usize, waiting: &[&Task]) -> Result<()> {
    let path = path_of(out);
    let mut waiting = waiting.to_vec();
    waiting.sort_by_key(|task| (std::cmp::Reverse(task.weight), task.part));
    let mut lines = Vec::new();
    for task in &waiting {
        serde_json::to_writer(&mut lines, task)
            .map_err(|e| Error::data(&path, format!("cannot hold task {}: {e}", task.part)))?;
        lines.push(b'\n');
    }
    let folder = std::env::current_dir().map_err(Error::io(Path::new("."), "find"))?;
    let head = Head {
        version: VERSION,
        program: program(),
        stage: stage.to_owned(),
        n_waiting: waiting.len(),
        n_tasks,
        folder,
        out: out.to_owned(),
        blake3: Hash::of(&lines),
    };
    let head = serde_json::to_string(&head).map_err(|e| Error::data(&path, format!("cannot hold: {e}")))?;
    let mut file = AtomicFile::create(&path)?;
    file.write(format!("{head}\n").as_bytes())?;
    file.write(&lines)?;
    Ok(file.commit()?)
}

/// Removes the list of a build in which nothing waits any more.
///
/// # Errors
/// The operating system refuses.
pub fn remove(out: &Path) -> Result<()> {
    remove_file(&path_of(out))
}

impl TaskList {
    /// The same for the list with this digest, or a part of it. File systems may show files of other machines late, so another list
    /// is read again and again for as long as `patience` lasts.
    ///
    /// # Errors
    /// As [`TaskList::read`], or the other list stays.
    pub fn read_expected(
        out: &Path,
        expected: &str,
        patience: Duration,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Result<TaskList> {
        let start = Instant::now();
        loop {
            let list = TaskList::read(out, &is_wanted)?;
            let there = match list {
                Some(list) if list.head.blake3.to_string().starts_with(expected) => return Ok(list),
                Some(list) => format!("{} is there", list.head.blake3.short()),
                None => "none is there".to_owned(),
            };
            if start.elapsed() >= patience {
                return Err(Error::Usage(format!(
                    "{}: the list of tasks should be {expected}, and {there}; the build has gone on without this process, or the file system does not show it",
                    path_of(out).display()
                )));
            }
            std::thread::sleep(Duration::from_secs(1).min(patience));
        }
    }

    /// Reads those tasks of a build's list that are wanted, by their place in it. `None` when nothing is waiting.
    ///
    /// # Errors
    /// The list is damaged, of another version of the program, or of a folder that has moved.
    pub fn read(out: &Path, is_wanted: impl Fn(usize) -> bool) -> Result<Option<TaskList>> {
        let path = path_of(out);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            file => BufReader::with_capacity(1 << 18, file.map_err(Error::io(&path, "open"))?),
        };
        let again = "run the build again, which writes it anew";
        let mut line = String::new();
        file.read_line(&mut line).map_err(Error::io(&path, "read"))?;
        let version: Version = serde_json::from_str(&line)
            .map_err(|e| Error::data(&path, format!("is not a list of tasks: {e}; {again}")))?;
        if version.version != VERSION || version.program != program() {
            return Err(Error::Usage(format!(
                "{}: was written by version {} of the program, and this is {}; use one program on all machines, or run the build again with this one",
                path.display(),
                version.program,
                program()
            )));
        }
        let head: Head = serde_json::from_str(&line)
            .map_err(|e| Error::data(&path, format!("has a damaged first line: {e}; {again}")))?;
        check_place(&path, out, &head)?;
        let (mut tasks, mut hasher, mut n) = (Vec::new(), blake3::Hasher::new(), 0);
        loop {
            line.clear();
            if file.read_line(&mut line).map_err(Error::io(&path, "read"))? == 0 {
                break;
            }
            hasher.update(line.as_bytes());
            if is_wanted(n) {
                let task = serde_json::from_str(&line)
                    .map_err(|e| Error::data(&path, format!("line {}: {e}; {again}", n + 2)))?;
                tasks.push(task);
            }
            n += 1;
        }
        if hasher.finalize().to_hex().as_str() != head.blake3.to_string() || n != head.n_waiting {
            return Err(Error::data(&path, format!("is damaged: its tasks do not give its digest; {again}")));
        }
        Ok(Some(TaskList { head, tasks }))
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
    program: String,
}

/// A list names folders, so a copy of it would have tasks done elsewhere.
fn check_place(path: &Path, out: &Path, head: &Head) -> Result<()> {
    let (here, there) = (std::fs::canonicalize(out), std::fs::canonicalize(head.folder.join(&head.out)));
    match (here, there) {
        (Ok(here), Ok(there)) if here == there => Ok(()),
        _ => Err(Error::Usage(format!(
            "{}: is the list of {} in {}; run the build again in the folder where it is now",
            path.display(),
            head.out.display(),
            head.folder.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::inputs::CutDocuments;
    use crate::stage::train;

    fn tasks(out: &Path, n: usize) -> Vec<Task> {
        let task = |i: usize| {
            let params =
                train::TrainParams { vocab_size: i as u32, sample_bytes: 1, special_tokens: Vec::new() };
            let [documents, kept, removed, cuts] = [0; 4].map(|_| out.join("a\nb"));
            let parts = vec![CutDocuments { documents, kept, removed, cuts }];
            Task::new(&out.join("work"), i, (i % 3) as u64, params, train::TrainInputs { parts })
        };
        (0..n).map(task).collect()
    }

    fn written(n: usize) -> (tempfile::TempDir, Vec<Task>) {
        let dir = tempfile::tempdir().unwrap();
        let tasks = tasks(dir.path(), n);
        write(dir.path(), "train", n + 2, &tasks.iter().collect::<Vec<_>>()).unwrap();
        (dir, tasks)
    }

    #[test]
    fn shares_are_disjoint_and_hold_every_task_with_large_ones_first() {
        let (dir, tasks) = written(7);
        let shares: Vec<Vec<Task>> =
            (0..3).map(|i| TaskList::read(dir.path(), |n| n % 3 == i).unwrap().unwrap().tasks).collect();
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 2]);
        assert_eq!(shares.iter().map(|share| share[0].weight).collect::<Vec<_>>(), [2, 2, 1]);
        let mut all = shares.concat();
        all.sort_by_key(|task| task.part);
        assert_eq!(all, tasks);
        let head = TaskList::read(dir.path(), |_| false).unwrap().unwrap().head;
        assert_eq!((head.n_waiting, head.n_tasks, &head.stage[..]), (7, 9, "train"));
    }

    #[test]
    fn a_list_that_the_build_has_left_behind_is_not_done() {
        let (dir, tasks) = written(4);
        let expected = TaskList::read(dir.path(), |_| false).unwrap().unwrap().head.blake3.short();
        let read = || TaskList::read_expected(dir.path(), &expected, Duration::ZERO, |_| true);
        assert_eq!(read().unwrap().tasks.len(), 4);
        write(dir.path(), "train", 4, &[&tasks[0]]).unwrap();
        let error = read().unwrap_err();
        assert!(error.to_string().contains(&format!("should be {expected}, and ")), "{error}");
        remove(dir.path()).unwrap();
        assert!(read().unwrap_err().to_string().contains("none is there"));
    }

    #[test]
    fn damage_and_other_versions_are_refused() {
        let (dir, _) = written(4);
        let path = path_of(dir.path());
        let whole = std::fs::read_to_string(&path).unwrap();
        let check = |text: &str, code: u8, message: &str| {
            std::fs::write(&path, text).unwrap();
            let error = TaskList::read(dir.path(), |_| true).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
        };
        check(&whole.replacen("\"weight\":1", "\"weight\":7", 1), 3, "digest");
        check(whole.trim_end().rsplit_once('\n').unwrap().0, 3, "digest");
        check("x", 3, "is not a list of tasks");
        check(&whole.replacen(&program(), "0.0.1 (1, 1)", 1), 2, "was written by version 0.0.1 (1, 1)");
        check(&whole.replacen("\"out\":\"", "\"out\":\"/elsewhere", 1), 2, "in the folder where it is now");
        remove(dir.path()).unwrap();
        assert!(TaskList::read(dir.path(), |_| true).unwrap().is_none());
    }
}
