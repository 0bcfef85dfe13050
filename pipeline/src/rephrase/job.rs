//! A document in a style as a conversation: its chunks are asked one after another, since the next one may need what was
//! written for the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use moe_llm::{Cache, Completion, Conversation, Key, Message, Request, Sampling, Step};

use super::chunk::{Chunk, Context, chunks};
use super::parents::Parent;
use super::prompt;
use super::style::Style;
use crate::error::Result;

/// Version of everything that decides a request except the template.
const VERSION: u32 = 1;

/// The server to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name on the server.
    pub name: String,
    /// Distinguishes files of one name.
    pub revision: String,
}

/// Bytes of the previous answer to include in the next request; chunks are far smaller.
const PREVIOUS_BYTES: usize = 64 << 10;

/// A document to be rephrased in a style.
pub struct Job<'a> {
    /// The server to ask.
    pub model: &'a Model,
    /// How.
    pub style: &'a Style,
    /// What.
    pub parent: Arc<Parent>,
    /// Pieces of its text.
    pub chunks: Vec<Chunk>,
}

/// A completion with the key of its request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Key of the request.
    pub key: Key,
    /// What was answered.
    pub completion: Completion,
}

/// What the cache knows of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Replay {
    /// An answer for each chunk.
    Complete(Vec<Answer>),
    /// A chunk was not asked yet, or has no answer yet.
    Waiting,
    /// A chunk was given up, for this reason.
    Poisoned(String),
}

impl<'a> Job<'a> {
    /// The job of a style for a document.
    pub fn new(model: &'a Model, style: &'a Style, parent: Arc<Parent>) -> Job<'a> {
        let chunks = chunks(&parent.text, style.chunk.tokens);
        Job { model, style, parent, chunks }
    }

    /// The request for a chunk. `previous` is what was written for the chunk before, as the server sent it.
    fn request(&self, number: usize, previous: Option<&str>) -> Request {
        let prompt = &self.style.style;
        let previous = previous.map(|answer| prompt::strip(answer, &prompt.sentinel).0);
        let previous = previous.map(|answer| &answer[..answer.floor_char_boundary(PREVIOUS_BYTES)]);
        let messages = prompt::messages(self.style, &self.parent.text, &self.chunks, number, previous);
        let messages = messages.into_iter().map(|message| match message.role {
            "system" => Message::system(message.content),
            _ => Message::user(message.content),
        });
        let mut request = Request::new(self.model.name.as_str(), messages.collect());
        request.revision.clone_from(&self.model.revision);
        request.sampling = Sampling {
            temperature: Some(prompt.temperature),
            top_p: Some(prompt.top_p),
            max_tokens: Some(prompt.max_tokens),
            seed: Some(self.seed(number)),
            stop: Vec::new(),
        };
        request.context = BTreeMap::from([
            ("text".to_owned(), format!("{:032x}", self.parent.text_hash.0)),
            ("chunk".to_owned(), format!("{} of {}", number + 1, self.chunks.len())),
            ("template".to_owned(), self.style.template().to_string()),
            ("version".to_owned(), VERSION.to_string()),
        ]);
        request
    }

    /// Seed of a chunk: the first four bytes of the BLAKE3 of document, style and chunk.
    fn seed(&self, number: usize) -> u32 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.parent.document_id.0.to_le_bytes());
        hasher.update(self.style.name().as_bytes()).update(&[0]).update(&(number as u64).to_le_bytes());
        let mut bytes = [0; 4];
        hasher.finalize_xof().fill(&mut bytes);
        // Some servers read the seed as a signed number.
        u32::from_le_bytes(bytes) >> 1
    }

    /// The conversation of the job.
    pub fn into_talk(self) -> Talk<'a> {
        Talk { job: self, next: 0 }
    }

    fn step(&self, next: &mut usize, previous: Option<&Completion>) -> Step {
        if *next >= self.chunks.len() {
            return Step::Done;
        }
        let previous = previous.filter(|_| self.style.chunk.context == Context::Rolling);
        let request = self.request(*next, previous.map(|completion| completion.text.as_str()));
        *next += 1;
        Step::Ask(request)
    }

    /// Replays the conversation from the cache.
    ///
    /// # Errors
    /// The cache is damaged.
    pub fn replay(&self, cache: &Cache) -> Result<Replay> {
        let mut next = 0;
        let mut answers: Vec<Answer> = Vec::with_capacity(self.chunks.len());
        while let Step::Ask(request) = self.step(&mut next, answers.last().map(|answer| &answer.completion)) {
            let key = request.key();
            match cache.get(&key)? {
                Some(completion) => answers.push(Answer { key, completion }),
                None => {
                    return Ok(match cache.poisoned(&key) {
                        Some(poisoned) => Replay::Poisoned(poisoned.reason.clone()),
                        None => Replay::Waiting,
                    });
                }
            }
        }
        Ok(Replay::Complete(answers))
    }
}

/// A job as a conversation.
pub struct Talk<'a> {
    job: Job<'a>,
    next: usize,
}

impl Conversation for Talk<'_> {
    fn next(&mut self, previous: Option<&Completion>) -> Step {
        self.job.step(&mut self.next, previous)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moe_shards::FamilyId;

    use super::*;
    use crate::document::{DocumentId, OwnedMetadata, TextHash};

    fn style(context: &str) -> Style {
        let head = "[style]\nname = \"a\"\ninstruction = \"Start with Text: now.\"\nsentinel = \"Text:\"\n";
        let chunk = format!("[chunk]\ntokens = 32\ncontext = \"{context}\"\n");
        Style::decode(&format!("{head}{chunk}"), Path::new("a.toml")).unwrap()
    }

    fn parent() -> Arc<Parent> {
        let text = "A paragraph of some words that fill a chunk of thirty-two tokens by itself, or nearly so, as it must be.\n\n\
                    Another paragraph of some words that fill a chunk of thirty-two tokens by itself, or nearly, as it must.";
        Arc::new(Parent {
            source: "s".into(),
            id: "d".into(),
            document_id: DocumentId(7),
            family: FamilyId(7),
            text_hash: TextHash::of(text),
            metadata: OwnedMetadata::default(),
            text: text.into(),
        })
    }

    fn completion(text: &str) -> Completion {
        Completion { text: text.into(), finish_reason: "stop".into(), ..Completion::default() }
    }

    #[test]
    fn the_next_chunk_is_asked_with_the_last_answer_and_replay_finds_all() {
        let (model, style) = (Model { name: "m".into(), revision: "r".into() }, style("rolling"));
        let job = Job::new(&model, &style, parent());
        assert_eq!(job.chunks.len(), 2);
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        assert_eq!(job.replay(&cache).unwrap(), Replay::Waiting);
        let mut talk = Job::new(&model, &style, parent()).into_talk();
        let Step::Ask(first) = talk.next(None) else { panic!("nothing is asked") };
        cache.append(&first.key(), &completion("Text: one")).unwrap();
        assert_eq!(job.replay(&cache).unwrap(), Replay::Waiting);
        let Step::Ask(second) = talk.next(Some(&completion("Text: one"))) else { panic!("one is missing") };
        assert!(second.messages[1].content.contains("<written>\none\n</written>"));
        assert_ne!(first.sampling.seed, second.sampling.seed);
        cache.append(&second.key(), &completion("Text: two")).unwrap();
        let Replay::Complete(answers) = job.replay(&cache).unwrap() else { panic!("not complete") };
        assert_eq!(answers.iter().map(|a| a.key).collect::<Vec<_>>(), [first.key(), second.key()]);
        assert_eq!(talk.next(Some(&completion("Text: two"))), Step::Done);
    }

    #[test]
    fn independent_chunks_do_not_see_each_other() {
        let (model, style) = (Model { name: "m".into(), revision: String::new() }, style("independent"));
        let mut talk = Job::new(&model, &style, parent()).into_talk();
        talk.next(None);
        let Step::Ask(second) = talk.next(Some(&completion("Text: one"))) else { panic!("one is missing") };
        assert!(!second.messages[1].content.contains("one\n</written>"));
    }
}
