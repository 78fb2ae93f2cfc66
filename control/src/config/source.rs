//! A configuration file's text, and the way from a byte in it to a line and column.

use std::cell::RefCell;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;

use super::file::File;
use super::problem::{Problem, Problems};

/// Longest file that is read, in bytes: a bound, not a goal.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A file that was read, and the faults found in it so far.
pub(super) struct Source {
    path: PathBuf,
    text: String,
    /// Where each line begins, in bytes.
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Self {
            path: path.to_owned(),
            text,
            line_starts,
            problems: RefCell::default(),
        }
    }

    /// Reads a file; what keeps it from being read is a problem at its first line.
    pub(super) fn read(path: &Path) -> Result<Self, Problems> {
        let fault = |message: String| {
            Problems(vec![Problem {
                file: path.to_owned(),
                line: 1,
                column: 1,
                message,
            }])
        };
        let length_bytes = fs::metadata(path)
            .map_err(|error| fault(format!("the file cannot be read: {error}")))?
            .len();
        if length_bytes > MAX_FILE_BYTES {
            return Err(fault(format!(
                "the file has {length_bytes} bytes: expected at most {MAX_FILE_BYTES}"
            )));
        }
        let text =
            fs::read_to_string(path).map_err(|error| fault(format!("the file cannot be read: {error}")))?;
        Ok(Self::new(path, text))
    }

    /// The shape of the file; `None` where it has none, which is then a problem.
    pub(super) fn parse(&self) -> Option<File> {
        match toml::from_str(&self.text) {
            Ok(file) => Some(file),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                self.problem(span, error.message().trim_end().replace('\n', ", "));
                None
            }
        }
    }

    /// Notes a fault at `span`.
    pub(super) fn problem(&self, span: Range<usize>, message: impl Into<String>) {
        let (line, column) = self.position(span.start);
        self.problems.borrow_mut().push(Problem {
            file: self.path.clone(),
            line,
            column,
            message: message.into(),
        });
    }

    /// Reads `text` as a `T`, or notes that `expected` was expected.
    pub(super) fn value<T: FromStr>(&self, text: &Spanned<String>, expected: &str) -> Option<T> {
        let value = text.get_ref().parse().ok();
        if value.is_none() {
            self.problem(
                text.span(),
                format!("found {:?}: expected {expected}", text.get_ref()),
            );
        }
        value
    }

    /// `value` where it lies in `range`, else a problem.
    pub(super) fn within<T>(&self, value: &Spanned<T>, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: Copy + PartialOrd + std::fmt::Display,
    {
        let found = *value.get_ref();
        if range.contains(&found) {
            return Some(found);
        }
        self.problem(
            value.span(),
            format!("found {found}: expected {} to {}", range.start(), range.end()),
        );
        None
    }

    /// A path in the file, relative to the file's own folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// `file:line:column` of a place.
    pub(super) fn place(&self, span: Range<usize>) -> String {
        let (line, column) = self.position(span.start);
        format!("{}:{line}:{column}", self.path.display())
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn position(&self, offset_bytes: usize) -> (usize, usize) {
        let mut end = offset_bytes.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= end);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        (line, self.text[line_start..end].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new(Path::new("a.toml"), "a = 1\nö = 2\n".into());
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(6), (2, 1));
        assert_eq!(source.position(8), (2, 2));
        assert_eq!(source.position(7), (2, 1), "inside a character");
        assert_eq!(source.position(999), (3, 1), "beyond the end");
    }
}
