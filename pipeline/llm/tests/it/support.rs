use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use moe_llm::{
    Cache, Client, ClientConfig, Completion, Conversation, Failure, Message, Request, Step, Summary,
};

use crate::server::{Options, Server};

/// A server that counts every body.
pub fn server() -> Server {
    server_with(Options::default())
}

pub fn server_with(options: Options) -> Server {
    Server::start(0, Options { count_bodies: true, ..options }).unwrap()
}

/// A client that waits milliseconds where a real one waits seconds.
pub fn config(url: &str) -> ClientConfig {
    ClientConfig {
        deadline: Duration::from_secs(5),
        backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(50),
        ..ClientConfig::new(url)
    }
}

pub fn request(prompt: &str) -> Request {
    Request::new("scripted", vec![Message::system("You follow a script."), Message::user(prompt)])
}

/// Sends its prompts one after another; each request contains the previous answer.
pub struct Chain {
    prompts: Vec<String>,
    asked: usize,
    /// The result.
    pub ended: std::rc::Rc<std::cell::RefCell<Vec<Result<String, String>>>>,
}

impl Chain {
    pub fn new(prompts: &[&str]) -> Chain {
        let prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
        Chain { prompts, asked: 0, ended: Default::default() }
    }
}

impl Conversation for Chain {
    fn next(&mut self, previous: Option<&Completion>) -> Step {
        assert_eq!(previous.is_some(), self.asked > 0);
        self.asked += 1;
        let Some(prompt) = self.prompts.get(self.asked - 1) else {
            self.ended.borrow_mut().push(Ok(previous.unwrap().text.clone()));
            return Step::Done;
        };
        let mut request = request(prompt);
        if let Some(previous) = previous {
            request.messages.insert(1, Message::assistant(previous.text.clone()));
        }
        Step::Ask(request)
    }

    fn failed(&mut self, why: &Failure) {
        self.ended.borrow_mut().push(Err(why.to_string()));
    }
}

/// Sends each prompt in its own conversation.
pub fn ask(config: ClientConfig, cache: &mut Cache, prompts: &[&str]) -> moe_llm::Result<Summary> {
    let chains: Vec<Chain> = prompts.iter().map(|prompt| Chain::new(&[prompt])).collect();
    Client::new(config)?.run(chains, cache, &mut |_| (), &AtomicBool::new(false))
}

/// The text that the cache has for a prompt, with the reason of its end.
pub fn answer(cache: &Cache, prompt: &str) -> (String, String) {
    let completion = cache.get(&request(prompt).key()).unwrap().unwrap();
    (completion.text, completion.finish_reason)
}

/// Runs a test of this binary in a separate process, with these variables set.
pub fn child(test: &str, variables: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.envs(variables.iter().copied());
    command
}

/// All bytes of all files of a folder.
pub fn all_bytes(dir: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(dir).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}
