//! Writes the method structs of the `amqp` crate from its table of methods.
//!
//! The output is checked in, formatted, and meant to be read. `check` fails when it is not what the
//! table says; so does a test here.

mod spec;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use spec::{Class, Field, FieldKind, Method, Spec};

const SPEC: &str = "crates/amqp/spec/methods.toml";
const OUTPUT: &str = "crates/amqp/src/method";
const GENERATED: &str = "//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.";

/// Writes every generated file.
pub(crate) fn write(root: &Path) -> Result<()> {
    let folder = root.join(OUTPUT);
    std::fs::create_dir_all(&folder)?;
    for (path, text) in files(root)? {
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Fails if a generated file is missing or is not what [`write()`] would write.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (path, text) in files(root)? {
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        ensure!(found == text, "{} is stale: run `cargo xtask codegen`", path.display());
    }
    Ok(())
}

/// Every generated file: its path and its text.
fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let spec: Spec = toml::from_str(&std::fs::read_to_string(root.join(SPEC))?).context(SPEC)?;
    let mut files = vec![("all".to_owned(), all(&spec)), ("round_trips".to_owned(), round_trips(&spec)?)];
    for class in &spec.classes {
        files.push((class.name.clone(), class_module(class)?));
    }
    files.into_iter().map(|(name, text)| Ok((root.join(OUTPUT).join(name + ".rs"), formatted(&text)?))).collect()
}

/// The module of one class: a struct for each of its methods.
fn class_module(class: &Class) -> Result<String> {
    let mut out = String::new();
    let has = |kind| class.methods.iter().any(|method| method.keeps(kind));
    let puts_numbers = class
        .methods
        .iter()
        .any(|method| method.fields.iter().any(|field| field.reserved || put_number(field.kind).is_some()));
    writeln!(out, "//! Class {}, {}: {}\n//!\n{GENERATED}\n", class.id, class.name, uncapitalised(&class.doc))?;
    writeln!(out, "use bytes::{};", if puts_numbers { "{BufMut, BytesMut}" } else { "BytesMut" })?;
    writeln!(out, "\nuse crate::ChannelId;\nuse crate::method::MethodId;")?;
    if has(FieldKind::Table) {
        writeln!(out, "use crate::table::Table;")?;
    }
    let reads = class.methods.iter().any(|method| !method.fields.is_empty());
    writeln!(out, "use crate::wire::{};", if reads { "{self, DecodeError, Reader}" } else { "self" })?;
    for method in &class.methods {
        method_struct(&mut out, class, method)?;
    }
    Ok(out)
}

fn method_struct(out: &mut String, class: &Class, method: &Method) -> Result<()> {
    let name = method.rust_name();
    let copy = if method.keeps(FieldKind::Table) { "" } else { "Copy, Eq, " };
    writeln!(out, "\n/// {}.{}: {}", class.name, method.name, uncapitalised(&method.doc))?;
    writeln!(out, "#[derive(Debug, Clone, {copy} PartialEq, Default)]")?;
    let lifetime = if method.borrows() { "<'a>" } else { "" };
    if method.kept().next().is_none() {
        writeln!(out, "pub struct {name};")?;
    } else {
        writeln!(out, "pub struct {name}{lifetime} {{")?;
        for field in method.kept() {
            ensure!(!field.doc.is_empty(), "{}.{}: {} has no doc", class.name, method.name, field.name);
            writeln!(out, "/// {}\npub {}: {},", field.doc, field.name, field.kind.rust_type())?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "\nimpl{lifetime} {name}{lifetime} {{")?;
    writeln!(out, "/// {}.{}", class.name, method.name)?;
    writeln!(out, "pub const ID: MethodId = MethodId {{ class: {}, method: {} }};", class.id, method.id)?;
    write_encode(out, method)?;
    if !method.fields.is_empty() {
        write_read(out, method)?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

fn write_encode(out: &mut String, method: &Method) -> Result<()> {
    writeln!(out, "\n/// Appends it to `out` as a whole frame on `channel`.")?;
    if method.keeps(FieldKind::Shortstr) {
        writeln!(out, "///\n/// A `str` over 255 bytes is clipped at a character boundary.")?;
    }
    writeln!(out, "pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {{")?;
    let closure = if method.fields.is_empty() { "|_| {}" } else { "|out| {" };
    writeln!(out, "wire::put_method(out, channel, Self::ID, {closure}")?;
    for run in method.runs() {
        writeln!(out, "{};", put(run))?;
    }
    writeln!(out, "{}); }}", if method.fields.is_empty() { "" } else { "}" })?;
    Ok(())
}

fn write_read(out: &mut String, method: &Method) -> Result<()> {
    let lifetime = if method.borrows() { "'a" } else { "'_" };
    writeln!(out, "\npub(super) fn read(reader: &mut Reader<{lifetime}>) -> Result<Self, DecodeError> {{")?;
    for run in method.runs() {
        match run {
            [field] if field.kind != FieldKind::Bit => {
                let binding = if field.reserved { String::new() } else { format!("let {} = ", field.name) };
                writeln!(out, "{binding}{}?;", take(field))?;
            }
            bits if bits.iter().all(|field| field.reserved) => writeln!(out, "reader.octet()?;")?,
            bits => {
                writeln!(out, "let bits = reader.octet()?;")?;
                for (place, field) in bits.iter().enumerate().filter(|(_, field)| !field.reserved) {
                    writeln!(out, "let {} = bits & {:#b} != 0;", field.name, 1 << place)?;
                }
            }
        }
    }
    let names: Vec<&str> = method.kept().map(|field| field.name.as_str()).collect();
    let fields = if names.is_empty() { String::new() } else { format!("{{ {} }}", names.join(", ")) };
    writeln!(out, "Ok(Self {fields})\n}}")?;
    Ok(())
}

/// The expression that reads a field.
fn take(field: &Field) -> &'static str {
    match field.kind {
        FieldKind::Octet | FieldKind::Bit => "reader.octet()",
        FieldKind::Short => "reader.short()",
        FieldKind::Long => "reader.long()",
        FieldKind::Longlong => "reader.longlong()",
        FieldKind::Shortstr if field.reserved => "reader.shortstr_octets()",
        FieldKind::Shortstr => "reader.shortstr()",
        FieldKind::Longstr => "reader.longstr()",
        FieldKind::Table => "Table::read(reader)",
    }
}

/// The expression that writes a field, or several bits.
fn put(run: &[Field]) -> String {
    match run {
        [field] if field.kind != FieldKind::Bit => {
            let name = &field.name;
            match (field.kind, put_number(field.kind)) {
                (FieldKind::Shortstr, _) if field.reserved => "out.put_u8(0)".to_owned(),
                (FieldKind::Longstr | FieldKind::Table, _) if field.reserved => "out.put_u32(0)".to_owned(),
                (_, Some(put)) if field.reserved => format!("out.{put}(0)"),
                (_, Some(put)) => format!("out.{put}(self.{name})"),
                (FieldKind::Shortstr, _) => format!("wire::put_shortstr(out, self.{name})"),
                (FieldKind::Table, _) => format!("self.{name}.encode(out)"),
                _ => format!("wire::put_longstr(out, self.{name})"),
            }
        }
        bits => {
            let bit = |(place, field): (usize, &Field)| match place {
                0 => format!("u8::from(self.{})", field.name),
                _ => format!("(u8::from(self.{}) << {place})", field.name),
            };
            let bits = bits.iter().enumerate().filter(|(_, field)| !field.reserved);
            let octet = bits.map(bit).collect::<Vec<_>>().join(" | ");
            format!("out.put_u8({})", if octet.is_empty() { "0" } else { &octet })
        }
    }
}

fn put_number(kind: FieldKind) -> Option<&'static str> {
    match kind {
        FieldKind::Octet | FieldKind::Bit => Some("put_u8"),
        FieldKind::Short => Some("put_u16"),
        FieldKind::Long => Some("put_u32"),
        FieldKind::Longlong => Some("put_u64"),
        FieldKind::Shortstr | FieldKind::Longstr | FieldKind::Table => None,
    }
}

/// The enum of all methods.
fn all(spec: &Spec) -> String {
    let methods: Vec<(&Class, &Method)> =
        spec.classes.iter().flat_map(|class| class.methods.iter().map(move |method| (class, method))).collect();
    let each = |line: &dyn Fn(&str, &str, &Method, &Class) -> String| -> String {
        let line = |(class, method): &(&Class, &Method)| {
            line(&method.variant(class), &format!("{}::{}", class.name, method.rust_name()), method, class)
        };
        methods.iter().map(line).collect()
    };
    let modules = class_names(spec);

    let variants = each(&|variant, path, method, class| {
        let lifetime = if method.borrows() { "<'a>" } else { "" };
        format!("/// {}.{}\n{variant}({path}{lifetime}),\n", class.name, method.name)
    });
    let reads = each(&|variant, path, method, _| match method.fields.is_empty() {
        true => format!("{path}::ID => Self::{variant}({path}),\n"),
        false => format!("{path}::ID => Self::{variant}({path}::read(reader)?),\n"),
    });
    let ids = each(&|variant, path, _, _| format!("Self::{variant}(_) => {path}::ID,\n"));
    let encodes = each(&|variant, _, _, _| format!("Self::{variant}(method) => method.encode(channel, out),\n"));
    let list = each(&|_, path, _, _| format!("{path}::ID,\n"));
    let names = each(&|_, path, method, class| format!("{path}::ID => \"{}.{}\",\n", class.name, method.name));

    let parts = [
        ("@generated@", GENERATED),
        ("@modules@", &modules),
        ("@variants@", &variants),
        ("@reads@", &reads),
        ("@ids@", &ids),
        ("@encodes@", &encodes),
        ("@list@", &list),
        ("@names@", &names),
    ];
    parts
        .into_iter()
        .fold(include_str!("codegen/all.template").to_owned(), |text, (mark, part)| text.replace(mark, part))
}

/// A property test for each method: what is written reads back the same.
fn round_trips(spec: &Spec) -> Result<String> {
    let mut bare = String::new();
    let mut tests = String::new();
    for class in &spec.classes {
        for method in &class.methods {
            let variant = method.variant(class);
            let path = format!("{}::{}", class.name, method.rust_name());
            if method.kept().next().is_none() {
                writeln!(bare, "assert_round_trip(&Method::{variant}({path}));")?;
                continue;
            }
            let name = format!("{}_{}", class.name, method.name.replace('-', "_"));
            writeln!(tests, "\n#[test]\nfn {name}(")?;
            for field in method.kept() {
                writeln!(tests, "{} in {},", field.name, strategy(field.kind))?;
            }
            writeln!(tests, ") {{\nlet method = {path} {{")?;
            for field in method.kept() {
                match field.kind {
                    FieldKind::Shortstr | FieldKind::Longstr => writeln!(tests, "{0}: &{0},", field.name)?,
                    _ => writeln!(tests, "{},", field.name)?,
                }
            }
            writeln!(tests, "}};\nassert_round_trip(&Method::{variant}(method));\n}}")?;
        }
    }
    let modules = class_names(spec);
    Ok(format!(
        "//! Every method, written and read back.\n//!\n{GENERATED}\n
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::assert_round_trip;
use super::{{Method, {modules}}};
use crate::table::tests::any_table;

#[test]
fn methods_without_arguments() {{
{bare}}}

proptest! {{
#![proptest_config(ProptestConfig::with_cases(64))]
{tests}}}
",
    ))
}

fn strategy(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Octet => "any::<u8>()",
        FieldKind::Short => "any::<u16>()",
        FieldKind::Long => "any::<u32>()",
        FieldKind::Longlong => "any::<u64>()",
        FieldKind::Bit => "any::<bool>()",
        FieldKind::Shortstr => "\".{0,40}\"",
        FieldKind::Longstr => "vec(any::<u8>(), 0..300)",
        FieldKind::Table => "any_table()",
    }
}

/// The classes' modules, as an import lists them.
fn class_names(spec: &Spec) -> String {
    let names: Vec<&str> = spec.classes.iter().map(|class| class.name.as_str()).collect();
    names.join(", ")
}

fn uncapitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_lowercase() + rest
}

/// `text` as rustfmt would have it.
fn formatted(text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running rustfmt")?;
    rustfmt.stdin.take().context("rustfmt has no input")?.write_all(text.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    if !output.status.success() {
        bail!("rustfmt refuses the generated text:\n{text}");
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_generated_methods_are_current() {
        super::check(&crate::root().unwrap()).unwrap();
    }
}
