//! Models of fastText (`.bin`, `.ftz`), read by the crate `fasttext` and checked against the Python package on real text.
//!
//! Two things are ours. The crate leaves the end of line out of word pairs, which fastText does not, so the end of line is
//! passed as a word of the text. And the crate predicts from a quantized model with hierarchical softmax
//! (such as lid.176.ftz) as if it had a plain one, so we walk that tree here.

use std::path::{Path, PathBuf};

use ::fasttext::FastText;
use ::fasttext::args::LossName;
use ::fasttext::dictionary::EntryType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What becomes of line ends, which fastText treats as the end of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Newlines {
    /// A space, as in DCLM's quality score and datatrove's language identification.
    #[default]
    Space,
    /// Nothing, which glues the words of two lines together, as in datatrove's classifier filter.
    Join,
}

/// A model of fastText.
pub struct FastTextModel {
    path: PathBuf,
    model: FastText,
    labels: Vec<String>,
    tree: Option<Tree>,
}

impl std::fmt::Debug for FastTextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastTextModel").field("path", &self.path).field("labels", &self.labels.len()).finish()
    }
}

/// End of line in the dictionary of a model.
const END_OF_LINE: &str = "</s>";

impl FastTextModel {
    /// Reads a model.
    ///
    /// # Errors
    /// It is missing, not a supervised fastText model, or has a quantized output with hierarchical softmax.
    pub fn read(path: &Path) -> Result<FastTextModel> {
        std::fs::metadata(path).map_err(Error::io(path, "read"))?;
        let wrong = |message: String| Error::data(path, message);
        let model = FastText::load_model(path).map_err(|e| wrong(format!("is not a fastText model: {e}")))?;
        let (labels, _) = model.get_labels();
        if labels.is_empty() {
            return Err(wrong("has no labels; expected a supervised model".to_owned()));
        }
        let is_tree = model.args().loss == LossName::HierarchicalSoftmax && model.is_quant();
        if is_tree && model.quant_output().is_some() {
            return Err(wrong(
                "has a quantized output of a hierarchical softmax, which is not supported".to_owned(),
            ));
        }
        let tree = is_tree.then(|| Tree::new(&model.dict().get_counts(EntryType::Label)));
        Ok(FastTextModel { path: path.to_owned(), model, labels, tree })
    }

    /// The labels, the most frequent first.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The number of a label, which may be written without `__label__`.
    ///
    /// # Errors
    /// There is no such label.
    pub fn label(&self, name: &str) -> Result<usize> {
        let full = format!("__label__{name}");
        self.labels.iter().position(|label| label == name || *label == full).ok_or_else(|| {
            let hint = moe_cli::nearest::hint(name, self.labels.iter().map(String::as_str));
            Error::Usage(format!("{} has no label `{name}`; {hint}", self.path.display()))
        })
    }

    /// Probabilities of all labels, by number, as fastText has them: up to some 1e-5 too high. All 0 for a text without a
    /// known word.
    pub fn predict(&self, text: &str, newlines: Newlines) -> Vec<f32> {
        let mut line = String::with_capacity(text.len() + END_OF_LINE.len() + 1);
        for c in text.chars() {
            match (c, newlines) {
                ('\n' | '\r', Newlines::Join) => {}
                // White space for fastText, but not for the crate.
                ('\n' | '\r' | '\x0b' | '\0', _) => line.push(' '),
                _ => line.push(c),
            }
        }
        line.push(' ');
        line.push_str(END_OF_LINE);
        let mut words = Vec::new();
        self.model.dict().get_line_from_str(&line, &mut words, &mut Vec::new());
        let mut probabilities = vec![0.0; self.labels.len()];
        if words.is_empty() {
            return probabilities;
        }
        match &self.tree {
            Some(tree) => {
                let hidden = self.hidden(&line, words.len());
                let output = self.model.output_matrix();
                tree.walk(&mut probabilities, |node| {
                    let dot: f32 = output.row(node as i64).iter().zip(&hidden).map(|(x, y)| x * y).sum();
                    1.0 / (1.0 + (-dot).exp())
                });
            }
            None => {
                for prediction in self.model.predict_on_words(&words, self.labels.len(), 0.0) {
                    if let Some(label) = self.labels.iter().position(|label| *label == prediction.label) {
                        probabilities[label] = prediction.prob;
                    }
                }
            }
        }
        probabilities
    }

    /// Mean of the vectors of a line's `n` words. The crate's sentence vector counts the end of line that is in the line
    /// once more.
    fn hidden(&self, line: &str, n: usize) -> Vec<f32> {
        let mut hidden = self.model.get_sentence_vector(line);
        if self.model.get_word_id(END_OF_LINE).is_some() {
            let end = self.model.get_word_vector(END_OF_LINE);
            let n = n as f32;
            hidden.iter_mut().zip(end).for_each(|(sum, end)| *sum = (*sum * (n + 1.0) - end) / n);
        }
        hidden
    }

    /// Probability of one label.
    pub fn score(&self, text: &str, label: usize, newlines: Newlines) -> f64 {
        self.predict(text, newlines).get(label).copied().map_or(0.0, |p| f64::from(p).min(1.0))
    }
}

/// What fastText adds to each probability before it takes the logarithm.
const LOG_EPSILON: f32 = 1e-5;

/// Huffman tree over labels by their counts, built as fastText does: the two smallest nodes are joined, a
/// leaf going before an inner node only when it counts less.
struct Tree {
    n_labels: usize,
    /// Left and right child of the inner nodes, which are numbered after the leaves.
    children: Vec<[usize; 2]>,
}

impl Tree {
    fn new(counts: &[i64]) -> Tree {
        let n_labels = counts.len();
        let mut all = counts.to_vec();
        let mut children = Vec::new();
        // Counts descend, so the smallest leaf is the last.
        let (mut leaf, mut node) = (n_labels, n_labels);
        for _ in 1..n_labels {
            let mut pair = [0; 2];
            for child in &mut pair {
                let inner = all.get(node).copied().unwrap_or(i64::MAX);
                if leaf > 0 && all[leaf - 1] < inner {
                    leaf -= 1;
                    *child = leaf;
                } else {
                    *child = node;
                    node += 1;
                }
            }
            all.push(pair.iter().map(|child| all.get(*child).copied().unwrap_or(0)).sum());
            children.push(pair);
        }
        Tree { n_labels, children }
    }

    /// Fills in the probabilities of the labels; `right` gives the probability of an inner node's right child, by its number from 0.
    fn walk(&self, probabilities: &mut [f32], right: impl Fn(usize) -> f32) {
        let mut open = vec![(self.n_labels + self.children.len().saturating_sub(1), 1.0f32)];
        if self.children.is_empty() {
            open = vec![(0, 1.0)];
        }
        while let Some((node, p)) = open.pop() {
            let Some(inner) = node.checked_sub(self.n_labels) else {
                probabilities[node] = p;
                continue;
            };
            let q = right(inner);
            let [left_child, right_child] = self.children[inner];
            open.push((left_child, p * (1.0 - q + LOG_EPSILON)));
            open.push((right_child, p * (q + LOG_EPSILON)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_joins_the_least_counts_first() {
        // 10, 4, 3, 2: 2 and 3 make node 4 (5); 4 and 5 node 5 (9); 9 and 10 node 6.
        let tree = Tree::new(&[10, 4, 3, 2]);
        assert_eq!(tree.children, [[3, 2], [1, 4], [5, 0]]);
        let mut p = [0.0; 4];
        tree.walk(&mut p, |node| [0.25, 0.5, 0.75][node]);
        let expected = [0.75, 0.25 * 0.5, 0.25 * 0.5 * 0.25, 0.25 * 0.5 * 0.75];
        assert!(p.iter().zip(expected).all(|(p, expected)| (p - expected).abs() < 1e-4), "{p:?}");
        let mut one = [0.0];
        Tree::new(&[7]).walk(&mut one, |_| 0.0);
        assert_eq!(one, [1.0]);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"not a model at all").unwrap();
        let error = FastTextModel::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("is not a fastText model"), "{error}");
        assert_eq!(FastTextModel::read(Path::new("/no/such.bin")).unwrap_err().exit_code(), 2);
    }
}
