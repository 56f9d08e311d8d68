//! Checks what no compiler checks.
//!
//! It fails on a pure crate that depends on more than it may, and on a source file that no `mod`
//! leads to. Outsized files and functions are only listed: a longer one that reads well beats three
//! that must be read together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The crates that know no clock, socket, thread or randomness, and all they may depend on.
const PURE: [(&str, &[&str]); 3] = [
    ("amqp", &["bytes"]),
    ("store", &["bytes", "crc32c", "rustix"]),
    ("broker", &["amqp", "store", "bytes", "rustc-hash", "fancy-regex"]),
];

/// From here on a file, without its tests, is worth a second look.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What a generated file says of itself in its opening comment.
const GENERATED: &str = "by `cargo xtask codegen`";

/// Prints the outliers; fails on broken rules.
#[expect(clippy::print_stdout, reason = "a command line tool")]
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for (name, allowed) in PURE {
        let manifest = root.join("crates").join(name).join("Cargo.toml");
        for dependency in dependencies(&fs::read_to_string(&manifest)?)? {
            if !allowed.contains(&dependency.as_str()) {
                broken.push(format!("crates/{name} may not depend on {dependency}"));
            }
        }
    }
    if let Some(odd) = odd_lint_rules(root)? {
        broken.push(format!("crates/{odd}/clippy.toml differs from the other pure crates'"));
    }
    for source in source_folders(root)? {
        let files = rust_files(&source)?;
        let reachable = reachable(&source)?;
        for file in &files {
            let shown = file.strip_prefix(root)?.display();
            if !reachable.contains(file) {
                broken.push(format!("{shown} is dead: no `mod` leads to it"));
            }
            for outlier in outliers(&fs::read_to_string(file)?) {
                println!("{shown}: {outlier}");
            }
        }
    }
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// What a manifest's crate depends on when built, on any target.
fn dependencies(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = toml::from_str(manifest)?;
    let mut sections = vec![&manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        sections.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let tables = sections.iter().flat_map(|section| {
        ["dependencies", "build-dependencies"].into_iter().filter_map(|key| section.get(key)?.as_table())
    });
    Ok(tables.flat_map(|table| table.keys().cloned()).collect())
}

/// The first pure crate whose lint rules are not those of the first.
fn odd_lint_rules(root: &Path) -> Result<Option<&'static str>> {
    let [(first, _), others @ ..] = PURE;
    let rules = |name| fs::read_to_string(root.join("crates").join(name).join("clippy.toml"));
    let expected = rules(first)?;
    for (name, _) in others {
        if rules(name)? != expected {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The `src` folder of every crate.
fn source_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = ["benches", "machines", "sim", "xtask"].map(|name| root.join(name).join("src")).to_vec();
    for entry in fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path().join("src"));
    }
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    Ok(folders)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The files that `mod` lines lead to from the crate's roots.
fn reachable(source: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut waiting = vec![source.join("lib.rs"), source.join("main.rs")];
    if let Ok(programs) = fs::read_dir(source.join("bin")) {
        for program in programs {
            waiting.push(program?.path());
        }
    }
    waiting.retain(|file| file.is_file());
    let roots = waiting.clone();
    let mut found = BTreeSet::new();
    while let Some(file) = waiting.pop() {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let children = if roots.contains(&file) { file.with_file_name("") } else { file.with_extension("") };
        let modules = text.lines().filter_map(module).map(|name| children.join(format!("{name}.rs")));
        waiting.extend(modules.filter(|module| module.is_file()));
        found.insert(file);
    }
    Ok(found)
}

/// The module a line such as `pub mod frame;` names.
fn module(line: &str) -> Option<&str> {
    let (visibility, name) = line.trim().strip_suffix(';')?.split_once("mod ")?;
    matches!(visibility.trim(), "" | "pub" | "pub(crate)" | "pub(super)").then_some(name)
}

/// What is oversized in a formatted source file, unless it is generated.
fn outliers(text: &str) -> Vec<String> {
    if text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(GENERATED)) {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect();
    let mut outliers = Vec::new();
    if lines.len() > FILE_LINES_MAX {
        outliers.push(format!("{} lines without tests", lines.len()));
    }
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", &line[..indent]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
        if length > FUNCTION_LINES_MAX && !line.ends_with(';') {
            outliers.push(format!("fn {name} has {length} lines"));
        }
    }
    outliers
}

/// The name of the function whose first line this is.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_declaration = before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || matches!(word, "const" | "async" | "unsafe" | "extern"));
    is_declaration.then(|| after.split(['(', '<']).next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_in_every_section_but_the_tests_one() {
        let manifest = r#"
            [dependencies]
            bytes.workspace = true
            [target."cfg(unix)".dependencies]
            libc = "0.2"
            [build-dependencies]
            cc = "1"
            [dev-dependencies]
            proptest = "1"
        "#;
        let mut found = dependencies(manifest).unwrap();
        found.sort();
        assert_eq!(found, ["bytes", "cc", "libc"]);
    }

    #[test]
    fn only_mod_lines_name_a_module() {
        assert_eq!(module("mod frame;"), Some("frame"));
        assert_eq!(module("    pub(crate) mod frame;"), Some("frame"));
        assert_eq!(module("mod tests {"), None);
        assert_eq!(module("// mod frame;"), None);
    }

    #[test]
    fn long_functions_are_listed_and_tests_are_not_counted() {
        let body = "        x();\n".repeat(69);
        let function = format!("impl X {{\n    pub const fn long<'a>(\n    ) {{\n{body}    }}\n}}\n");
        assert_eq!(outliers(&function), ["fn long has 72 lines"]);
        let tested = format!("fn short() {{\n}}\n#[cfg(test)]\n{}", "\n".repeat(600));
        assert_eq!(outliers(&tested), [""; 0]);
    }
}
