//! The messages of the request for one chunk.

use moe_shards::Hash;
use serde_json::json;

use super::chunk::{Chunk, Context, excerpt};
use super::style::{Prompt, Style};
use crate::json;

/// Version of the wording below; part of the template's digest.
const VERSION: u32 = 1;

impl Style {
    /// Digest of the template: everything that decides what is asked, in canonical JSON.
    pub fn template(&self) -> Hash {
        let Prompt { instruction, sentinel, temperature, top_p, max_tokens, .. } = &self.style;
        json::digest(&json!({
            "instruction": instruction,
            "sentinel": sentinel,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "chunk": self.chunk,
            "prompt": VERSION,
        }))
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system` or `user`.
    pub role: &'static str,
    /// Its text.
    pub content: String,
}

/// The messages for a chunk of a text. `previous` is what was written for the chunk before, without its sentinel.
pub fn messages(
    style: &Style,
    text: &str,
    chunks: &[Chunk],
    number: usize,
    previous: Option<&str>,
) -> Vec<Message> {
    let body = chunks.get(number).map_or("", |chunk| &text[chunk.body.clone()]);
    let mut parts = Vec::new();
    if style.chunk.context == Context::Rolling && chunks.len() > 1 {
        if let Some(chunk) = chunks.get(number) {
            let excerpt = excerpt(text, chunk, style.chunk.excerpt_tokens);
            parts.push(format!("The whole text, for context only:\n\n<context>\n{excerpt}\n</context>"));
        }
        if let Some(previous) = previous {
            parts.push(format!(
                "What you wrote for the passage before; do not repeat it, go on from it:\n\n<written>\n{previous}\n</written>"
            ));
        }
    }
    parts.push(format!("The passage to work on:\n\n<passage>\n{body}\n</passage>"));
    parts.push(format!("Start your answer with the line \"{}\".", style.style.sentinel));
    vec![
        Message { role: "system", content: style.style.instruction.trim().to_owned() },
        Message { role: "user", content: parts.join("\n\n") },
    ]
}

/// Removes the sentinel and the passage's marks from an answer. The flag says whether the sentinel was present or is not required.
pub fn strip<'a>(answer: &'a str, sentinel: &str) -> (&'a str, bool) {
    let answer = answer.trim();
    if sentinel.is_empty() {
        return (answer, true);
    }
    // Models like to format the line as bold or a heading, with or without its colon.
    let bare = answer.trim_start_matches(['*', '#', '"', ' ']);
    let (rest, has_sentinel) = match bare.strip_prefix(sentinel) {
        Some(rest) => (rest.trim_start_matches(['*', '"']), true),
        None => (answer, false),
    };
    let rest = rest.trim();
    let inner = rest.strip_prefix("<passage>").and_then(|inner| inner.strip_suffix("</passage>"));
    (inner.unwrap_or(rest).trim(), has_sentinel)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::chunk::chunks;
    use super::*;

    fn style(more: &str) -> Style {
        let head =
            "[style]\nname = \"a\"\ninstruction = \"\"\"\nStart with Text:\n\"\"\"\nsentinel = \"Text:\"\n";
        Style::decode(&format!("{head}[chunk]\ntokens = 32\n{more}"), Path::new("a.toml")).unwrap()
    }

    #[test]
    fn a_chunk_comes_with_its_context_and_what_was_written() {
        let text = "One paragraph of words that goes on for a while, as paragraphs of words do, and ends here with a full stop.\n\n\
                    Another paragraph of words that goes on for a while, as paragraphs of words do, and ends here.";
        let cut = chunks(text, 32);
        assert_eq!(cut.len(), 2);
        let asked = messages(&style(""), text, &cut, 1, Some("before"));
        assert_eq!(asked[0].content, "Start with Text:");
        let user = &asked[1].content;
        assert!(
            user.contains(&format!("<context>\n{text}\n</context>"))
                && user.contains("<written>\nbefore\n</written>")
        );
        assert!(user.contains("<passage>\nAnother") && user.ends_with("the line \"Text:\"."));
        let alone = messages(&style("context = \"independent\"\n"), text, &cut, 1, None);
        assert!(!alone[1].content.contains("<context>"));
    }

    #[test]
    fn the_template_is_what_is_asked_and_not_what_is_accepted() {
        const STYLE: &str =
            "[style]\nname = \"s\"\ninstruction = \"Start with Text:\"\nsentinel = \"Text:\"\n";
        let template =
            |more: &str| Style::decode(&format!("{STYLE}{more}"), Path::new("s.toml")).unwrap().template();
        let plain = template("");
        assert_eq!(plain, template("summary = \"x\"\n[gates]\nlength_most = 3\noff = [\"compression\"]\n"));
        assert_eq!(plain, template("[use]\nmin_quality = 3\n"));
        assert_ne!(plain, template("temperature = 0.1\n"));
        assert_ne!(plain, template("[chunk]\ntokens = 100\n"));
    }

    #[test]
    fn sentinels_are_taken_off() {
        for (answer, expected) in [
            ("Text: Hello.", ("Hello.", true)),
            ("**Text:**\n\nHello.", ("Hello.", true)),
            (" Text:\n<passage>\nHello.\n</passage>", ("Hello.", true)),
            ("Hello. Text:", ("Hello. Text:", false)),
            ("", ("", false)),
        ] {
            assert_eq!(strip(answer, "Text:"), expected);
        }
    }
}
