//! The syntax of strongSwan's configuration files: nested sections of settings, with includes and references.

use std::fs;
use std::path::{Path, PathBuf};

/// Deepest nesting of sections and of includes.
const MAX_DEPTH: usize = 16;

/// A section: its settings and sections in order; a later setting of a name replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    settings: Vec<(String, String)>,
    sections: Vec<(String, Section)>,
}

impl Section {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.settings
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, section)| section)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.sections
            .iter()
            .map(|(name, section)| (name.as_str(), section))
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.settings.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.settings.push((name.to_owned(), value.to_owned())),
        }
    }

    fn child(&mut self, name: &str) -> &mut Section {
        let index = self
            .sections
            .iter()
            .position(|(known, _)| known == name)
            .unwrap_or_else(|| {
                self.sections.push((name.to_owned(), Section::default()));
                self.sections.len() - 1
            });
        &mut self.sections[index].1
    }

    /// Takes over what is not there already.
    fn inherit(&mut self, other: &Section) {
        for (name, value) in &other.settings {
            if self.get(name).is_none() {
                self.settings.push((name.clone(), value.clone()));
            }
        }
        for (name, section) in &other.sections {
            self.child(name).inherit(section);
        }
    }

    fn at(&self, path: &str) -> Option<&Section> {
        path.split('.')
            .try_fold(self, |section, name| section.section(name))
    }
}

/// Reads a file and what it includes, references resolved.
///
/// # Errors
/// `file:line: what was expected`.
pub(super) fn read(path: &Path) -> Result<Section, String> {
    let mut root = Section::default();
    let mut references = Vec::new();
    read_into(path, &mut root, &mut references, 0)?;
    for (place, from) in references {
        let inherited = root
            .at(&from)
            .cloned()
            .ok_or_else(|| format!("{}: no section {from:?} to refer to", path.display()))?;
        let section = place.iter().fold(&mut root, |section, name| section.child(name));
        section.inherit(&inherited);
    }
    Ok(root)
}

type References = Vec<(Vec<String>, String)>;

fn read_into(
    path: &Path,
    root: &mut Section,
    references: &mut References,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("{}: files include each other", path.display()));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut parser = Parser {
        path,
        line: 1,
        rest: &text,
    };
    let mut stack: Vec<String> = Vec::new();
    while let Some(token) = parser.token() {
        match token {
            Token::Close => {
                if stack.pop().is_none() {
                    return Err(parser.fault("found '}': expected a section or setting"));
                }
            }
            Token::Include(pattern) => {
                for file in matching(path, &pattern) {
                    if !stack.is_empty() {
                        return Err(parser.fault("an include within a section is not read"));
                    }
                    read_into(&file, root, references, depth + 1)?;
                }
            }
            Token::Open { name, parents } => {
                if stack.len() >= MAX_DEPTH {
                    return Err(parser.fault("sections are nested too deeply"));
                }
                stack.push(name);
                stack.iter().fold(&mut *root, |section, name| section.child(name));
                for parent in parents {
                    references.push((stack.clone(), parent));
                }
            }
            Token::Setting(name, value) => {
                stack
                    .iter()
                    .fold(&mut *root, |section, name| section.child(name))
                    .set(&name, &value);
            }
            Token::Nonsense(found) => {
                return Err(parser.fault(&format!("found {found:?}: expected `name = value` or `name {{`")));
            }
        }
    }
    if stack.is_empty() {
        Ok(())
    } else {
        Err(parser.fault(&format!("section {:?} is not closed", stack.join("."))))
    }
}

/// Files that an include names: `*` stands for any part of the last name.
fn matching(including: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = including.parent().unwrap_or(Path::new(".")).join(pattern);
    let (Some(folder), Some(name)) = (
        pattern.parent(),
        pattern.file_name().and_then(|name| name.to_str()),
    ) else {
        return Vec::new();
    };
    let Some((before, after)) = name.split_once('*') else {
        return vec![pattern];
    };
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(before) && name.ends_with(after))
        })
        .collect();
    files.sort();
    files
}

enum Token {
    Open { name: String, parents: Vec<String> },
    Close,
    Setting(String, String),
    Include(String),
    Nonsense(String),
}

struct Parser<'a> {
    path: &'a Path,
    line: usize,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn fault(&self, message: &str) -> String {
        format!("{}:{}: {message}", self.path.display(), self.line)
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip_blank(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n', ';']).len();
            self.advance(blank);
            if !self.rest.starts_with('#') {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.advance(end);
        }
    }

    fn token(&mut self) -> Option<Token> {
        self.skip_blank();
        if self.rest.is_empty() {
            return None;
        }
        if self.rest.starts_with('}') {
            self.advance(1);
            return Some(Token::Close);
        }
        let end = self
            .rest
            .find(['{', '}', '=', '\n', '#'])
            .unwrap_or(self.rest.len());
        let head = self.advance(end).trim().to_owned();
        if let Some(file) = head.strip_prefix("include ") {
            return Some(Token::Include(file.trim().trim_matches('"').to_owned()));
        }
        // The brace may stand on the next line.
        self.skip_blank();
        if self.rest.starts_with('{') {
            self.advance(1);
            let (name, parents) = head.split_once(':').unwrap_or((&head, ""));
            return Some(Token::Open {
                name: name.trim().to_owned(),
                parents: parents
                    .split(',')
                    .map(str::trim)
                    .filter(|parent| !parent.is_empty())
                    .map(str::to_owned)
                    .collect(),
            });
        }
        if self.rest.starts_with('=') && !head.is_empty() {
            self.advance(1);
            return Some(Token::Setting(head, self.value()));
        }
        Some(Token::Nonsense(head))
    }

    fn value(&mut self) -> String {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.advance(blank);
        if self.rest.starts_with('"') {
            self.advance(1);
            let mut value = String::new();
            let mut letters = self.rest.char_indices();
            let mut end = self.rest.len();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => match letters.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, other)) => value.push(other),
                        None => {}
                    },
                    other => value.push(other),
                }
            }
            self.advance(end);
            return value;
        }
        let end = self.rest.find(['\n', '#', '}']).unwrap_or(self.rest.len());
        self.advance(end).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_settings_comments_references_and_includes_are_read() {
        let folder = std::env::temp_dir().join(format!("penstock-swanctl-{}", std::process::id()));
        fs::create_dir_all(folder.join("conf.d")).unwrap();
        fs::write(
            folder.join("swanctl.conf"),
            "# a comment\ntemplates {\n base { version = 2\n children { net { mode = tunnel } } }\n}\n\
             connections {\n  home : templates.base\n  {\n    local_addrs = 192.0.2.1 # ours\n    version = 0\n  }\n}\n\
             include conf.d/*.conf\n",
        )
        .unwrap();
        fs::write(
            folder.join("conf.d/a.conf"),
            "secrets { ike-1 { secret = \"a \\\" # b\" } }",
        )
        .unwrap();
        let root = read(&folder.join("swanctl.conf")).unwrap();
        let home = root.at("connections.home").unwrap();
        assert_eq!(home.get("local_addrs"), Some("192.0.2.1"));
        assert_eq!(home.get("version"), Some("0"), "its own setting wins");
        assert_eq!(home.at("children.net").unwrap().get("mode"), Some("tunnel"));
        assert_eq!(root.at("secrets.ike-1").unwrap().get("secret"), Some("a \" # b"));
        fs::write(folder.join("bad.conf"), "connections {\n a {\n nonsense\n }\n}").unwrap();
        let error = read(&folder.join("bad.conf")).unwrap_err();
        assert!(
            error.contains("bad.conf:") && error.contains("nonsense"),
            "{error}"
        );
        fs::write(folder.join("open.conf"), "connections {\n a {\n").unwrap();
        assert!(
            read(&folder.join("open.conf"))
                .unwrap_err()
                .contains("connections.a")
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
