//! The command line of a job's program: what was written after `--`, with what a job has put in its places.
//!
//! What is in braces and is no name of a place stays as it is, so that programs may have braces of their own. The program
//! itself has no places: which program runs is nothing that a message decides.

use super::job::{Job, value_text};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Debug)]
pub(super) struct Template {
    /// As it was called.
    pub(super) name: OsString,
    /// Where it is.
    pub(super) program: PathBuf,
    arguments: Vec<Vec<Piece>>,
    plain: Vec<OsString>,
    /// Whether the body is an argument, and so is not on standard input.
    pub(super) has_body: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Body,
    Header(String),
    /// One of [`Job::fields`].
    Field(String),
}

impl Template {
    /// Reads it, and finds the program, so that a name nobody has is told before there is a job.
    ///
    /// # Errors
    /// There is no such program.
    pub(super) fn new(command: &[OsString]) -> io::Result<Self> {
        let (name, arguments) = command.split_first().ok_or_else(|| io::Error::other("no command is given"))?;
        let (program, plain) = (find(name)?, arguments.to_vec());
        let arguments: Vec<_> = arguments.iter().map(|argument| pieces(argument.as_bytes())).collect();
        let has_body = arguments.iter().flatten().any(|piece| *piece == Piece::Body);
        Ok(Self { name: name.clone(), program, arguments, plain, has_body })
    }

    /// The arguments as they were written, for a program that is started for many jobs.
    pub(super) fn plain_arguments(&self) -> &[OsString] {
        &self.plain
    }

    /// The arguments for this job; `None` if one would have an octet 0, which no argument can have.
    pub(super) fn arguments(&self, job: &Job) -> Option<Vec<OsString>> {
        let mut filled = Vec::with_capacity(self.arguments.len());
        for pieces in &self.arguments {
            let mut argument = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Text(text) => argument.extend_from_slice(text),
                    Piece::Body => argument.extend_from_slice(&job.body),
                    Piece::Header(name) => {
                        let header = job.properties().and_then(|properties| properties.header(name));
                        argument
                            .extend_from_slice(header.map(|value| value_text(&value)).unwrap_or_default().as_bytes());
                    }
                    Piece::Field(name) => {
                        let field = job.fields().into_iter().find(|(field, _)| field == name);
                        argument.extend_from_slice(field.unwrap_or_default().1.as_bytes());
                    }
                }
            }
            if argument.contains(&0) {
                return None;
            }
            filled.push(OsString::from_vec(argument));
        }
        Some(filled)
    }
}

/// What a job puts into its program's environment, beside what the runner has itself. What cannot be there (an octet 0) or
/// is longer than a system takes is left out.
pub(super) fn environment(job: &Job) -> Vec<(String, String)> {
    let fields =
        job.fields().into_iter().map(|(name, value)| (format!("LEVERET_{}", name.to_ascii_uppercase()), value));
    let headers = job.headers();
    let headers = headers.iter().map(|(name, value)| (header_variable(name), value_text(value)));
    fields.chain(headers).filter(|(_, value)| value.len() <= VALUE_BYTES_MAX && !value.contains('\0')).collect()
}

/// `x-tenant` is `LEVERET_HEADER_X_TENANT`.
fn header_variable(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "LEVERET_HEADER_".chars().chain(letters).collect()
}

fn pieces(mut argument: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    while let Some(open) = argument.iter().position(|octet| *octet == b'{') {
        let (before, from) = argument.split_at(open);
        text.extend_from_slice(before);
        let place =
            from.iter().position(|octet| *octet == b'}').and_then(|close| Some((place(&from[1..close])?, close)));
        match place {
            Some((piece, close)) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(piece);
                argument = &from[close + 1..];
            }
            None => {
                text.push(b'{');
                argument = &from[1..];
            }
        }
    }
    text.extend_from_slice(argument);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

fn place(name: &[u8]) -> Option<Piece> {
    let name = std::str::from_utf8(name).ok()?;
    match name {
        "" | "body" => Some(Piece::Body),
        _ if FIELDS.contains(&name) => Some(Piece::Field(name.to_owned())),
        _ => name.strip_prefix("header.").map(|header| Piece::Header(header.to_owned())),
    }
}

/// A program as a shell finds it.
fn find(name: &OsStr) -> io::Result<PathBuf> {
    let is_program = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let missing = |what: &str| {
        let text = format!("{} {what}; what follows -- is a program and its arguments", name.to_string_lossy());
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    if name.as_bytes().contains(&b'/') {
        return if is_program(Path::new(name)) { Ok(name.into()) } else { Err(missing("is no program")) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(name));
    found.find(|path| is_program(path)).ok_or_else(|| missing("is in no directory of PATH"))
}

const FIELDS: [&str; 16] = [
    "queue",
    "exchange",
    "routing_key",
    "attempt",
    "redelivered",
    "message_id",
    "correlation_id",
    "reply_to",
    "type",
    "content_type",
    "content_encoding",
    "app_id",
    "user_id",
    "expiration",
    "timestamp",
    "priority",
];

/// Linux takes 128 KiB for one variable.
const VALUE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;
    use amqp::{Table, Value};

    fn filled(arguments: &[&str], body: &[u8]) -> Option<Vec<String>> {
        let command: Vec<OsString> = ["sh"].iter().chain(arguments).map(OsString::from).collect();
        let job = job(Table::from_iter([("tenant", Value::from("acme")), ("n", Value::I32(3))]), body);
        let filled = Template::new(&command).unwrap().arguments(&job)?;
        Some(filled.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn places_are_filled_and_other_braces_stay() {
        let given = [
            "--to={header.tenant}{header.n}",
            "{}",
            "{body}!",
            "{message_id}/{routing_key}",
            "{print $1}",
            "${x}",
            "{",
            "{{}}",
        ];
        let expected = ["--to=acme3", "job", "job!", "m-1/rk", "{print $1}", "${x}", "{", "{job}"];
        assert_eq!(filled(&given, b"job").unwrap(), expected);
        assert_eq!(filled(&["{header.missing}{reply_to}"], b"").unwrap(), [""]);
        assert_eq!(filled(&["{}"], b"a\0b"), None);
    }

    #[test]
    fn the_environment_has_properties_and_headers() {
        let job = job(Table::from_iter([("x-tenant.id", Value::I32(5)), ("bad", Value::Str(b"a\0".to_vec()))]), b"");
        let environment = environment(&job);
        let get = |name: &str| environment.iter().find_map(|(other, value)| (other == name).then_some(value.as_str()));
        assert_eq!(get("LEVERET_HEADER_X_TENANT_ID"), Some("5"));
        assert_eq!(get("LEVERET_HEADER_BAD"), None);
        assert_eq!(get("LEVERET_MESSAGE_ID"), Some("m-1"));
        assert_eq!(get("LEVERET_QUEUE"), Some("tasks"));
        assert_eq!(get("LEVERET_ATTEMPT"), Some("1"));
    }

    #[test]
    fn a_program_that_nobody_has_is_told() {
        let error = Template::new(&["no-such-program".into()]).unwrap_err().to_string();
        assert!(error.starts_with("no-such-program is in no directory of PATH"), "{error}");
        assert!(Template::new(&["/etc/passwd".into()]).is_err());
    }
}
