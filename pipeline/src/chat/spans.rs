//! Where the answers are in a rendered conversation, for templates that do not say so: an answer begins where the
//! preceding conversation, rendered with a generation prompt, ends; it ends where the conversation up to it ends. Both must be
//! prefixes of the whole text, or the template is refused.

use minijinja::Value;

use super::hide::Hidden;
use super::record::{answers, role_of};
use super::template::Template;

/// Stretches of the answers in `full`, the rendered `messages`, in bytes, or a message naming the answer that cannot be located.
pub(super) fn spans(
    template: &Template,
    hidden: &Hidden,
    (messages, tools): (&[Value], &Value),
    full: &str,
) -> Result<Vec<(usize, usize)>, String> {
    let render = |n: usize, prompt: bool| {
        template.render(&messages[..n].iter().cloned().collect::<Value>(), tools, prompt, false)
    };
    let of_answer = |i: usize| -> Result<(usize, usize), String> {
        let before = render(i, true)?;
        if !full.starts_with(&before) {
            return Err("what comes before it is rendered differently without it".to_owned());
        }
        if render(i, false)? == before && !begins_with_content(&full[before.len()..], &messages[i]) {
            return Err(
                "the template takes no notice of `add_generation_prompt`, so nothing tells the header of \
                        an answer from the answer"
                    .to_owned(),
            );
        }
        let closed = render(i + 1, false)?;
        // A continuation after the last message shows which part only ends the conversation.
        let longer = match i + 1 == messages.len() {
            true => {
                let next = Value::from_pairs([("role", "user"), ("content", "x")]);
                let longer: Value = messages.iter().cloned().chain([next]).collect();
                template.render(&longer, tools, false, false).ok()
            }
            false => None,
        };
        let end = end(hidden, full, &closed, (before.len(), longer.as_deref()))?;
        Ok((before.len(), end))
    };
    let mut last_end = 0;
    answers(messages)
        .map(|i| {
            let place = of_answer(i).and_then(|(start, end)| match last_end <= start && start <= end {
                true => {
                    last_end = end;
                    Ok((start, end))
                }
                false => Err("it overlaps the answer before it, or itself ends before it begins".to_owned()),
            });
            place.map_err(|problem| {
                format!(
                    "message {}, an answer, has no place of its own: {problem}; mark the answers by {{% generation %}} \
                     in the template",
                    i + 1
                )
            })
        })
        .collect()
}

/// Where an answer ends that begins at `start`; `closed` is the conversation up to it, `longer` one that continues.
fn end(
    hidden: &Hidden,
    full: &str,
    closed: &str,
    (start, longer): (usize, Option<&str>),
) -> Result<usize, String> {
    // Text after its end token, such as a line end, belongs to the template.
    let ends = hidden.special_ends(closed);
    let last_in =
        |limit: usize| ends.iter().rev().copied().find(|&end| end <= limit).filter(|&end| end > start);
    // Phi-3 closes a conversation with a token that occurs nowhere inside one.
    let in_both = |other: &str| {
        let common = other.bytes().zip(closed.bytes()).take_while(|(a, b)| a == b).count();
        last_in(common).filter(|&end| is_closing(hidden, &closed[end..]))
    };
    if !full.starts_with(closed) {
        let differs = "the conversation up to it is not the beginning of the whole one";
        return in_both(full).ok_or_else(|| differs.to_owned());
    }
    let tail = last_in(closed.len()).filter(|&end| closed[end..].trim().is_empty());
    Ok(longer.and_then(in_both).or(tail).unwrap_or(closed.len()))
}

/// Whether a text is only special tokens and white space.
fn is_closing(hidden: &Hidden, text: &str) -> bool {
    hidden.without_specials(text).trim().is_empty()
}

/// Whether the text after a prompt is the answer itself, not its header.
fn begins_with_content(rest: &str, message: &Value) -> bool {
    let content = message.get_attr("content").unwrap_or_default();
    let content = content.as_str().unwrap_or_default().trim_start();
    debug_assert_eq!(role_of(message).as_deref(), Some("assistant"));
    !content.is_empty() && rest.trim_start().starts_with(content)
}
