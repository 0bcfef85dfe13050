//! The key is given to a separate process, so that its whole output can be searched.

use moe_llm::{Cache, Client, ClientConfig};

use crate::support::{all_bytes, ask, child, config, server};

const KEY: &str = "sk-4f1d9c0b7e";

#[test]
fn the_api_key_appears_nowhere() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let path = dir.path().to_str().unwrap();
    let variables = [("MOE_TEST_KEY", KEY), ("MOE_TEST_URL", &server.url), ("MOE_TEST_DIR", path)];
    let output = child("secrecy::child_with_a_key", &variables).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("the child has asked"), "{text}");
    assert!(!text.contains(KEY) && !text.contains("4f1d9c"), "{text}");
    assert!(text.contains("wrong key: Bearer [API key]"), "{text}");
    let files = all_bytes(dir.path());
    assert!(!files.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    assert!(String::from_utf8_lossy(&files).contains("it repeats the API key"));
}

#[test]
fn child_with_a_key() {
    let (Ok(url), Ok(dir)) = (std::env::var("MOE_TEST_URL"), std::env::var("MOE_TEST_DIR")) else { return };
    if std::env::var("MOE_TEST_KEY").is_err() {
        return;
    }
    let config = ClientConfig { api_key_env: Some("MOE_TEST_KEY".into()), max_tries: 2, ..config(&url) };
    let mut cache = Cache::open(dir.as_ref()).unwrap();
    println!("{config:?}\n{:?}", Client::new(config.clone()).unwrap());
    // The server repeats the key in an answer, in an error, and when it refuses.
    let summary = ask(config.clone(), &mut cache, &["a", "@@repeat-key@@", "@@repeat-key 400@@"]);
    println!("{summary:?}");
    cache.all_poisoned().for_each(|poisoned| println!("{poisoned:?}"));
    let error = ask(config, &mut cache, &["@@repeat-key 401@@"]).unwrap_err();
    println!("{error}\n{error:?}\nthe child has asked");
}
