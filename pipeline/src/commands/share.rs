//! Which share of the work a process does: the flag `--array`, and what Slurm and Kubernetes say.

use std::str::FromStr;

use crate::cluster::Share;
use crate::error::{Error, Result};

/// `I/N`, or `N` where the environment has the number of the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    index: Option<usize>,
    of: usize,
}

impl FromStr for Array {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Array, String> {
        let number = |text: &str| text.parse::<usize>().ok();
        let parsed = match text.split_once('/') {
            Some((index, of)) => number(index).zip(number(of)).map(|(index, of)| (Some(index), of)),
            None => number(text).map(|of| (None, of)),
        };
        let parsed = parsed.filter(|&(_, of)| of > 0);
        parsed.map(|(index, of)| Array { index, of }).ok_or_else(|| {
            format!("`{text}` is not a share; expected I/N, such as 0/16, or the number of shares")
        })
    }
}

/// The share of a flag, or without one that of the array element in which this runs.
///
/// # Errors
/// [`Error::Usage`]: no number, or none below that of shares.
pub fn share_of(array: Option<Array>) -> Result<Share> {
    share(array, |name| std::env::var(name).ok())
}

/// The given share, or that of this array element.
fn share(array: Option<Array>, variable: impl Fn(&str) -> Option<String>) -> Result<Share> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
            Error::Usage(format!("{name} is `{text}`, and should be a number; give --array I/N"))
        }),
    };
    let index = || -> Result<usize> {
        let found = match number("SLURM_ARRAY_TASK_ID")? {
            None => number("JOB_COMPLETION_INDEX")?,
            found => found,
        };
        let missing = "no number of a share: give --array I/N, or run this in an array of Slurm or an indexed job of Kubernetes";
        found.ok_or_else(|| Error::Usage(missing.to_owned()))
    };
    let (index, of) = match array {
        Some(Array { index: Some(index), of }) => (index, of),
        Some(Array { index: None, of }) => (index()?, of),
        None => {
            let index = index()?;
            let missing = "no number of shares: give it with --array N";
            let of = number("SLURM_ARRAY_TASK_COUNT")?.ok_or_else(|| Error::Usage(missing.to_owned()))?;
            (index, of)
        }
    };
    match index < of {
        true => Ok(Share { index, of }),
        false => Err(Error::Usage(format!(
            "there is no share {index} of {of}: shares count from 0 to {}; give --array I/N",
            of.saturating_sub(1)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_flags_slurm_or_kubernetes() {
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "8")];
        let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
        let check = |array: Option<&str>,
                     variables: &[(&str, &str)],
                     expected: std::result::Result<(usize, usize), &str>| {
            let variable =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            match (share(array.map(|array| array.parse().unwrap()), variable), expected) {
                (Ok(Share { index, of }), expected) => assert_eq!(Ok((index, of)), expected),
                (Err(error), Err(message)) => assert!(error.to_string().contains(message), "{error}"),
                (Err(error), Ok(_)) => panic!("{error}"),
            }
        };
        check(Some("1/4"), &slurm, Ok((1, 4)));
        check(Some("4"), &slurm, Ok((3, 4)));
        check(None, &slurm, Ok((3, 8)));
        check(Some("4"), &kubernetes, Ok((2, 4)));
        check(None, &kubernetes, Err("no number of shares"));
        check(None, &[], Err("no number of a share"));
        check(Some("4/4"), &[], Err("count from 0 to 3"));
        check(None, &[("SLURM_ARRAY_TASK_ID", "x")], Err("SLURM_ARRAY_TASK_ID is `x`"));
    }
}
