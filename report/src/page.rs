//! A page: one HTML file that opens from disk.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::figure;

const STYLE: &str = include_str!("page.css");
/// Nothing is loaded and nothing runs, regardless of what a text contains.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// A part of a page under a heading.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name in links: letters, digits, hyphens.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Its contents.
    pub body: Markup,
}

impl Section {
    /// A section.
    pub fn new(id: &str, title: &str, body: Markup) -> Section {
        Section { id: id.to_owned(), title: title.to_owned(), body }
    }
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// A line under the title.
    pub subtitle: String,
    /// Key figures at the top: name and value.
    pub facts: Vec<(String, String)>,
    /// Its parts, which the contents at its top link to.
    pub sections: Vec<Section>,
    /// The command that made it, by which it recognizes its own files.
    pub generator: String,
}

impl Page {
    /// Whether the first bytes of a file are those of a page of this command.
    pub fn is_by(start: &str, generator: &str) -> bool {
        start.contains(&html! { meta name="generator" content=(generator); }.into_string())
    }

    /// The file.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="generator" content=(self.generator);
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) (PreEscaped(figure::style())) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        @if !self.subtitle.is_empty() { p { (self.subtitle) } }
                        @if !self.facts.is_empty() {
                            dl class="facts" {
                                @for (name, value) in &self.facts { div { dt { (name) } dd { (value) } } }
                            }
                        }
                    }
                    @if self.sections.len() > 1 {
                        nav aria-label="Contents" {
                            @for section in &self.sections { a href={ "#" (section.id) } { (section.title) } }
                        }
                    }
                    main {
                        @for section in &self.sections {
                            section id=(section.id) { h2 { (section.title) } (section.body) }
                        }
                    }
                }
            }
        };
        let mut text = page.into_string();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_no_script_and_says_so() {
        let page = Page {
            title: "<script>alert(1)</script>".to_owned(),
            subtitle: String::new(),
            facts: vec![("a".to_owned(), "<img onerror=x>".to_owned())],
            sections: vec![
                Section::new("one", "One", html! { p { "&" } }),
                Section::new("two", "Two", html! {}),
            ],
            generator: "a <test>".to_owned(),
        };
        let text = page.html();
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
        assert!(Page::is_by(&text, "a <test>") && !Page::is_by(&text, "a"), "{text}");
        assert!(text.contains("default-src 'none'") && text.contains("href=\"#two\""), "{text}");
        assert!(!STYLE.contains("</") && !STYLE.contains("url("), "styles load nothing and end nothing");
    }
}
