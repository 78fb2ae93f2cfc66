//! The configuration reference is made from the types that read the configuration and from the example of every
//! setting. `UPDATE_REFERENCE=1 cargo test -p control --test reference` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A setting of a section.
#[derive(Debug)]
struct Field {
    name: String,
    kind: String,
    is_required: bool,
}

/// A section: its remark and settings.
#[derive(Debug)]
struct Section {
    name: String,
    remark: String,
    fields: Vec<Field>,
}

/// Structures that serde reads settings into, in the order of the source.
fn sections(source: &str) -> Vec<Section> {
    let mut found = Vec::new();
    let mut remark = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("/// ") {
            if !remark.is_empty() {
                remark.push(' ');
            }
            remark.push_str(text);
            continue;
        }
        let is_struct = line.contains("struct ") && line.ends_with('{');
        if is_struct {
            let name = line
                .split("struct ")
                .nth(1)
                .unwrap()
                .trim_end_matches([' ', '{'])
                .to_owned();
            let mut fields = Vec::new();
            let mut has_default = false;
            for line in lines.by_ref().take_while(|line| *line != "}") {
                let line = line.trim();
                if line.starts_with("#[serde(default") {
                    has_default = true;
                } else if let Some((head, kind)) = line.split_once(": ")
                    && let Some(name) = head.split_whitespace().last()
                    && !line.starts_with("//")
                {
                    let kind = kind.trim_end_matches(',');
                    fields.push(Field {
                        name: name.trim_start_matches("r#").to_owned(),
                        is_required: !kind.starts_with("Option<") && !has_default,
                        kind: kind.to_owned(),
                    });
                    has_default = false;
                }
            }
            found.push(Section {
                name,
                remark: std::mem::take(&mut remark),
                fields,
            });
        } else if !line.starts_with("#[") {
            remark.clear();
        }
    }
    found
}

/// The type in words.
fn words(kind: &str) -> String {
    let mut kind = kind.to_owned();
    loop {
        let before = kind.clone();
        for wrapper in ["Option<", "Spanned<"] {
            if let Some(rest) = kind.strip_prefix(wrapper) {
                kind = rest.strip_suffix('>').unwrap().to_owned();
            }
        }
        if kind == before {
            break;
        }
    }
    if let Some(rest) = kind.strip_prefix("Vec<") {
        return format!("list of {}", words(rest.strip_suffix('>').unwrap()));
    }
    match kind.as_str() {
        "String" => "text".into(),
        "bool" => "true or false".into(),
        "u8" | "u16" | "u32" | "u64" | "i64" => "number".into(),
        "f64" => "number, also with a fraction".into(),
        "Period" => "seconds, or text such as \"90s\", \"15m\", \"8h\", \"2d\"".into(),
        "WordOrNumber" => "\"copy\" or a number".into(),
        other => other.trim_end_matches("Section").to_owned(),
    }
}

/// Values of the enumerations, as serde spells them.
fn enumerations(source: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut case = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line.split_once("rename_all = \"") {
            case = rest.split('"').next().unwrap().to_owned();
        }
        if line.contains(" enum ") && line.ends_with('{') {
            let name = line
                .split(" enum ")
                .nth(1)
                .unwrap()
                .trim_end_matches([' ', '{'])
                .to_owned();
            let values: Vec<String> = lines
                .by_ref()
                .take_while(|line| *line != "}")
                .map(str::trim)
                .filter(|line| line.starts_with(char::is_uppercase) && !line.contains('('))
                .map(|line| spelled(line.trim_end_matches(','), &case))
                .collect();
            if !values.is_empty() {
                found.insert(name, values);
            }
            case.clear();
        }
    }
    found
}

fn spelled(variant: &str, case: &str) -> String {
    if case != "kebab-case" {
        return variant.to_lowercase();
    }
    let mut out = String::new();
    for (index, letter) in variant.char_indices() {
        if letter.is_uppercase() && index > 0 {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// What the example says of a setting: value and remark, by name.
fn examples(example: &str) -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    for line in example.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        let Some((name, rest)) = line.split_once(" = ") else {
            continue;
        };
        if !name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit())
        {
            continue;
        }
        let (value, remark) = rest.split_once(" # ").unwrap_or((rest, ""));
        found
            .entry(name.to_owned())
            .or_insert_with(|| (value.trim().to_owned(), remark.trim().to_owned()));
    }
    found
}

fn reference() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src/config")];
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                if text.contains("deny_unknown_fields") {
                    sources.push(text);
                }
            }
        }
    }
    let example = fs::read_to_string(root.join("example/penstock.toml")).unwrap();
    let examples = examples(&example);
    let mut values = BTreeMap::new();
    for source in &sources {
        values.extend(enumerations(source));
    }
    let mut text = String::from(
        "# Configuration reference\n\nMade from the types that read the configuration: \
         `UPDATE_REFERENCE=1 cargo test -p control --test reference` writes it anew, and a test fails where it is out of \
         step. The main file is `/etc/penstock/penstock.toml`; the files `conf.d/*.toml` beside it follow in the byte order \
         of their names. Unknown settings are errors. A complete, commented example is at the end.\n",
    );
    for source in &sources {
        for section in sections(source) {
            if section.fields.is_empty() || section.name == "File" {
                continue;
            }
            let title = match section.remark.split_once(':') {
                Some((title, _)) if title.starts_with('`') => title.to_owned(),
                _ => format!("`{}`", section.name.trim_end_matches("Section")),
            };
            write!(
                text,
                "\n## {title}\n\n{}\n\n| setting | is | needed | example | remark |\n|---|---|---|---|---|\n",
                section.remark
            )
            .unwrap();
            for field in &section.fields {
                let kind = words(&field.kind);
                let bare = kind.trim_start_matches("list of ").to_owned();
                let kind = match values.get(&bare) {
                    Some(values) => {
                        let values: Vec<String> =
                            values.iter().map(|value| format!("`\"{value}\"`")).collect();
                        kind.replace(&bare, &values.join(", "))
                    }
                    None => kind,
                };
                let (value, remark) = examples.get(&field.name).cloned().unwrap_or_default();
                let value = if value.is_empty() {
                    String::new()
                } else {
                    format!("`{value}`").replace('|', "\\|")
                };
                writeln!(
                    text,
                    "| `{}` | {kind} | {} | {value} | {} |",
                    field.name,
                    if field.is_required { "yes" } else { "" },
                    remark.replace('|', "\\|")
                )
                .unwrap();
            }
        }
    }
    write!(text, "\n## A complete example\n\n```toml\n{example}```\n").unwrap();
    text
}

#[test]
fn the_reference_is_in_step_with_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/configuration.md");
    let made = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept == made,
        "{} is out of step: UPDATE_REFERENCE=1 cargo test -p control --test reference",
        path.display()
    );
    for expected in [
        "`[metrics]`",
        "max_tunnel_series",
        "`[[connection]]`",
        "`\"protected\"`",
    ] {
        assert!(made.contains(expected), "{expected}");
    }
}

#[test]
fn every_drop_reason_has_its_place_in_the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations");
    let guide = fs::read_to_string(root.join("drop-reasons.md")).unwrap();
    let headings: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    for reason in southbound::DropReason::ALL {
        let count = headings
            .iter()
            .filter(|heading| **heading == reason.name())
            .count();
        assert_eq!(count, 1, "docs/operations/drop-reasons.md: ### {}", reason.name());
        let entry = guide.split(&format!("### {}\n", reason.name())).nth(1).unwrap();
        assert!(
            entry.split("\n#").next().unwrap().contains("**Do:**"),
            "{}",
            reason.name()
        );
    }
    assert_eq!(
        headings.len(),
        southbound::DropReason::COUNT,
        "a reason that is gone"
    );
    // Each alert names its heading.
    let alerts = fs::read_to_string(root.join("alerts.md")).unwrap();
    let rules = fs::read_to_string(root.join("../../monitoring/alerts.yml")).unwrap();
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(
            alerts.contains(&format!("## {alert}\n")),
            "docs/operations/alerts.md: ## {alert}"
        );
        let link = format!("docs/operations/alerts.md#{}", alert.to_lowercase());
        assert!(rules.contains(&link), "{link}");
    }
}
