//! How answers are printed: RabbitMQ's formats, to the letter where people and scripts read them.

use super::failure::Failure;
use super::{Options, Screen};
use serde_json::{Map, Value, json};

/// A format, by `--formatter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Formatter {
    /// Cells divided by tabs, under a line of column names.
    #[default]
    Table,
    /// The same in boxes.
    PrettyTable,
    /// A list of objects.
    Json,
    /// An object a line.
    JsonStream,
    /// Quoted cells divided by commas.
    Csv,
}

impl Formatter {
    /// The format of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "table" => Self::Table,
            "pretty_table" => Self::PrettyTable,
            "json" => Self::Json,
            "json_stream" => Self::JsonStream,
            "csv" => Self::Csv,
            _ => return None,
        })
    }

    /// Banners would spoil it.
    pub(super) fn is_for_machines(self) -> bool {
        matches!(self, Self::Json | Self::JsonStream | Self::Csv)
    }
}

/// Prints rows under these columns. `null` is an empty cell.
pub(super) fn print_rows(
    screen: &mut Screen,
    options: &Options,
    columns: &[&str],
    rows: &[Vec<Value>],
) -> Result<(), Failure> {
    match options.formatter {
        Formatter::Json => {
            screen.line("[")?;
            for (at, row) in rows.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                screen.line(&format!("{comma}{}", json_object(columns, row)))?;
            }
            screen.line("]")
        }
        Formatter::JsonStream => {
            rows.iter().try_for_each(|row| screen.line(&json_object(columns, row)))?;
            screen.line("")
        }
        // Even the names of columns are only printed above something.
        _ if rows.is_empty() => Ok(()),
        Formatter::Table => {
            if !options.silent && !options.no_table_headers {
                screen.line(&columns.join("\t"))?;
            }
            let line = |row: &Vec<Value>| row.iter().map(cell).collect::<Vec<_>>().join("\t");
            rows.iter().try_for_each(|row| screen.line(&line(row)))
        }
        Formatter::Csv => {
            let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
            screen.line(&columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(","))?;
            let line = |row: &Vec<Value>| row.iter().map(|value| quoted(&cell(value))).collect::<Vec<_>>().join(",");
            rows.iter().try_for_each(|row| screen.line(&line(row)))
        }
        Formatter::PrettyTable => print_boxes(screen, columns, rows),
    }
}

/// Prints one sentence.
pub(super) fn print_message(screen: &mut Screen, options: &Options, message: &str) -> Result<(), Failure> {
    match options.formatter {
        Formatter::Json | Formatter::JsonStream => screen.line(&json!({"message": message}).to_string()),
        Formatter::Csv => screen.line(&format!("\"{}\"", message.replace('"', "\"\""))),
        Formatter::Table | Formatter::PrettyTable => screen.line(message),
    }
}

/// A value as people read it; tables of arguments as the Erlang term that RabbitMQ prints.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(cell).collect::<Vec<_>>().join(", ")),
        Value::Object(_) => term(value),
        plain => plain.to_string(),
    }
}

fn term(value: &Value) -> String {
    match value {
        // To Erlang an empty string is an empty list.
        Value::String(text) if text.is_empty() => "[]".to_owned(),
        Value::String(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
            format!("\"{escaped}\"")
        }
        Value::Array(items) => format!("[{}]", items.iter().map(term).collect::<Vec<_>>().join(",")),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{{{},{}}}", term(&key.as_str().into()), term(value));
            format!("[{}]", entries.iter().map(entry).collect::<Vec<_>>().join(","))
        }
        Value::Null => "undefined".to_owned(),
        plain => plain.to_string(),
    }
}

fn json_object(columns: &[&str], row: &[Value]) -> String {
    let entry = |(column, value): (&&str, &Value)| ((*column).to_owned(), json_value(value));
    Value::from(columns.iter().zip(row).map(entry).collect::<Map<_, _>>()).to_string()
}

/// What is missing is an empty string; a table of arguments is a list of name, AMQP type and value.
fn json_value(value: &Value) -> Value {
    match value {
        Value::Null => "".into(),
        Value::Object(entries) => entries.iter().map(|(key, value)| typed(key, value)).collect(),
        plain => plain.clone(),
    }
}

fn typed(key: &str, value: &Value) -> Value {
    let kind = match value {
        Value::Null => "void",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(number) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => "signedint",
        Value::Number(_) => "long",
        Value::String(_) => "longstr",
        Value::Array(_) => "array",
        Value::Object(_) => "table",
    };
    match value {
        Value::Object(_) => json!([key, kind, json_value(value)]),
        plain => json!([key, kind, plain]),
    }
}

/// Boxes are drawn with the terminal's own line characters, cells as wide as the widest of their column.
fn print_boxes(screen: &mut Screen, columns: &[&str], rows: &[Vec<Value>]) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|value| without_tabs(&cell(value))).collect()).collect();
    let width = |at: usize, name: &str| {
        let cells = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        cells.max(name.chars().count())
    };
    let widths: Vec<_> = columns.iter().enumerate().map(|(at, name)| width(at, name)).collect();
    let rule = |left: char, middle: char, right: char| {
        let dashes: Vec<_> = widths.iter().map(|width| "q".repeat(width + 2)).collect();
        format!("{LINES}{left}{}{right}{TEXT}", dashes.join(&middle.to_string()))
    };
    let bar = format!("{LINES}x{TEXT}");
    let pad = |text: &str, width: usize| " ".repeat(width - text.chars().count());
    let heads = columns.iter().zip(&widths).map(|(name, width)| format!(" {BOLD}{name}{PLAIN}{} ", pad(name, *width)));
    screen.line(&rule('l', 'w', 'k'))?;
    screen.line(&format!("{bar}{}{bar}", heads.collect::<Vec<_>>().join(&bar)))?;
    for row in &rows {
        screen.line(&rule('t', 'n', 'u'))?;
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell}{} ", pad(cell, *width)));
        screen.line(&format!("{bar}{}{bar}", cells.collect::<Vec<_>>().join(&bar)))?;
    }
    screen.line(&rule('m', 'v', 'j'))
}

/// Tabs as the spaces that a terminal would show.
fn without_tabs(text: &str) -> String {
    let mut plain = String::new();
    let mut column = 0;
    for character in text.chars() {
        let (shown, times) = match character {
            '\t' => (' ', TAB_STOP - column % TAB_STOP),
            '\n' | '\r' => (' ', 1),
            other => (other, 1),
        };
        plain.extend(std::iter::repeat_n(shown, times));
        column += times;
    }
    plain
}

const TAB_STOP: usize = 8;
/// Switches a terminal to line characters, and back.
const LINES: &str = "\x1b(0";
const TEXT: &str = "\x1b(B";
pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_printed_as_the_erlang_term_they_are_in_rabbitmq() {
        let arguments = json!({
            "x-max-priority": 5, "x-foo": true, "x-bar": -5_000_000_000_i64, "x-baz": ["a", 1], "x-tab": {"k": "v"},
        });
        let expected =
            r#"[{"x-max-priority",5},{"x-foo",true},{"x-bar",-5000000000},{"x-baz",["a",1]},{"x-tab",[{"k","v"}]}]"#;
        assert_eq!(cell(&arguments), expected);
        assert_eq!(cell(&json!({})), "[]");
        assert_eq!(cell(&json!({"x-dead-letter-exchange": ""})), r#"[{"x-dead-letter-exchange",[]}]"#);
        assert_eq!(cell(&json!({"k": "a\"b\\c"})), r#"[{"k","a\"b\\c"}]"#);
    }

    #[test]
    fn in_json_arguments_have_types_and_nothing_is_an_empty_string() {
        let row = [
            json!({"x-max-length": 10, "x-overflow": "reject-publish", "x-long": 5_000_000_000_i64}),
            Value::Null,
            json!(0),
        ];
        let expected = r#"{"arguments":[["x-max-length","signedint",10],["x-overflow","longstr","reject-publish"],["x-long","long",5000000000]],"policy":"","messages":0}"#;
        assert_eq!(json_object(&["arguments", "policy", "messages"], &row), expected);
    }

    #[test]
    fn tabs_take_the_room_that_they_take_on_a_terminal() {
        assert_eq!(without_tabs("tab\tname"), "tab     name");
        assert_eq!(without_tabs("ünïünïün\tx"), "ünïünïün        x");
    }
}
