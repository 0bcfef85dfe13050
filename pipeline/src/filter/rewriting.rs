//! The result of a rewriting rule.

/// Takes a text in pieces: each byte is kept or taken out, so that the ledger accounts for all.
#[derive(Debug, Default)]
pub struct Rewriting {
    text: String,
    n_kept: u64,
    taken: Vec<u64>,
    values: Vec<f64>,
    language: Option<String>,
}

impl Rewriting {
    /// Keeps the next piece of the text.
    pub fn keep(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.n_kept += piece.len() as u64;
    }

    /// Leaves a piece out; `method` is its position in [`super::Rewrite::methods`].
    pub fn take(&mut self, method: usize, piece: &str) {
        if let Some(taken) = self.taken.get_mut(method) {
            *taken += piece.len() as u64;
        }
    }

    /// Appends what was not in the text, such as a placeholder for a piece that was taken out.
    pub fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Records the value of the next limit.
    pub fn value(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Sets the language of the text, for later rules and the shard.
    pub fn language(&mut self, code: &str) {
        self.language = Some(code.to_owned());
    }

    /// The new text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Forgets everything; the next rule has `n_methods` methods.
    pub(super) fn start(&mut self, n_methods: usize) {
        self.text.clear();
        self.n_kept = 0;
        self.taken.clear();
        self.taken.resize(n_methods, 0);
        self.values.clear();
        self.language = None;
    }

    /// The detected language.
    pub(super) fn take_language(&mut self) -> Option<String> {
        self.language.take()
    }

    /// Values so far.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Bytes taken out by method, if they and the kept ones are all `n_bytes` of the text.
    pub(super) fn taken(&self, n_bytes: usize) -> Option<&[u64]> {
        (self.n_kept + self.taken.iter().sum::<u64>() == n_bytes as u64).then_some(&self.taken)
    }

    /// The new text, in exchange for an old one's memory.
    pub(super) fn swap(&mut self, text: &mut String) {
        std::mem::swap(&mut self.text, text);
    }
}
