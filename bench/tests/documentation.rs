//! README and docs against what they speak of: configurations are valid, command lines are understood, links lead
//! somewhere. What the commands do is tested elsewhere; those of the newcomer's path are run by `newcomer.rs`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bench::gateway::built;

/// The root of this tree.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A page of README or docs.
struct Page {
    path: PathBuf,
    text: String,
}

/// Every page.
fn pages() -> Vec<Page> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![tree().join("README.md")];
    collect(&tree().join("docs"), &mut found);
    let page = |path: PathBuf| Page {
        text: fs::read_to_string(&path).unwrap(),
        path,
    };
    found.into_iter().map(page).collect()
}

impl Page {
    /// Fenced blocks of a language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            if line.trim() == format!("```{language}") {
                let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
                found.push(block.join("\n") + "\n");
            }
        }
        found
    }

    /// Text in single backquotes outside of fenced blocks.
    fn spans(&self) -> Vec<String> {
        let mut found = Vec::new();
        for prose in self.text.split("```").step_by(2) {
            for span in prose.split('`').skip(1).step_by(2) {
                found.push(span.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        found
    }

    /// Command lines: of blocks for a shell, and what the text names.
    fn commands(&self) -> Vec<String> {
        let mut found = self.spans();
        for block in self.blocks("sh") {
            found.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
        }
        for block in self.blocks("console") {
            // The rest is what is printed.
            let typed = |line: &str| {
                line.strip_prefix("# ")
                    .or(line.strip_prefix("$ "))
                    .map(str::to_owned)
            };
            found.extend(block.replace("\\\n", " ").lines().filter_map(typed));
        }
        found
    }
}

/// Whether a command did what was asked, and what it said.
fn verdict(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[test]
fn every_configuration_is_valid() {
    let folder = std::env::temp_dir().join(format!("penstock-documentation-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let (mut count, mut faults) = (0, Vec::new());
    for page in pages() {
        let whole = page.blocks("toml").into_iter().map(|block| (block, false));
        let parts = page.blocks("toml,part").into_iter().map(|block| (block, true));
        for (block, is_part) in whole.chain(parts) {
            let file = folder.join("penstock.toml");
            fs::write(&file, &block).unwrap();
            let output = Command::new(built("penstock").unwrap())
                .arg("check")
                .arg(&file)
                .output()
                .unwrap();
            // A part may speak of ports and VRFs that stand in another.
            let stands_elsewhere =
                |line: &str| line.contains("[[port]] table") || line.contains("[[vrf]] table");
            if let Err(message) = verdict(&output)
                && !(is_part && message.trim().lines().all(stands_elsewhere))
            {
                faults.push(format!("{}:\n{block}{message}", page.path.display()));
            }
            count += 1;
        }
        for block in page.blocks("yaml") {
            if block.starts_with("scrape_configs:") {
                let file = folder.join("prometheus.yml");
                fs::write(&file, &block).unwrap();
                let output = Command::new("promtool")
                    .args(["check", "config"])
                    .arg(&file)
                    .output()
                    .unwrap();
                verdict(&output).unwrap_or_else(|message| panic!("{}: {message}", page.path.display()));
                count += 1;
            }
        }
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 15, "{count} configurations");
}

/// The command lines that one stands for: `up|down NAME [CHILD]` for two.
fn meant(line: &str) -> Vec<String> {
    // What follows goes elsewhere.
    let ends = [" | ", " >", " && ", " &", "; ", "  #"];
    let end = ends.iter().filter_map(|end| line.find(end)).min();
    let line = line[..end.unwrap_or(line.len())].replace(['[', ']'], "");
    let line = line.replace(" NOUN", " tunnels");
    match line.split(' ').find(|word| word.contains('|')) {
        None => vec![line],
        Some(word) => word.split('|').map(|choice| line.replace(word, choice)).collect(),
    }
}

#[test]
fn every_command_line_is_understood() {
    let (mut count, mut faults) = (0, Vec::new());
    for page in pages() {
        let lines = page.commands();
        for line in lines
            .iter()
            .flat_map(|line| meant(line.trim().trim_start_matches("sudo ")))
        {
            let Some((program, arguments)) = line.split_once(' ') else {
                continue;
            };
            let program = program.trim_start_matches("target/release/");
            let mut command = Command::new("sh");
            command.current_dir(tree()).arg("-c");
            if program == "make" {
                // Not run, only looked up.
                command.arg(format!("exec make --dry-run --no-print-directory {arguments}"));
            } else if program == "penstock" || program.starts_with("penstock-") {
                // What comes before is understood, or help is not reached.
                let own = arguments.split(" -- ").next().unwrap();
                command.arg(format!("exec \"$0\" {own} --help"));
                match built(program) {
                    Ok(path) => command.arg(path),
                    Err(fault) => panic!("{}: {line}: {fault}", page.path.display()),
                };
            } else {
                continue;
            }
            count += 1;
            if let Err(message) = verdict(&command.output().unwrap()) {
                faults.push(format!("{}: {line}: {message}", page.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 80, "{count} command lines");
}

#[test]
fn links_lead_somewhere_and_the_table_of_contents_has_every_page() {
    let mut faults = Vec::new();
    let summary = fs::read_to_string(tree().join("docs/SUMMARY.md")).unwrap();
    for page in pages() {
        for link in page.text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap();
            let is_elsewhere = target.is_empty() || target.contains("://");
            if !is_elsewhere && !page.path.parent().unwrap().join(target).exists() {
                faults.push(format!("{}: no {target}", page.path.display()));
            }
        }
        if let Ok(own) = page.path.strip_prefix(tree().join("docs"))
            && own != Path::new("SUMMARY.md")
            && !summary.contains(&format!("({})", own.display()))
        {
            faults.push(format!("docs/SUMMARY.md: no {}", own.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
