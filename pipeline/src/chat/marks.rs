//! The marked stretches of a rendered conversation: which are trained, and which are text although they have
//! the form of a special token.

use serde::{Deserialize, Serialize};

/// Stretches of a text, in bytes; each list ascends and its stretches do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// Bytes of the text that they belong to.
    pub n_bytes: usize,
    /// What the assistant says, and the tokens that end it.
    pub trained: Vec<(usize, usize)>,
    /// Strings of special tokens that occur in a message.
    pub plain: Vec<(usize, usize)>,
}

impl Marks {
    /// As a document carries them.
    pub fn to_text(&self) -> String {
        // Numbers and lists: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The marks that a document carries, which must belong to a text of `n_bytes` bytes.
    ///
    /// # Errors
    /// They are damaged, or belong to another text.
    pub fn of(carried: &str, n_bytes: usize) -> Result<Marks, String> {
        let marks: Marks =
            serde_json::from_str(carried).map_err(|e| format!("its marks are damaged: {e}"))?;
        let ascend = |list: &[(usize, usize)]| {
            let ends = list.iter().flat_map(|&(start, end)| [start, end]);
            ends.clone().zip(ends.skip(1)).all(|(a, b)| a <= b)
                && list.last().is_none_or(|last| last.1 <= n_bytes)
        };
        match marks.n_bytes == n_bytes && ascend(&marks.trained) && ascend(&marks.plain) {
            true => Ok(marks),
            false => Err(format!(
                "its marks belong to a text of {} bytes, but it has {n_bytes}: nothing may change the text of a conversation",
                marks.n_bytes
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_belong_to_one_text() {
        let marks = Marks { n_bytes: 9, trained: vec![(2, 4), (4, 9)], plain: vec![(0, 1)] };
        assert_eq!(Marks::of(&marks.to_text(), 9), Ok(marks.clone()));
        assert!(Marks::of(&marks.to_text(), 8).unwrap_err().contains("a text of 9 bytes, but it has 8"));
        let outside = Marks { trained: vec![(2, 10)], ..marks };
        assert!(Marks::of(&outside.to_text(), 9).is_err());
        assert!(Marks::of("{", 9).unwrap_err().contains("damaged"));
    }
}
